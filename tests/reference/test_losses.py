"""The reference losses against torch in float64, and their limits."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from parity.errors import SpecError
from parity.reference.losses import (
    binary_cross_entropy,
    cross_entropy,
    evaluate_loss,
    two_view_cross_entropy,
)
from parity.rng import stream
from parity.spec.losses import LOSSES, BinaryCrossEntropy, CrossEntropy, TwoViewCrossEntropy
from parity.testing.assertions import assert_close, assert_identical

LOGITS = 3.0 * stream(0, "test", "logits").standard_normal((5, 4))
TARGETS = stream(0, "test", "targets").dirichlet(np.ones(4), size=5)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("scale", [1.0, 0.25], ids=["distribution", "unnormalized"])
def test_cross_entropy_and_its_gradient_match_torch(reduction, scale):
    logits = torch.tensor(LOGITS, requires_grad=True)
    expected = functional.cross_entropy(logits, torch.tensor(scale * TARGETS), reduction=reduction)
    expected.backward()

    loss, d_logits = cross_entropy(LOGITS, scale * TARGETS, reduction=reduction)

    assert_close(loss, expected.detach(), atol=1e-12, rtol=1e-12)
    assert_close(d_logits, logits.grad, atol=1e-12, rtol=1e-12)


def test_cross_entropy_of_even_logits_is_log_of_the_classes():
    loss, d_logits = cross_entropy(np.zeros((2, 4)), np.eye(4)[:2], reduction="sum")

    assert_close(loss, 2.0 * np.log(4.0), atol=0.0, rtol=1e-15)
    assert_close(d_logits, 0.25 - np.eye(4)[:2], atol=1e-15, rtol=0.0)


def test_cross_entropy_stays_finite_at_huge_logits():
    loss, d_logits = cross_entropy([[1e4, 0.0]], [[0.0, 1.0]], reduction="mean")

    assert_close(loss, 1e4, atol=0.0, rtol=0.0)
    assert_close(d_logits, [[1.0, -1.0]], atol=0.0, rtol=0.0)


def test_cross_entropy_counts_an_impossible_unnamed_class_as_nothing():
    loss, _ = cross_entropy([[0.0, -np.inf]], [[1.0, 0.0]], reduction="mean")

    assert_close(loss, 0.0, atol=0.0, rtol=0.0)


def test_cross_entropy_refuses_labels_for_targets():
    with pytest.raises(SpecError, match=r"got \(5, 4\) and \(5,\)"):
        cross_entropy(LOGITS, np.zeros(5), reduction="mean")


def test_cross_entropy_refuses_an_unknown_reduction():
    with pytest.raises(SpecError, match="must be 'mean' or 'sum'; got 'none'"):
        cross_entropy(LOGITS, TARGETS, reduction="none")


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_binary_cross_entropy_and_its_gradient_match_torch(reduction):
    logits, targets = torch.tensor(LOGITS, requires_grad=True), torch.tensor(TARGETS)
    loss_of = functional.binary_cross_entropy_with_logits
    expected = loss_of(logits, targets, reduction=reduction)
    expected.backward()

    loss, d_logits = binary_cross_entropy(LOGITS, TARGETS, reduction=reduction)

    assert_close(loss, expected.detach(), atol=1e-12, rtol=1e-12)
    assert_close(d_logits, logits.grad, atol=1e-12, rtol=1e-12)


def test_binary_cross_entropy_of_zero_logits_is_log_of_two_an_element():
    loss, d_logits = binary_cross_entropy(np.zeros((2, 3)), np.eye(3)[:2], reduction="sum")

    assert_close(loss, 6.0 * np.log(2.0), atol=0.0, rtol=1e-15)
    assert_close(d_logits, 0.5 - np.eye(3)[:2], atol=1e-15, rtol=0.0)


def test_binary_cross_entropy_stays_finite_at_huge_logits():
    loss, d_logits = binary_cross_entropy([[1e4, -1e4]], [[0.0, 1.0]], reduction="mean")

    assert_close(loss, 1e4, atol=0.0, rtol=0.0)
    assert_close(d_logits, [[0.5, -0.5]], atol=0.0, rtol=0.0)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_two_view_cross_entropy_and_its_gradient_are_the_published_loss(reduction):
    views, targets = LOGITS[:4], TARGETS[[0, 1, 0, 1]]
    logits = torch.tensor(views, requires_grad=True)
    halves = zip(logits.chunk(2), torch.tensor(targets).chunk(2), strict=True)
    entropies = [functional.cross_entropy(*half) for half in halves]
    expected = sum(entropies) / 2 + 0.3 * functional.mse_loss(*logits.chunk(2))
    expected = expected * (4 if reduction == "sum" else 1)
    expected.backward()

    loss, d_logits = two_view_cross_entropy(
        views, targets, consistency_weight=0.3, reduction=reduction
    )

    assert_close(loss, expected.detach(), atol=1e-12, rtol=1e-12)
    assert_close(d_logits, logits.grad, atol=1e-12, rtol=1e-12)


def test_two_views_that_agree_cost_their_cross_entropy_alone():
    logits, targets = np.tile(LOGITS, (2, 1)), np.tile(TARGETS, (2, 1))

    outcome = two_view_cross_entropy(logits, targets, consistency_weight=9.0, reduction="mean")

    expected = cross_entropy(logits, targets, reduction="mean")
    assert_close(outcome[0], expected[0], atol=0.0, rtol=0.0)
    assert_close(outcome[1], expected[1], atol=0.0, rtol=0.0)


def test_two_view_cross_entropy_refuses_an_odd_number_of_rows():
    with pytest.raises(SpecError, match="even number of rows; got 5"):
        two_view_cross_entropy(LOGITS, TARGETS, consistency_weight=0.1, reduction="mean")


def test_binary_cross_entropy_refuses_labels_and_unknown_reductions():
    with pytest.raises(SpecError, match=r"binary_cross_entropy: .* got \(5, 4\) and \(5,\)"):
        binary_cross_entropy(LOGITS, np.zeros(5), reduction="mean")
    with pytest.raises(SpecError, match="must be 'mean' or 'sum'; got 'none'"):
        binary_cross_entropy(LOGITS, TARGETS, reduction="none")


SPECS = {
    "cross_entropy": (CrossEntropy(label_smoothing=0.1, reduction="sum"), cross_entropy, {}),
    "binary_cross_entropy": (
        BinaryCrossEntropy(
            label_smoothing=0.1,
            smoothing_form="over_classes",
            binarized=False,
            target_threshold=0.0,
            reduction="sum",
        ),
        binary_cross_entropy,
        {},
    ),
    "two_view_cross_entropy": (
        TwoViewCrossEntropy(label_smoothing=0.1, consistency_weight=0.3, reduction="sum"),
        two_view_cross_entropy,
        {"consistency_weight": 0.3},
    ),
}


@pytest.mark.parametrize("kind", LOSSES)
def test_loss_of_a_spec_is_that_of_its_function(kind):
    spec, function, options = SPECS[kind]

    loss, d_logits = evaluate_loss(spec, LOGITS[:4], TARGETS[:4])

    expected = function(LOGITS[:4], TARGETS[:4], reduction="sum", **options)
    assert loss == expected[0]
    assert_identical(d_logits, expected[1])
