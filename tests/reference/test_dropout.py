"""The reference's dropout, with masks by element, by channel and by sample."""

import numpy as np
import pytest
import torch

from parity.errors import SpecError
from parity.masks import kept_mask
from parity.reference import layers
from parity.rng import stream
from parity.testing.assertions import assert_close, assert_identical

SHAPE = (6, 3, 2, 2)
MASK_SHAPES = {"element": (3, 2, 2), "channel": (3, 1, 1), "sample": (1, 1, 1)}
TRAINING = {"rate": 0.25, "scale_at": "training", "training": True}


def normal(name):
    return stream(0, "test", name).standard_normal(SHAPE)


def mask(kind, *, rate=0.25):
    return kept_mask(0, kind, epoch=0, samples=range(6), shape=MASK_SHAPES[kind], rate=rate)


@pytest.mark.parametrize("kind", MASK_SHAPES)
@pytest.mark.parametrize("scale_at", ["training", "inference"])
@pytest.mark.parametrize("training", [True, False], ids=["training", "inference"])
def test_dropout_and_its_gradient_match_autograd(kind, scale_at, training):
    inputs, d_outputs, kept = normal("inputs"), normal("d_outputs"), mask(kind)
    knobs = {"rate": 0.25, "scale_at": scale_at, "training": training}
    factor = {
        ("training", True): kept / 0.75,
        ("training", False): np.ones(1),
        ("inference", True): kept.astype(float),
        ("inference", False): np.full(1, 0.75),
    }[scale_at, training]
    leaf = torch.tensor(inputs, requires_grad=True)
    outputs = leaf * torch.tensor(factor)
    outputs.backward(torch.tensor(d_outputs))

    assert_close(layers.dropout(inputs, kept, **knobs), outputs.detach(), atol=0.0, rtol=1e-15)
    d_inputs = layers.dropout_backward(d_outputs, kept, **knobs)
    assert_close(d_inputs, leaf.grad, atol=0.0, rtol=1e-15)


def test_stochastic_depth_drops_whole_samples():
    kept = mask("sample", rate=0.5)

    outputs = layers.stochastic_depth(
        np.ones(SHAPE), kept, rate=0.5, scale_at="training", training=True
    ).reshape(6, -1)

    assert_identical(outputs, np.repeat(2.0 * kept.reshape(6, 1), 12, axis=1))


@pytest.mark.parametrize("scale_at", ["training", "inference"])
@pytest.mark.parametrize("training", [True, False], ids=["training", "inference"])
@pytest.mark.parametrize("end", ["", "_backward"], ids=["forward", "backward"])
def test_stochastic_depth_is_dropout_by_sample(end, scale_at, training):
    inputs, kept = normal("inputs"), mask("sample")
    knobs = {"rate": 0.25, "scale_at": scale_at, "training": training}

    outputs = getattr(layers, f"stochastic_depth{end}")(inputs, kept, **knobs)

    assert_identical(outputs, getattr(layers, f"dropout{end}")(inputs, kept, **knobs))


@pytest.mark.parametrize("end", ["", "_backward"], ids=["forward", "backward"])
def test_stochastic_depth_refuses_a_mask_by_channel(end):
    with pytest.raises(SpecError, match=r"\(n, 1, ..., 1\); got shape \(6, 3, 1, 1\)"):
        getattr(layers, f"stochastic_depth{end}")(normal("inputs"), mask("channel"), **TRAINING)


def test_rate_of_zero_changes_nothing():
    inputs = normal("inputs")
    kept = mask("element", rate=0.0)

    outputs = layers.dropout(inputs, kept, rate=0.0, scale_at="training", training=True)

    assert_identical(outputs, inputs)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rate": 1.0}, "0 <= rate < 1; got 1.0"),
        ({"rate": -0.5}, "0 <= rate < 1; got -0.5"),
        ({"scale_at": "never"}, "'training' or 'inference'; got 'never'"),
    ],
)
def test_dropout_refuses_an_impossible_knob(change, message):
    with pytest.raises(SpecError, match=message):
        layers.dropout(normal("inputs"), mask("element"), **TRAINING | change)


@pytest.mark.parametrize(
    ("kept", "got"),
    [
        (np.ones((6, 3), dtype=bool), r"bool of shape \(6, 3\)"),
        (np.ones((6, 2, 2, 2), dtype=bool), r"bool of shape \(6, 2, 2, 2\)"),
        (np.ones(SHAPE), r"float64 of shape \(6, 3, 2, 2\)"),
    ],
    ids=["rank", "size", "dtype"],
)
def test_dropout_refuses_a_mask_that_does_not_fit(kept, got):
    with pytest.raises(SpecError, match=rf"or 1 where shared; got {got}"):
        layers.dropout(normal("inputs"), kept, **TRAINING)
