"""The reference loss against torch in float64, and its limits."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from parity.errors import SpecError
from parity.reference.losses import cross_entropy
from parity.rng import stream
from parity.testing.assertions import assert_close

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
