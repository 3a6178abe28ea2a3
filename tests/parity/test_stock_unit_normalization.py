"""Unit normalization of torch and Keras against the float64 reference, in float64."""

import importlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parity.errors import DivergenceError
from parity.reference import layers as reference
from parity.rng import stream
from parity.testing.assertions import assert_states_close

pytestmark = pytest.mark.usefixtures("float64_keras")


def run_stock(framework, axis, inputs, d_outputs):
    """Return outputs and input gradient of `functional.normalize` or `UnitNormalization`."""
    if framework == "torch":
        from parity.frameworks.torch_layer import run_torch_layer

        functional = importlib.import_module("torch.nn.functional")
        outcome = run_torch_layer(lambda x: functional.normalize(x, dim=axis), [inputs], d_outputs)
    else:
        from parity.frameworks.keras_layer import run_keras_layer

        layer = importlib.import_module("keras").layers.UnitNormalization(axis)
        outcome = run_keras_layer(layer, [inputs], d_outputs)
    return {"outputs": outcome.outputs, "inputs": outcome.input_gradients[0]}


def reference_of(axis, inputs, d_outputs):
    return {
        "outputs": reference.unit_norm(inputs, axis=axis, floor=1e-12),
        "inputs": reference.unit_norm_backward(d_outputs, inputs, axis=axis, floor=1e-12),
    }


@pytest.mark.parametrize("framework", ["torch", "keras"])
@given(
    shape=st.lists(st.integers(1, 4), min_size=2, max_size=4).map(tuple),
    data=st.data(),
    scale=st.sampled_from((1.0, 1e-4)),
    seed=st.integers(0, 2**32 - 1),
)
def test_stock_unit_normalization_matches_reference(framework, shape, data, scale, seed):
    axis = data.draw(st.integers(1, len(shape) - 1))
    # Far from the floor of 1e-12: at a vector of zeros Keras's gradient is not a number on jax and
    # torch.
    inputs = scale * (0.1 + stream(seed, "inputs").uniform(size=shape))
    d_outputs = stream(seed, "d_outputs").standard_normal(shape)

    actual = run_stock(framework, axis, inputs, d_outputs)

    # The gradient is of the order of 1 / scale, and cancels to 0 along an axis of length 1.
    assert_states_close(
        actual, reference_of(axis, inputs, d_outputs), atol=1e-12 / scale, rtol=1e-12
    )


@pytest.mark.backend
@pytest.mark.parametrize("framework", ["torch", "keras"])
def test_unit_normalization_matches_on_every_backend(framework):
    arrays = [stream(0, name).standard_normal((2, 3, 4)) for name in ("inputs", "d_outputs")]

    actual = run_stock(framework, 1, *arrays)

    assert_states_close(actual, reference_of(1, *arrays), atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("framework", ["torch", "keras"])
def test_unit_normalization_check_catches_another_axis(framework):
    arrays = [stream(0, name).standard_normal((2, 3, 4)) for name in ("inputs", "d_outputs")]

    actual = run_stock(framework, 2, *arrays)

    with pytest.raises(DivergenceError, match="2 differ"):
        assert_states_close(actual, reference_of(1, *arrays), atol=1e-12, rtol=1e-12)
