import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from parity.data.folds import stratified_folds

LABELS = st.lists(st.integers(0, 4), min_size=1, max_size=60).map(np.array)


@given(LABELS, st.integers(1, 6))
def test_stratified_folds_have_sizes_that_differ_by_at_most_one(labels, folds):
    assigned = stratified_folds(labels, folds=folds, purpose="test")

    assert np.ptp(np.bincount(assigned, minlength=folds)) <= 1


@given(LABELS, st.integers(1, 6))
def test_stratified_folds_spread_each_class_evenly(labels, folds):
    assigned = stratified_folds(labels, folds=folds, purpose="test")

    counts = [np.bincount(assigned[labels == label], minlength=folds) for label in range(5)]
    assert max(np.ptp(count) for count in counts) <= 1


def test_stratified_folds_shuffle_within_a_class():
    assigned = stratified_folds(np.zeros(40, dtype=int), folds=4, purpose="test")

    assert assigned.tolist() != (np.arange(40) % 4).tolist()


def test_stratified_folds_differ_by_purpose_and_seed():
    labels = np.zeros(40, dtype=int)

    drawn = [
        stratified_folds(labels, folds=4, purpose=purpose, seed=seed).tolist()
        for purpose, seed in (("a", 0), ("b", 0), ("a", 1))
    ]

    assert drawn[0] not in drawn[1:]


def test_stratified_folds_give_the_pinned_values():
    labels = np.array([0, 1, 0, 1, 0, 1, 0, 1, 0, 1])

    assert stratified_folds(labels, folds=5, purpose="test").tolist() == [
        2,
        2,
        1,
        1,
        0,
        3,
        4,
        4,
        3,
        0,
    ]
