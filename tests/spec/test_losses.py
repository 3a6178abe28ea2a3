import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parity.errors import SpecError
from parity.spec.losses import (
    BinaryCrossEntropy,
    CrossEntropy,
    TwoViewCrossEntropy,
    build_targets,
    evaluation_loss,
)
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


SOFT = BinaryCrossEntropy(
    label_smoothing=0.2,
    smoothing_form="over_classes",
    binarized=False,
    target_threshold=0.0,
    reduction="mean",
)
TWO_VIEWS = TwoViewCrossEntropy(label_smoothing=0.0, consistency_weight=0.1, reduction="mean")
MIXED = np.array([[0.7, 0.3, 0.0, 0.0], [0.0, 0.1, 0.0, 0.9]])


@pytest.mark.parametrize("spec", [PLAIN, SOFT, TWO_VIEWS], ids=lambda spec: spec.kind)
def test_soft_targets_of_labels_give_what_labels_give(spec):
    labels = np.array([2, 0, 1])

    targets = build_targets(spec, np.eye(3)[labels], classes=3)

    assert_identical(targets, build_targets(spec, labels, classes=3))


@pytest.mark.parametrize("kind", [CrossEntropy, TwoViewCrossEntropy])
def test_soft_targets_are_mixed_with_the_even_distribution(kind):
    weight = {} if kind is CrossEntropy else {"consistency_weight": 0.1}
    spec = kind(label_smoothing=0.2, reduction="mean", **weight)

    targets = build_targets(spec, MIXED[:1], classes=4)

    assert_close(targets, [[0.61, 0.29, 0.05, 0.05]], atol=1e-15, rtol=0.0)


def test_smoothing_labels_before_mixing_is_smoothing_the_mixture():
    spec = CrossEntropy(label_smoothing=0.1, reduction="mean")
    first, second = (build_targets(spec, np.array([label]), classes=4) for label in (0, 1))

    mixed = build_targets(spec, MIXED[:1], classes=4)

    assert_close(0.7 * first + 0.3 * second, mixed, atol=1e-15, rtol=0.0)


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ("over_classes", [[0.05, 0.85, 0.05, 0.05]]),
        ("towards_half", [[0.1, 0.9, 0.1, 0.1]]),
    ],
)
def test_binary_targets_are_smoothed_in_the_form_asked_for(form, expected):
    spec = dataclasses.replace(SOFT, smoothing_form=form)

    targets = build_targets(spec, np.array([1]), classes=4)

    assert_close(targets, expected, atol=1e-15, rtol=0.0)


def test_binary_targets_may_name_several_classes_or_none():
    spec = dataclasses.replace(SOFT, label_smoothing=0.0)
    many = np.array([[1, 1, 0], [0, 0, 0]])

    assert_identical(build_targets(spec, many, classes=3), many.astype(np.float64))


@pytest.mark.parametrize(
    ("threshold", "expected"),
    [
        (0.0, [[1.0, 1.0, 0.0, 0.0], [0.0, 1.0, 0.0, 1.0]]),
        (0.1, [[1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]]),
        (0.3, [[1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]]),
    ],
)
def test_binarized_targets_are_those_above_the_threshold(threshold, expected):
    spec = dataclasses.replace(
        SOFT, label_smoothing=0.0, binarized=True, target_threshold=threshold
    )

    assert_identical(build_targets(spec, MIXED, classes=4), np.array(expected))


@given(
    smoothing=st.floats(0.0, 0.7),
    labels=st.lists(st.integers(0, 6), min_size=1, max_size=9),
    form=st.sampled_from(["over_classes", "towards_half"]),
)
def test_binarizing_labels_wipes_their_smoothing_out(smoothing, labels, form):
    spec = dataclasses.replace(
        SOFT,
        label_smoothing=smoothing,
        smoothing_form=form,
        binarized=True,
        target_threshold=0.36,
    )

    targets = build_targets(spec, np.array(labels), classes=7)

    assert_identical(targets, np.eye(7)[labels])


def test_smoothing_before_binarizing_moves_the_threshold_of_mixtures():
    smoothed = dataclasses.replace(SOFT, binarized=True, target_threshold=0.28)
    # (0.28 - 0.2 / 4) / (1 - 0.2) = 0.2875
    mixtures = np.array([[0.714, 0.286, 0.0, 0.0], [0.712, 0.288, 0.0, 0.0]])

    targets = build_targets(smoothed, mixtures, classes=4)

    assert_identical(targets, np.array([[1.0, 0.0, 0.0, 0.0], [1.0, 1.0, 0.0, 0.0]]))


def test_binarizing_smoothed_targets_at_zero_turns_every_class_on():
    spec = dataclasses.replace(SOFT, binarized=True)

    assert build_targets(spec, np.array([1]), classes=4).tolist() == [[1.0] * 4]


def test_evaluation_is_by_a_cross_entropys_own_targets():
    spec = CrossEntropy(label_smoothing=0.2, reduction="sum")

    assert evaluation_loss(spec) is spec


@pytest.mark.parametrize("spec", [SOFT, TWO_VIEWS], ids=lambda spec: spec.kind)
def test_evaluation_of_another_loss_is_by_plain_cross_entropy(spec):
    assert evaluation_loss(spec) == PLAIN


@pytest.mark.parametrize(
    ("spec", "targets", "message"),
    [
        (PLAIN, np.array([0, 3, -1]), r"labels must be in \[0, 2\]; 2 are not, first 3 at \[1\]"),
        (PLAIN, np.array([0.0, 1.0]), r"expected whole labels \(n,\); got float64"),
        (PLAIN, np.ones((2, 4)), r"soft targets \(n, 3\); got \(2, 4\)"),
        (PLAIN, np.ones((1, 2, 3)), r"soft targets \(n, 3\); got \(1, 2, 3\)"),
        (PLAIN, np.array([[1, 0, 0], [1, 1, 0]]), r"must be distributions.*; 1 rows .* \[1\]"),
        (PLAIN, np.array([[1.5, -0.5, 0.0]]), "must be distributions"),
        (PLAIN, np.array([[np.nan, 1.0, 0.0]]), "must be distributions"),
        (SOFT, np.array([[0.0, 1.5, 0.0]]), r"must be in \[0, 1\]; 1 rows are not, first \[0\]"),
        (SOFT, np.array([[0.0, np.nan, 0.0]]), r"must be in \[0, 1\]"),
    ],
)
def test_targets_that_the_loss_does_not_take_are_refused(spec, targets, message):
    with pytest.raises(SpecError, match=message):
        build_targets(spec, targets, classes=3)


@pytest.mark.parametrize(
    ("spec", "changes", "message"),
    [
        (SOFT, {"label_smoothing": 1.0}, r"label_smoothing must be in \[0, 1\); got 1.0"),
        (SOFT, {"smoothing_form": "even"}, "smoothing_form must be 'over_classes' or .*'even'"),
        (SOFT, {"target_threshold": 0.2}, "must be 0.0 where binarized is false; got 0.2"),
        (SOFT, {"target_threshold": 1.0, "binarized": True}, "target_threshold must be in"),
        (SOFT, {"target_threshold": np.nan}, "target_threshold must be in"),
        (SOFT, {"reduction": "none"}, "reduction must be 'mean' or 'sum'; got 'none'"),
        (TWO_VIEWS, {"consistency_weight": -0.1}, "consistency_weight must be >= 0 and finite"),
        (TWO_VIEWS, {"consistency_weight": np.inf}, "consistency_weight must be >= 0 and finite"),
        (TWO_VIEWS, {"reduction": "none"}, "reduction must be 'mean' or 'sum'; got 'none'"),
    ],
    ids=lambda value: getattr(value, "kind", None),
)
def test_loss_refuses_a_wrong_value_by_name(spec, changes, message):
    with pytest.raises(SpecError, match=message):
        dataclasses.replace(spec, **changes)
