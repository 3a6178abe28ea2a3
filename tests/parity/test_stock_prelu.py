"""PReLU of torch and Keras against the float64 reference, in float64.

Some inputs are exactly 0: there torch's gradient has the trained slope, Keras's is 0.
"""

import importlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conversion.layouts import to_keras_layout, to_torch_layout
from parity.errors import DivergenceError
from parity.frameworks.outcomes import LayerOutcome
from parity.reference import layers as reference
from parity.rng import stream
from parity.testing.assertions import assert_close
from parity.testing.faults import seed_array_fault

pytestmark = pytest.mark.usefixtures("float64_keras")

# Of the largest value of an array, or of 1 where all are smaller.
BOUND = 1e-10
FRAMEWORKS = ("torch", "keras")


@st.composite
def prelu_cases(draw):
    """Return inputs `(n, c, h, w)` and slopes `(c,)` or one for all."""
    shape = draw(st.sampled_from(((2, 3, 4, 5), (1, 4, 1, 3), (3, 1, 2, 2), (2, 1, 1, 1))))
    generator = stream(draw(st.integers(0, 2**32 - 1)), "prelu")
    inputs = generator.standard_normal(shape)
    inputs[generator.random(shape) < 0.2] = 0.0
    count = draw(st.sampled_from((1, shape[1])))
    return inputs, generator.standard_normal(count)


def run_prelu(framework, inputs, weight, d_outputs):
    if framework == "torch":
        from parity.frameworks.torch_layer import run_torch_layer

        layer = importlib.import_module("torch").nn.PReLU(weight.size).double()
        return run_torch_layer(layer, [inputs], d_outputs, weights={"weight": weight})
    from parity.frameworks.keras_layer import run_keras_layer

    shared = [1, 2] if weight.size == inputs.shape[1] else [1, 2, 3]
    variable, alpha = to_keras_layout("PReLU", "weight", weight)
    outcome = run_keras_layer(
        importlib.import_module("keras").layers.PReLU(shared_axes=shared),
        [np.moveaxis(inputs, 1, -1)],
        np.moveaxis(d_outputs, 1, -1),
        weights={variable: alpha},
    )
    ((name, gradient),) = outcome.parameter_gradients.items()
    return LayerOutcome(
        outputs=np.moveaxis(outcome.outputs, -1, 1),
        input_gradients=(np.moveaxis(outcome.input_gradients[0], -1, 1),),
        parameter_gradients=dict([to_torch_layout("PReLU", name, gradient)]),
        buffers={},
    )


def assert_prelu_matches(framework, inputs, weight, *, filled_with=None, at_zero=None):
    outputs = reference.prelu(inputs, weight)
    d_outputs = stream(0, "d_outputs", str(outputs.shape)).standard_normal(outputs.shape)
    side = at_zero or {"torch": "below", "keras": "zero"}[framework]
    d_inputs, d_weight = reference.prelu_backward(d_outputs, inputs, weight, at_zero=side)
    slopes = weight if filled_with is None else filled_with
    outcome = run_prelu(framework, inputs, slopes, d_outputs)
    for where, actual, expected in (
        ("outputs", outcome.outputs, outputs),
        ("input gradient", outcome.input_gradients[0], d_inputs),
        ("weight gradient", outcome.parameter_gradients["weight"], d_weight),
    ):
        scale = max(1.0, float(np.abs(expected).max()))
        assert_close(actual, expected, atol=BOUND * scale, rtol=0.0, where=where)


@pytest.mark.backend
@pytest.mark.parametrize("framework", FRAMEWORKS)
@given(case=prelu_cases())
def test_stock_prelu_matches_reference(framework, case):
    assert_prelu_matches(framework, *case)


@pytest.mark.parametrize(("framework", "at_zero"), [("torch", "zero"), ("keras", "below")])
def test_prelu_of_keras_stops_the_gradient_at_zero(framework, at_zero):
    inputs, weight = np.zeros((1, 2, 1, 1)), np.array([0.25, 0.5])

    with pytest.raises(DivergenceError, match=r"^input gradient: "):
        assert_prelu_matches(framework, inputs, weight, at_zero=at_zero)


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("fault", ["element_bumped", "channels_swapped", "through_float16"])
def test_prelu_check_catches_damaged_slopes(framework, fault):
    generator = stream(0, "prelu")
    inputs, weight = generator.standard_normal((2, 3, 4, 4)), generator.standard_normal(3)

    with pytest.raises(DivergenceError, match=r"^outputs: "):
        assert_prelu_matches(framework, inputs, weight, filled_with=seed_array_fault(fault, weight))
