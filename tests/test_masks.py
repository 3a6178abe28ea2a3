"""Masks depend on their key alone, and keep the share that they are asked for."""

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parity.errors import SpecError
from parity.masks import draw_masks, kept_mask
from parity.testing import specs
from parity.testing.assertions import assert_identical

# Of samples 5 and 2.
PINNED = [[0, 1, 0, 0, 0, 1], [1, 0, 1, 1, 0, 1]]


def draw(samples=(0,), *, shape=(4, 5), rate=0.5, seed=0, path="head.dropout", epoch=3):
    return kept_mask(seed, path, epoch=epoch, samples=samples, shape=shape, rate=rate)


def binomial_tail(kept, drawn, probability):
    """Return the chance of a count at least as far from its mean as `kept` is, on its side."""
    logs = [
        math.lgamma(drawn + 1)
        - math.lgamma(count + 1)
        - math.lgamma(drawn - count + 1)
        + count * math.log(probability)
        + (drawn - count) * math.log1p(-probability)
        for count in (range(kept, drawn + 1) if kept >= drawn * probability else range(kept + 1))
    ]
    return sum(map(math.exp, logs))


def test_mask_gives_the_pinned_booleans():
    kept = draw([5, 2], shape=(6,), rate=0.25)

    assert kept.astype(int).tolist() == PINNED


@given(
    samples=st.lists(st.integers(0, 50_000), min_size=1, max_size=6),
    data=st.data(),
    rate=st.floats(0.0, 0.99),
)
def test_mask_of_a_sample_does_not_depend_on_its_batch(samples, data, rate):
    order = data.draw(st.permutations(range(len(samples))))
    together = draw(samples, rate=rate)

    alone = np.concatenate([draw([index], rate=rate) for index in samples])
    reordered = draw([samples[place] for place in order], rate=rate)

    assert_identical(alone, together)
    assert_identical(reordered, together[order])


@pytest.mark.parametrize("change", [{"seed": 1}, {"path": "head.dropout2"}, {"epoch": 4}], ids=str)
def test_mask_changes_with_every_part_of_its_key(change):
    first, second = draw(range(8)), draw(range(8), **change)

    # Independent halves agree on 80 of 160; 5 deviations are 32.
    agreeing = int((first == second).sum())
    assert abs(agreeing - 80) < 32
    assert all((mine != other).any() for mine, other in zip(first, second, strict=True))


def test_masks_of_two_samples_are_independent():
    masks = draw(range(64), shape=(100,)).astype(float)

    between = np.corrcoef(masks)[np.triu_indices(64, k=1)]

    assert np.abs(between).max() < 0.5


@pytest.mark.parametrize("rate", [0.01, 0.1, 0.5, 0.9])
@pytest.mark.parametrize("shape", [(4, 5, 5), (4, 1, 1), (1, 1, 1), ()], ids=str)
def test_mask_keeps_the_right_share(shape, rate):
    kept = draw(range(500), shape=shape, rate=rate)

    assert binomial_tail(int(kept.sum()), kept.size, 1.0 - rate) > 1e-5


@pytest.mark.parametrize("off", [0.97, 1.03])
def test_share_check_catches_a_wrong_rate(off):
    kept = draw(range(500), shape=(4, 5, 5), rate=0.5)

    assert binomial_tail(int(kept.sum()), kept.size, 0.5 * off) < 1e-5


def test_larger_rate_drops_what_a_smaller_one_dropped():
    few, many = (draw(range(20), rate=rate) for rate in (0.2, 0.6))

    assert not (many & ~few).any()


def test_rate_of_zero_keeps_everything():
    assert draw(range(20), rate=0.0).all()


def test_mask_of_no_samples_is_empty():
    assert draw([]).shape == (0, 4, 5)


@pytest.mark.parametrize("rate", [-0.1, 1.0, math.nan])
def test_mask_refuses_a_rate_that_is_no_share(rate):
    with pytest.raises(SpecError, match=f"head.dropout: .* got {rate}"):
        draw(rate=rate)


def test_mask_refuses_a_negative_sample():
    with pytest.raises(SpecError, match="sample indices from 0; got -2"):
        draw([1, -2])


DROPPING = dataclasses.replace(specs.RESNET, stochastic_depth=0.5, dropout=0.25)


def test_model_has_a_mask_for_each_layer_that_drops_something():
    masks = draw_masks(DROPPING, seed=0, epoch=0, samples=[3, 1, 4])

    assert {path: kept.shape for path, kept in masks.items()} == {
        "stages.1.blocks.0.stochastic_depth": (3, 1, 1, 1),
        "stages.1.blocks.1.stochastic_depth": (3, 1, 1, 1),
        "dropout": (3, 6),
    }


@pytest.mark.parametrize(
    ("path", "shape", "rate"),
    [
        ("stages.1.blocks.0.stochastic_depth", (1, 1, 1), 0.25),
        ("stages.1.blocks.1.stochastic_depth", (1, 1, 1), 0.5),
        ("dropout", (6,), 0.25),
    ],
)
def test_masks_of_a_model_are_each_layers_own(path, shape, rate):
    samples = range(50)
    masks = draw_masks(DROPPING, seed=2, epoch=7, samples=samples)

    alone = kept_mask(2, path, epoch=7, samples=samples, shape=shape, rate=rate)
    assert_identical(masks[path], alone)


def test_model_that_drops_nothing_has_no_masks():
    assert draw_masks(specs.RESNET, seed=0, epoch=0, samples=[0]) == {}
