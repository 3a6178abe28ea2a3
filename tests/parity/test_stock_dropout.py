"""Dropout of both frameworks against the float64 reference: stock layers, and the twins' by mask.

A stock layer draws its own mask, so it is read off its outputs; the reference, given that mask,
must then give the same outputs and gradients. Its share is held to the binomial distribution. The
twins' `Dropout` is told in both frameworks what to keep.
"""

import importlib
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parity.errors import DivergenceError
from parity.masks import kept_mask
from parity.reference import layers as reference
from parity.rng import stream
from parity.testing.assertions import assert_close, assert_identical
from parity.testing.faults import seed_array_fault

pytestmark = pytest.mark.usefixtures("float64_keras")

# Keras on tensorflow and jax, and torch, multiply by 1 / (1 - rate), Keras on torch divides: 1 ulp.
BOUND = 1e-15
SHAPE = (3, 4, 5, 2)
FRAMEWORKS = ("torch", "keras")
RATES = st.sampled_from((0.0, 0.1, 0.25, 0.5, 0.9))
# Keras on torch keeps a layer's seed in int32 and refuses more.
SEEDS = st.integers(0, 2**31 - 1)
# Which axes of images (n, c, h, w) share what is kept.
SHARED = {"element": (), "channel": (2, 3), "sample": (1, 2, 3)}


def run_layer(framework, layer, inputs, d_outputs, *, training):
    if framework == "torch":
        from parity.frameworks.torch_layer import run_torch_layer

        return run_torch_layer(layer.train(training), inputs, d_outputs)
    from parity.frameworks.keras_layer import run_keras_layer

    return run_keras_layer(layer, inputs, d_outputs, arguments={"training": training})


def stock_dropout(framework, kind, *, rate, seed):
    """Return the stock layer of a kind, images as the framework has them."""
    if framework == "torch":
        torch = importlib.import_module("torch")
        torch.manual_seed(seed)
        return {"element": torch.nn.Dropout, "channel": torch.nn.Dropout2d}[kind](rate)
    layers = importlib.import_module("keras").layers
    if kind == "element":
        return layers.Dropout(rate, seed=seed)
    return layers.SpatialDropout2D(rate, data_format="channels_first", seed=seed)


def run_stock(framework, kind, arrays, *, rate, seed, training):
    layer = stock_dropout(framework, kind, rate=rate, seed=seed)
    return run_layer(framework, layer, [arrays[0]], arrays[1], training=training)


def drawn_arrays(seed):
    # Nothing is 0, so a 0 in the outputs was dropped.
    inputs = stream(seed, "dropout", "inputs").uniform(0.5, 1.5, SHAPE)
    return inputs, stream(seed, "dropout", "d_outputs").standard_normal(SHAPE)


def assert_is_dropout(outcome, arrays, kind, *, rate):
    """Check that outputs and gradients are those of one mask of that kind, and return it."""
    inputs, d_outputs = arrays
    kept = (outcome.outputs != 0.0).any(axis=SHARED[kind], keepdims=True)
    knobs = {"rate": rate, "scale_at": "training", "training": True}
    expected = reference.dropout(inputs, kept, **knobs)
    assert_close(outcome.outputs, expected, atol=0.0, rtol=BOUND, where="outputs")
    d_inputs = reference.dropout_backward(d_outputs, kept, **knobs)
    assert_close(outcome.input_gradients[0], d_inputs, atol=0.0, rtol=BOUND, where="input gradient")
    return kept


@pytest.mark.backend
@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("kind", ["element", "channel"])
@given(rate=RATES, seed=SEEDS)
def test_stock_dropout_is_the_references_of_its_own_mask(kind, framework, rate, seed):
    arrays = drawn_arrays(seed)
    outcome = run_stock(framework, kind, arrays, rate=rate, seed=seed, training=True)

    assert_is_dropout(outcome, arrays, kind, rate=rate)


@pytest.mark.backend
@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("kind", ["element", "channel"])
def test_stock_dropout_does_nothing_in_inference(framework, kind):
    arrays = drawn_arrays(0)

    outcome = run_stock(framework, kind, arrays, rate=0.5, seed=0, training=False)

    assert_identical(outcome.outputs, arrays[0])
    assert_identical(outcome.input_gradients[0], arrays[1])


@pytest.mark.backend
@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_stock_dropout_keeps_its_share(framework, rate):
    inputs = np.ones((20_000,))
    layer = stock_dropout(framework, "element", rate=rate, seed=1)
    kept = run_layer(framework, layer, [inputs], inputs, training=True).outputs != 0.0

    deviation = math.sqrt(inputs.size * rate * (1.0 - rate))
    assert abs(int(kept.sum()) - inputs.size * (1.0 - rate)) < 5.0 * deviation


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_stock_dropout_of_one_seed_is_not_the_other_frameworks(framework):
    arrays = drawn_arrays(0)
    outcomes = [
        run_stock(name, "element", arrays, rate=0.5, seed=0, training=True) for name in FRAMEWORKS
    ]

    with pytest.raises(DivergenceError, match="elements differ"):
        assert_close(outcomes[0].outputs, outcomes[1].outputs, atol=0.1, rtol=0.0)


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize(
    ("built", "judged"),
    [(("element", 0.5), ("channel", 0.5)), (("element", 0.5), ("element", 0.4))],
)
def test_dropout_check_catches_a_wrong_knob(framework, built, judged):
    arrays = drawn_arrays(0)
    outcome = run_stock(framework, built[0], arrays, rate=built[1], seed=0, training=True)

    with pytest.raises(DivergenceError, match=r"^outputs: "):
        assert_is_dropout(outcome, arrays, judged[0], rate=judged[1])


def told_dropout(framework, kind, kept, *, rate):
    """Return a twin's layer that has been told what to keep; None leaves it to draw."""
    layers = importlib.import_module(f"models_{framework}.layers")
    if framework == "torch":
        torch = importlib.import_module("torch")
        layer = layers.Dropout(rate, by_sample=kind == "sample")
        layer.kept = None if kept is None else torch.tensor(kept)
        return layer
    ops = importlib.import_module("keras").ops
    layer = layers.Dropout(rate, noise_shape=(None, 1, 1, 1) if kind == "sample" else None)
    layer.kept = None if kept is None else ops.convert_to_tensor(kept)
    return layer


def run_told(framework, kind, arrays, kept, *, rate, training):
    layer = told_dropout(framework, kind, kept, rate=rate)
    return run_layer(framework, layer, [arrays[0]], arrays[1], training=training)


def drawn_mask(kind, *, rate, seed):
    shape = tuple(1 if axis in SHARED[kind] else SHAPE[axis] for axis in (1, 2, 3))
    return kept_mask(seed, kind, epoch=0, samples=range(SHAPE[0]), shape=shape, rate=rate)


@pytest.mark.backend
@pytest.mark.parametrize("kind", SHARED)
@given(rate=RATES, seed=SEEDS, training=st.booleans())
def test_twins_drop_what_they_are_told(kind, rate, seed, training):
    arrays, kept = drawn_arrays(seed), drawn_mask(kind, rate=rate, seed=seed)
    told = {"rate": rate, "training": training}
    expected = reference.dropout(arrays[0], kept, **told, scale_at="training")
    d_inputs = reference.dropout_backward(arrays[1], kept, **told, scale_at="training")

    torch, keras = (run_told(name, kind, arrays, kept, **told) for name in FRAMEWORKS)

    assert_identical(keras.outputs, torch.outputs)
    assert_close(torch.outputs, expected, atol=0.0, rtol=BOUND, where="outputs")
    for outcome in (torch, keras):
        assert_close(outcome.input_gradients[0], d_inputs, atol=0.0, rtol=BOUND)


@pytest.mark.backend
@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("kind", ["element", "sample"])
def test_twins_draw_themselves_when_told_nothing(framework, kind):
    arrays = np.ones((2000, 1, 2, 1)), np.ones((2000, 1, 2, 1))
    outcome = run_told(framework, kind, arrays, None, rate=0.25, training=True)

    kept = assert_is_dropout(outcome, arrays, kind, rate=0.25)
    assert abs(float(kept.mean()) - 0.75) < 5.0 * math.sqrt(0.75 * 0.25 / kept.size)


KNOBS = {"rate": 0.5, "scale_at": "training", "training": True}


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize(
    "change", [{"rate": 0.5001}, {"scale_at": "inference"}, {"training": False}], ids=str
)
def test_told_dropout_check_catches_a_wrong_knob(framework, change):
    arrays, kept = drawn_arrays(0), drawn_mask("element", rate=0.5, seed=0)
    wrong = reference.dropout(arrays[0], kept, **KNOBS | change)

    outcome = run_told(framework, "element", arrays, kept, rate=0.5, training=True)

    with pytest.raises(DivergenceError, match="elements differ"):
        assert_close(outcome.outputs, wrong, atol=0.0, rtol=BOUND)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_told_dropout_check_catches_one_wrong_bit_of_the_mask(framework):
    arrays, kept = drawn_arrays(0), drawn_mask("element", rate=0.5, seed=0)
    wrong = kept.copy()
    wrong[0, 0, 0, 0] ^= True

    outcome = run_told(framework, "element", arrays, wrong, rate=0.5, training=True)

    with pytest.raises(DivergenceError, match=r"1 of 120 elements differ"):
        assert_close(
            outcome.outputs, reference.dropout(arrays[0], kept, **KNOBS), atol=0.0, rtol=BOUND
        )


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_told_dropout_check_catches_a_damaged_gradient(framework):
    arrays, kept = drawn_arrays(0), drawn_mask("element", rate=0.5, seed=0)
    damaged = arrays[0], seed_array_fault("scaled", arrays[1])

    outcome = run_told(framework, "element", damaged, kept, rate=0.5, training=True)

    with pytest.raises(DivergenceError, match="elements differ"):
        assert_close(
            outcome.input_gradients[0],
            reference.dropout_backward(arrays[1], kept, **KNOBS),
            atol=0.0,
            rtol=BOUND,
        )


def test_dropout_of_the_keras_twin_is_rebuilt_from_its_config():
    layer = told_dropout("keras", "sample", None, rate=0.3)

    again = type(layer).from_config(layer.get_config())

    assert (again.rate, again.noise_shape) == (0.3, (None, 1, 1, 1))
