"""Stock activations of torch and Keras against the float64 reference, in float64.

Inputs hold exact zeros and the edges of every piece, so the slope that a framework takes at a kink
is part of the proof: `KINKS` says where frameworks or Keras backends differ.
"""

import dataclasses
import functools
import importlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parity.errors import DivergenceError
from parity.frameworks.outcomes import LayerOutcome
from parity.reference import layers as reference
from parity.rng import stream
from parity.testing.assertions import assert_close, assert_states_close
from parity.testing.faults import seed_array_fault

pytestmark = pytest.mark.usefixtures("float64_keras")

# Of the largest value of a quantity, or of 1 where all are smaller.
BOUND = 1e-10
# What a framework computes with float32 constants whatever the dtype, as (outputs, gradients).
LOOSER = {
    # keras 3.15.1 on tensorflow 2.21.0: an attribute of the kernel holds the slope in float32,
    # 2.4e-8 of it.
    ("tensorflow", "leaky_relu"): (6e-8, 6e-8),
    # tf.nn.gelu divides by sqrt(2), or multiplies by sqrt(2 / pi), through float32: measured
    # 5.0e-9 and 5.7e-9 (exact), 9.0e-10 and 9.8e-10 (tanh).
    ("tensorflow", "gelu_exact"): (2e-8, 2e-8),
    ("tensorflow", "gelu_tanh"): (4e-9, 4e-9),
    # torch 2.13.0: the backward holds 1 / 6, and 1 / alpha, in float32.
    ("torch", "hard_sigmoid"): (BOUND, 2e-8),
    ("torch", "celu"): (BOUND, 2e-7),
}
# The slope at a kink, where it is not torch's.
KINKS = {
    ("jax", "leaky_relu"): {"at_zero": "above"},
    ("tensorflow", "selu"): {"at_zero": "above"},
    ("tensorflow", "celu"): {"slope_at_zero": 2.0},
    ("tensorflow", "hard_tanh"): {"pass_at_edges": True},
    ("jax", "hard_tanh"): {"pass_at_edges": True},
}
# The inputs on either side of which a piece ends, or torch's softplus is cut.
EDGES = (-3.0, -1.0, -0.5, 0.0, 0.5, 1.0, 3.0, 6.0, 20.0, 25.0, -40.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Activation:
    """One activation: what it is called, and its knobs as a strategy of keywords.

    Attributes:
        forward: The reference's function.
        torch: From knobs, a stock module.
        keras: From knobs, a stock layer.
        knobs: Of the forward.
        kink: Of the backward beyond them, as torch has it.
    """

    forward: str
    torch: object
    keras: object
    knobs: st.SearchStrategy = dataclasses.field(default_factory=lambda: st.just({}))
    kink: dict = dataclasses.field(default_factory=dict)


def nn():
    return importlib.import_module("torch").nn


def keras():
    return importlib.import_module("keras")


def stock(name, **options):
    """Return `keras.layers.Activation` of a stock function, called with options."""
    function = getattr(keras().activations, name)
    return keras().layers.Activation(functools.partial(function, **options) if options else name)


ALPHAS = st.sampled_from((0.25, 0.5, 1.0, 1.7))
SLOPES = st.sampled_from((0.01, 0.2, 0.3))
ACTIVATIONS = {
    "relu": Activation(
        forward="relu", torch=lambda: nn().ReLU(), keras=lambda: keras().layers.ReLU()
    ),
    "leaky_relu": Activation(
        forward="leaky_relu",
        torch=lambda negative_slope: nn().LeakyReLU(negative_slope),
        keras=lambda negative_slope: keras().layers.LeakyReLU(negative_slope),
        knobs=st.fixed_dictionaries({"negative_slope": SLOPES}),
        kink={"at_zero": "below"},
    ),
    "elu": Activation(
        forward="elu",
        torch=lambda alpha: nn().ELU(alpha),
        keras=lambda alpha: keras().layers.ELU(alpha),
        knobs=st.fixed_dictionaries({"alpha": ALPHAS}),
    ),
    "selu": Activation(
        forward="selu",
        torch=lambda: nn().SELU(),
        keras=lambda: stock("selu"),
        kink={"at_zero": "below"},
    ),
    "celu": Activation(
        forward="celu",
        torch=lambda alpha: nn().CELU(alpha),
        keras=lambda alpha: stock("celu", alpha=alpha),
        knobs=st.fixed_dictionaries({"alpha": ALPHAS}),
        kink={"slope_at_zero": 1.0},
    ),
    "relu6": Activation(
        forward="relu6", torch=lambda: nn().ReLU6(), keras=lambda: keras().layers.ReLU(max_value=6)
    ),
    # Keras's edges are -1 and 1.
    "hard_tanh": Activation(
        forward="hard_tanh",
        torch=lambda low, high: nn().Hardtanh(low, high),
        keras=lambda low, high: stock("hard_tanh"),
        knobs=st.just({"low": -1.0, "high": 1.0}),
        kink={"pass_at_edges": False},
    ),
    # The slope of Keras 2, 0.2, is in neither.
    "hard_sigmoid": Activation(
        forward="hard_sigmoid",
        torch=lambda slope: nn().Hardsigmoid(),
        keras=lambda slope: stock("hard_sigmoid"),
        knobs=st.just({"slope": 1.0 / 6.0}),
    ),
    "hard_swish": Activation(
        forward="hard_swish", torch=lambda: nn().Hardswish(), keras=lambda: stock("hard_silu")
    ),
    "soft_shrink": Activation(
        forward="soft_shrink",
        torch=lambda threshold: nn().Softshrink(threshold),
        keras=lambda threshold: stock("soft_shrink", threshold=threshold),
        knobs=st.fixed_dictionaries({"threshold": st.sampled_from((0.5, 1.0))}),
    ),
    "hard_shrink": Activation(
        forward="hard_shrink",
        torch=lambda threshold: nn().Hardshrink(threshold),
        keras=lambda threshold: stock("hard_shrink", threshold=threshold),
        knobs=st.fixed_dictionaries({"threshold": st.sampled_from((0.5, 1.0))}),
    ),
    "sigmoid": Activation(
        forward="sigmoid", torch=lambda: nn().Sigmoid(), keras=lambda: stock("sigmoid")
    ),
    "log_sigmoid": Activation(
        forward="log_sigmoid", torch=lambda: nn().LogSigmoid(), keras=lambda: stock("log_sigmoid")
    ),
    "tanh": Activation(forward="tanh", torch=lambda: nn().Tanh(), keras=lambda: stock("tanh")),
    "softsign": Activation(
        forward="softsign", torch=lambda: nn().Softsign(), keras=lambda: stock("softsign")
    ),
    # Keras has neither knob; on torch it has torch's threshold (`knobs_of`).
    "softplus": Activation(
        forward="softplus",
        torch=lambda beta, threshold: nn().Softplus(beta, threshold),
        keras=lambda beta, threshold: stock("softplus"),
        knobs=st.just({"beta": 1.0, "threshold": 20.0}),
    ),
    "silu": Activation(forward="silu", torch=lambda: nn().SiLU(), keras=lambda: stock("silu")),
    "mish": Activation(forward="mish", torch=lambda: nn().Mish(), keras=lambda: stock("mish")),
    "gelu_exact": Activation(
        forward="gelu",
        torch=lambda form: nn().GELU(approximate="none"),
        keras=lambda form: stock("gelu", approximate=False),
        knobs=st.just({"form": "exact"}),
    ),
    "gelu_tanh": Activation(
        forward="gelu",
        torch=lambda form: nn().GELU(approximate="tanh"),
        keras=lambda form: stock("gelu", approximate=True),
        knobs=st.just({"form": "tanh"}),
    ),
    "softmax": Activation(
        forward="softmax",
        torch=lambda axis: nn().Softmax(axis),
        keras=lambda axis: keras().layers.Softmax(axis),
        knobs=st.fixed_dictionaries({"axis": st.sampled_from((1, 2, -1))}),
    ),
    "log_softmax": Activation(
        forward="log_softmax",
        torch=lambda axis: nn().LogSoftmax(axis),
        keras=lambda axis: stock("log_softmax", axis=axis),
        knobs=st.fixed_dictionaries({"axis": st.sampled_from((1, 2, -1))}),
    ),
    "glu": Activation(
        forward="glu",
        torch=lambda axis: nn().GLU(axis),
        keras=lambda axis: stock("glu", axis=axis),
        knobs=st.fixed_dictionaries({"axis": st.sampled_from((1, 2, -1))}),
    ),
}
FRAMEWORKS = ("torch", "keras")
QUANTITIES = ("outputs", "input gradient")


def engine_of(framework):
    """Return what computes: `torch`, or the backend of Keras."""
    return "torch" if framework == "torch" else keras().backend.backend()


def knobs_of(name, framework, knobs):
    """Return the reference's knobs for what a framework has no knob for."""
    if name == "softplus" and engine_of(framework) != "torch":
        return knobs | {"threshold": None}
    return knobs


@st.composite
def input_arrays(draw, *, axis=None):
    """Return inputs of which about a fifth are on an edge.

    Few shapes: jax compiles each of its operations for each of them.
    """
    shape = (3, 4, 6) if axis is None else draw(st.sampled_from(((3, 4, 6), (1, 2, 8))))
    generator = stream(draw(st.integers(0, 2**32 - 1)), "activation")
    inputs = draw(st.sampled_from((1.0, 4.0, 15.0))) * generator.standard_normal(shape)
    return np.where(generator.random(shape) < 0.2, generator.choice(EDGES, shape), inputs)


def d_outputs_of(outputs):
    return stream(0, "d_outputs", str(outputs.shape)).standard_normal(outputs.shape)


def run_stock(framework, name, knobs, inputs, d_outputs):
    row = ACTIVATIONS[name]
    if framework == "torch":
        from parity.frameworks.torch_layer import run_torch_layer

        return run_torch_layer(row.torch(**knobs), [inputs], d_outputs)
    from parity.frameworks.keras_layer import run_keras_layer

    return run_keras_layer(row.keras(**knobs), [inputs], d_outputs)


def assert_within(actual, expected, bounds):
    """Check each quantity to its bound, of the largest value or of 1."""
    for quantity, bound in bounds.items():
        wanted = expected[quantity]
        sizes = [np.abs(array).max(initial=0.0) for array in wanted.values()]
        scale = max([1.0, *map(float, sizes)])
        assert_states_close(actual[quantity], wanted, atol=bound * scale, rtol=0.0, where=quantity)


def quantities_of(outcome):
    return {
        "outputs": {"outputs": outcome.outputs},
        "input gradient": {"inputs": outcome.input_gradients[0]},
    }


def assert_matches_reference(framework, name, knobs, inputs, *, built_as=None, given=None):
    """Check a stock activation; `built_as` and `given` seed a fault in its knobs and inputs."""
    row, engine = ACTIVATIONS[name], engine_of(framework)
    wanted = knobs_of(name, framework, knobs)
    outputs = getattr(reference, row.forward)(inputs, **wanted)
    kink = row.kink | (KINKS.get((engine, name), {}) if framework == "keras" else {})
    d_outputs = d_outputs_of(outputs)
    backward = getattr(reference, f"{row.forward}_backward")
    expected = LayerOutcome(
        outputs=outputs,
        input_gradients=(backward(d_outputs, inputs, **wanted, **kink),),
        parameter_gradients={},
        buffers={},
    )
    actual = run_stock(
        framework, name, built_as or knobs, inputs if given is None else given, d_outputs
    )
    bounds = LOOSER.get((engine, name), (BOUND, BOUND))
    assert_within(
        quantities_of(actual),
        quantities_of(expected),
        dict(zip(QUANTITIES, bounds, strict=False)),
    )


@pytest.mark.backend
@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("name", ACTIVATIONS)
@given(data=st.data())
def test_stock_activation_matches_reference(name, framework, data):
    knobs = data.draw(ACTIVATIONS[name].knobs)
    inputs = data.draw(input_arrays(axis=knobs.get("axis")))
    assert_matches_reference(framework, name, knobs, inputs)


KINKED = {
    "leaky_relu": {"negative_slope": 0.3},
    "selu": {},
    "celu": {"alpha": 0.5},
    "hard_tanh": {"low": -1.0, "high": 1.0},
}


@pytest.mark.backend
@pytest.mark.parametrize("name", KINKED)
def test_slope_at_a_kink_is_torchs_only_where_no_row_says_otherwise(name):
    row, inputs = ACTIVATIONS[name], np.array([-1.0, 0.0, 1.0])
    backward = getattr(reference, f"{row.forward}_backward")
    as_torch = backward(np.ones(3), inputs, **KINKED[name], **row.kink)

    actual = run_stock("keras", name, KINKED[name], inputs, np.ones(3)).input_gradients[0]

    assert bool(np.abs(actual - as_torch).max() > 1e-3) == ((engine_of("keras"), name) in KINKS)


FAULTS = [
    ("leaky_relu", {"negative_slope": 0.3}, {"negative_slope": 0.30001}),
    ("elu", {"alpha": 1.0}, {"alpha": 1.0001}),
    ("celu", {"alpha": 1.0}, {"alpha": 1.0001}),
    ("soft_shrink", {"threshold": 0.5}, {"threshold": 0.5001}),
    ("hard_shrink", {"threshold": 0.5}, {"threshold": 0.6}),
    ("softmax", {"axis": 1}, {"axis": 2}),
    ("log_softmax", {"axis": 1}, {"axis": -1}),
]


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize(("name", "knobs", "wrong"), FAULTS)
def test_activation_check_catches_a_wrong_knob(framework, name, knobs, wrong):
    inputs = stream(0, "inputs").standard_normal((2, 30, 4))

    with pytest.raises(DivergenceError, match=r"^outputs: "):
        assert_matches_reference(framework, name, knobs, inputs, built_as=wrong)


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize(
    ("name", "other"), [("gelu_exact", "gelu_tanh"), ("gelu_tanh", "gelu_exact")]
)
def test_activation_check_tells_the_forms_of_gelu_apart(monkeypatch, framework, name, other):
    swapped = dataclasses.replace(
        ACTIVATIONS[name], **{side: getattr(ACTIVATIONS[other], side) for side in FRAMEWORKS}
    )
    monkeypatch.setitem(ACTIVATIONS, name, swapped)
    form = {"form": name.removeprefix("gelu_")}

    with pytest.raises(DivergenceError, match=r"^outputs: "):
        assert_matches_reference(framework, name, form, np.linspace(-3.0, 3.0, 31))


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("name", ["relu", "gelu_exact", "softplus", "hard_swish", "tanh", "mish"])
def test_activation_check_catches_a_damaged_input(framework, name):
    inputs = np.abs(stream(0, "inputs").standard_normal((2, 3, 4)))
    knobs = {
        "gelu_exact": {"form": "exact"},
        "softplus": {"beta": 1.0, "threshold": 20.0},
    }.get(name, {})

    with pytest.raises(DivergenceError, match=r"^outputs: "):
        assert_matches_reference(
            framework, name, knobs, inputs, given=seed_array_fault("element_bumped", inputs)
        )


@pytest.mark.parametrize(
    ("name", "default"),
    [
        ("gelu", {"form": "exact"}),
        ("leaky_relu", {"negative_slope": 0.2}),
        ("elu", {"alpha": 1.0}),
        ("celu", {"alpha": 1.0}),
    ],
)
def test_keras_activation_by_name_has_the_default_of_its_function(name, default):
    inputs = np.linspace(-4.0, 4.0, 33)
    outcome = run_stock_by_name(name, inputs)

    assert_close(outcome, getattr(reference, name)(inputs, **default), atol=3e-8, rtol=0.0)


def run_stock_by_name(name, inputs):
    return np.asarray(keras().ops.convert_to_numpy(keras().layers.Activation(name)(inputs)))
