import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parity.errors import SpecError
from parity.spec.losses import CrossEntropy, build_targets
from parity.testing.assertions import assert_close, assert_identical

PLAIN = CrossEntropy(label_smoothing=0.0, reduction="mean")


def test_targets_without_smoothing_are_one_hot():
    targets = build_targets(PLAIN, np.array([2, 0]), classes=3)

    assert_identical(targets, np.array([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]))


def test_targets_spread_the_smoothed_share_over_all_classes():
    spec = CrossEntropy(label_smoothing=0.2, reduction="mean")

    targets = build_targets(spec, np.array([1]), classes=4)

    assert_close(targets, np.array([[0.05, 0.85, 0.05, 0.05]]), atol=1e-15, rtol=0.0)


@given(
    smoothing=st.floats(0.0, 0.99),
    labels=st.lists(st.integers(0, 6), min_size=1, max_size=9),
)
def test_targets_are_distributions(smoothing, labels):
    spec = CrossEntropy(label_smoothing=smoothing, reduction="mean")

    targets = build_targets(spec, np.array(labels), classes=7)

    assert_close(targets.sum(axis=1), np.ones(len(labels)), atol=1e-14, rtol=0.0)
    assert targets.min() >= 0.0


def test_targets_are_float64_whatever_the_labels():
    assert build_targets(PLAIN, np.array([1], dtype=np.uint8), classes=2).dtype == np.float64


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"label_smoothing": 1.0}, "label_smoothing must be in"),
        ({"label_smoothing": -0.1}, "label_smoothing must be in"),
        ({"label_smoothing": float("nan")}, "label_smoothing must be in"),
        ({"reduction": "none"}, "reduction must be 'mean' or 'sum'; got 'none'"),
    ],
)
def test_cross_entropy_refuses_a_wrong_value(changes, message):
    with pytest.raises(SpecError, match=message):
        CrossEntropy(**{"label_smoothing": 0.0, "reduction": "mean"} | changes)
