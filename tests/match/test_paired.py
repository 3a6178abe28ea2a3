"""Means, spreads and intervals, against scipy's t-test and by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from parity.match.paired import compare_paired, summarize
from parity.testing.assertions import assert_close


def by_seed(values):
    return dict(enumerate(values))


def test_interval_by_hand():
    difference = compare_paired(by_seed([2.0, 4.0, 6.0]), by_seed([1.0, 2.0, 3.0]))

    # Differences 1, 2, 3: sd 1. With two degrees of freedom t = (2p - 1) / sqrt(2p (1 - p)).
    half = 0.95 / math.sqrt(2 * 0.975 * 0.025) / math.sqrt(3)
    assert (difference.seeds, difference.mean) == (3, 2.0)
    assert_close(difference.interval, [2.0 - half, 2.0 + half], atol=0.0, rtol=1e-12)


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=2, max_size=12))
def test_interval_is_that_of_scipys_paired_test(pairs):
    actual, baseline = np.array(pairs).T
    if np.ptp(actual - baseline) < 1e-6:
        return

    difference = compare_paired(by_seed(actual.tolist()), by_seed(baseline.tolist()))

    expected = stats.ttest_rel(actual, baseline).confidence_interval(0.95)
    assert_close(difference.interval, expected, atol=1e-9, rtol=1e-9)


def test_interval_covers_the_true_difference_as_often_as_it_says():
    generator = np.random.default_rng(0)
    noise, shared = generator.normal(size=(4000, 3)), generator.normal(0, 5, size=(4000, 3))

    intervals = [
        compare_paired(by_seed((own + 1 + both).tolist()), by_seed(both.tolist())).interval
        for own, both in zip(noise, shared, strict=True)
    ]

    covered = np.mean([low <= 1 <= high for low, high in intervals])
    # Four standard errors of a share of 0.95 over 4000 draws.
    assert_close(covered, 0.95, atol=4 * math.sqrt(0.95 * 0.05 / 4000), rtol=0.0)


def test_only_seeds_that_both_have_are_paired():
    difference = compare_paired({0: 1.0, 1: 5.0, 2: 9.0}, {1: 3.0, 2: 8.0})

    assert (difference.seeds, difference.mean) == (2, 1.5)


@pytest.mark.parametrize("values", [[0.5], [0.5, 0.5]], ids=["one pair", "equal differences"])
def test_no_spread_gives_no_interval(values):
    difference = compare_paired(by_seed(values), by_seed([0.25] * len(values)))

    assert (difference.mean, difference.interval) == (0.25, None)


def test_summary_says_what_there_is():
    whole = summarize(by_seed([1.0, 3.0]), baseline=by_seed([1.0, 1.0]))
    none = summarize({}, baseline=by_seed([1.0]))

    assert (whole.seeds, whole.mean, whole.difference.mean) == (2, 2.0, 1.0)
    assert_close(whole.deviation, math.sqrt(2), atol=0.0, rtol=1e-15)
    assert (none.seeds, none.mean, none.deviation, none.difference) == (0, None, None, None)
    assert summarize(by_seed([1.0])).deviation is None
