"""Each assertion, seen passing and seen failing with its message."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from parity.errors import DivergenceError
from parity.testing.assertions import (
    ArrayDifference,
    StateDifference,
    assert_close,
    assert_identical,
    assert_states_close,
    describe_difference,
    describe_state_difference,
    relative_gap,
)

NAN, INF = np.nan, np.inf


def failure(check, *arguments, **options):
    with pytest.raises(DivergenceError) as caught:
        check(*arguments, **options)
    return caught.value


@pytest.mark.parametrize(
    ("actual", "expected", "message"),
    [
        (
            [1.0, 2.5, 3.25],
            [1.0, 2.0, 3.0],
            "bn: 2 of 3 elements differ, worst 0.5 at [1], allowed 0.1 + 0.01·|expected|.",
        ),
        (
            [[0.0, -1.0]],
            [[0.0, 1.0]],
            "bn: 1 of 2 elements differ, worst 2 at [0, 1], allowed 0.1 + 0.01·|expected|.",
        ),
        (3.0, 2.0, "bn: 1 of 1 elements differ, worst 1, allowed 0.1 + 0.01·|expected|."),
        (
            [1.0, NAN],
            [1.0, 2.0],
            "bn: 1 of 2 elements differ in NaN or infinity, first at [1]: expected 2.0; got nan.",
        ),
        (
            [1.0, 2.0],
            [1.0, NAN],
            "bn: 1 of 2 elements differ in NaN or infinity, first at [1]: expected nan; got 2.0.",
        ),
        (
            [INF, -INF],
            [INF, INF],
            "bn: 1 of 2 elements differ in NaN or infinity, first at [1]: expected inf; got -inf.",
        ),
        (
            [0.0, NAN, 3.0, INF],
            [0.0, 1.0, 2.0, 4.0],
            "bn: 2 of 4 elements differ in NaN or infinity, first at [1]: expected 1.0; got nan.",
        ),
        (
            [1.0],
            [INF],
            "bn: 1 of 1 elements differ in NaN or infinity, first at [0]: expected inf; got 1.0.",
        ),
        (np.zeros((2, 3)), np.zeros((3, 2)), "bn: expected shape (3, 2); got (2, 3)."),
        (np.zeros(3), np.zeros((1, 3)), "bn: expected shape (1, 3); got (3,)."),
        (["1.0"], [1.0], "bn: expected dtype numbers against float64; got <U3."),
    ],
)
def test_assert_close_says_what_differs(actual, expected, message):
    error = failure(assert_close, actual, expected, atol=0.1, rtol=0.01, where="bn")

    assert str(error) == message


def test_assert_close_carries_its_finding():
    error = failure(assert_close, [1.0, 2.5], [1.0, 2.0], atol=0.25, rtol=0.0, where="w")

    assert error.finding == ArrayDifference(
        where="w",
        kind="value",
        actual=2.5,
        expected=2.0,
        index=(1,),
        gap=0.5,
        allowance=0.25,
        atol=0.25,
        rtol=0.0,
        out=1,
        size=2,
    )
    assert error.finding.share == 0.5


def test_assert_close_names_the_element_furthest_beyond_its_allowance():
    error = failure(assert_close, [1010.0, 2.0], [1000.0, 1.0], atol=0.0, rtol=0.0095)

    assert error.finding.index == (1,)


@pytest.mark.parametrize(
    ("actual", "expected"),
    [
        ([1.0, NAN, INF, -INF], [1.0, NAN, INF, -INF]),
        ([1.1], [1.0]),
        (np.float32([0.1]), [0.1]),
        (np.zeros((0, 3)), np.zeros((0, 3))),
        ([-0.0], [0.0]),
        ([True], [1]),
    ],
    ids=["non-finite-alike", "on-the-bound", "other-dtype", "empty", "signed-zero", "whole"],
)
def test_assert_close_passes_within_its_allowance(actual, expected):
    assert_close(actual, expected, atol=0.1000001, rtol=0.0)


def test_assert_close_subtracts_whole_numbers_exactly():
    error = failure(assert_close, [2**62 + 1], [2**62], atol=0.0, rtol=0.0)

    assert error.finding.gap == 1.0


def test_assert_close_catches_a_gap_that_overflows():
    error = failure(assert_close, [1.7e308], [-1.7e308], atol=1.0, rtol=0.5)

    assert error.finding.gap == INF


@pytest.mark.parametrize("tolerance", [-1e-9, NAN, INF])
@pytest.mark.parametrize("name", ["atol", "rtol"])
def test_assert_close_refuses_a_tolerance_that_checks_nothing(name, tolerance):
    tolerances = {"atol": 0.0, "rtol": 0.0} | {name: tolerance}

    with pytest.raises(ValueError, match="atol and rtol must be finite and >= 0; got"):
        assert_close([1.0], [1.0], **tolerances)


@pytest.mark.parametrize(
    ("actual", "expected", "message"),
    [
        (
            [1.0, -0.0],
            [1.0, 0.0],
            "w: 1 of 2 elements differ in their bits, first at [1]: expected 0.0; got -0.0.",
        ),
        (
            1.0 + 2**-52,
            1.0,
            "w: 1 of 1 elements differ in their bits, first: expected 1.0; got 1.0000000000000002.",
        ),
        (np.float32([1.0]), np.float64([1.0]), "w: expected dtype float64; got float32."),
        (np.int32([1]), np.uint32([1]), "w: expected dtype uint32; got int32."),
        (np.zeros((1, 2)), np.zeros((2, 1)), "w: expected shape (2, 1); got (1, 2)."),
    ],
)
def test_assert_identical_says_what_differs(actual, expected, message):
    assert str(failure(assert_identical, actual, expected, where="w")) == message


def test_assert_identical_refuses_objects_whose_bits_are_addresses():
    error = failure(assert_identical, np.array([object()]), np.array([object()]))

    assert error.finding.kind == "dtype"


@pytest.mark.parametrize(
    "array",
    [np.array([1.0, NAN, -INF]), np.zeros((0, 2)), np.float32(3.0), np.arange(6).reshape(2, 3).T],
    ids=["non-finite", "empty", "scalar", "strided"],
)
def test_assert_identical_passes_a_copy(array):
    assert_identical(np.array(array, order="C"), array)


def test_assert_states_close_lists_everything_at_once():
    expected = {"a": [1.0], "b": [1.0], "c": [1.0, 2.0], "d": [1.0]}
    actual = {"d": [2.0], "c": [1.0, 5.0], "a": [1.0], "e": [1.0]}

    error = failure(assert_states_close, actual, expected, atol=1e-6, rtol=1e-5, where="step 3")

    assert str(error) == (
        "step 3: 1 missing (b), 1 unexpected (e), 2 differ.\n"
        "  c: 1 of 2 elements differ, worst 3 at [1], allowed 1e-06 + 1e-05·|expected|.\n"
        "  d: 1 of 1 elements differ, worst 1 at [0], allowed 1e-06 + 1e-05·|expected|."
    )
    assert error.finding.missing == ("b",)
    assert error.finding.unexpected == ("e",)
    assert [difference.where for difference in error.finding.differences] == ["c", "d"]


@pytest.mark.parametrize(
    ("actual", "expected", "message"),
    [
        ({}, {"a": [1.0]}, "states: 1 missing (a)."),
        ({"a": [1.0]}, {}, "states: 1 unexpected (a)."),
    ],
)
def test_assert_states_close_fails_on_names_alone(actual, expected, message):
    assert str(failure(assert_states_close, actual, expected, atol=1.0, rtol=1.0)) == message


def test_assert_states_close_refuses_bad_tolerances_even_for_empty_states():
    with pytest.raises(ValueError, match="must be finite"):
        assert_states_close({}, {}, atol=INF, rtol=0.0)


def test_state_difference_message_is_cut_after_its_limit():
    difference = ArrayDifference(where="a", kind="shape", actual=(1,), expected=(2,))
    finding = StateDifference(where="", missing=(), unexpected=(), differences=(difference,) * 3)

    message = describe_state_difference(finding, limit=1)

    assert message == "states: 3 differ.\n  a: expected shape (2,); got (1,).\n  and 2 more."


def test_difference_message_without_a_place_says_arrays():
    difference = ArrayDifference(where="", kind="shape", actual=(1,), expected=(2,))

    assert describe_difference(difference) == "arrays: expected shape (2,); got (1,)."


@pytest.mark.parametrize(
    ("actual", "expected", "gap"),
    [
        ([1.0, 2.5], [1.0, -2.0], 2.25),
        ([0.0], [0.0], 0.0),
        ([1.0], [0.0], INF),
        ([NAN], [1.0], INF),
        ([NAN, 1.0], [NAN, 1.0], 0.0),
        ([INF, 3.0], [INF, 2.0], 0.5),
        ([], [], 0.0),
    ],
)
def test_relative_gap_is_the_largest_gap_over_the_largest_magnitude(actual, expected, gap):
    assert relative_gap(actual, expected) == gap


def test_relative_gap_refuses_other_shapes():
    assert str(failure(relative_gap, [1.0], [[1.0]])) == "arrays: expected shape (1, 1); got (1,)."


FLOATS = hnp.arrays(
    st.sampled_from([np.float32, np.float64]),
    hnp.array_shapes(max_dims=3, max_side=4),
    elements=st.floats(-1e3, 1e3, width=32),
)


@given(array=FLOATS, data=st.data())
def test_both_assertions_catch_any_moved_element(array, data):
    index = tuple(data.draw(st.integers(0, size - 1)) for size in array.shape)
    moved = array.copy()
    moved[index] += 1.0

    assert failure(assert_close, moved, array, atol=0.5, rtol=0.0).finding.index == index
    assert failure(assert_identical, moved, array).finding.index == index


@given(array=FLOATS)
def test_both_assertions_pass_the_array_itself(array):
    assert_close(array.copy(), array, atol=0.0, rtol=0.0)
    assert_identical(array.copy(), array)
