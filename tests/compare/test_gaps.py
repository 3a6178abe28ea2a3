"""Gaps on the scale that gives them meaning, worked by hand."""

import math

import numpy as np
import pytest

from parity.compare.gaps import Worst, layer_gap, layer_scales, tensor_gap, update_gap


def state(**arrays):
    return {
        name.replace("__", "."): np.array(values, dtype=float) for name, values in arrays.items()
    }


def test_tensor_gap_is_relative_to_each_arrays_largest():
    worst = tensor_gap(state(a__w=[1.0, 4.0], b__w=[100.0]), state(a__w=[1.0, 2.0], b__w=[99.0]))

    assert (worst.gap, worst.where) == (1.0, "a.w[1]")


def test_layer_gap_takes_the_layers_scale_for_an_array_that_is_only_rounding():
    candidate, reference = state(a__w=[2.0], a__b=[1e-16]), state(a__w=[2.0], a__b=[-1e-16])

    assert tensor_gap(candidate, reference).gap == pytest.approx(2.0)
    assert layer_gap(candidate, reference).gap == pytest.approx(1e-16)


def test_layer_scales_are_the_largest_over_a_layers_arrays():
    assert layer_scales(state(a__w=[-3.0, 1.0], a__b=[2.0], c__w=[0.5])) == {"a": 3.0, "c": 0.5}


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_value_that_is_not_finite_is_an_infinite_gap(value):
    worst = tensor_gap(state(a__w=[1.0, value]), state(a__w=[1.0, 2.0]))

    assert (worst.gap, worst.where) == (math.inf, "a.w[1]")


def test_a_difference_from_nothing_is_an_infinite_gap():
    assert tensor_gap(state(a__w=[1e-300]), state(a__w=[0.0])).gap == math.inf


@pytest.mark.parametrize(
    ("candidate", "reference", "share"),
    [
        ([1.0, 1.5, 2.0, 2.5], [1.0, 1.0, 2.0, 2.0], 0.5),
        ([1.0, math.nan, 2.0, 2.0], [1.0, 1.0, 2.0, 2.0], 0.25),
        ([0.0, 1e-300, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0], 0.25),
    ],
    ids=["half", "nan", "from-nothing"],
)
def test_share_over_a_bound_is_of_the_worst_array(candidate, reference, share):
    worst = tensor_gap(state(a__w=candidate, b__w=[1.0] * 9), state(a__w=reference, b__w=[1.0] * 9))

    assert worst.share_over(0.01) == share


def test_a_gap_without_elements_is_over_its_bound_as_a_whole():
    assert Worst(gap=2.0, where="").share_over(1.0) == 1.0
    assert Worst(gap=0.5, where="").share_over(1.0) == 0.0


def test_equal_states_have_no_gap():
    worst = tensor_gap(state(a__w=[1.0]), state(a__w=[1.0]))

    assert (worst.gap, worst.where) == (0.0, "")


def gap_of_updates(candidate, reference, *, before, gradient=1.0, rate=0.1, roundings=0.0):
    return update_gap(
        state(a__w=[candidate]),
        state(a__w=[reference]),
        before=state(a__w=[before]),
        gradients=state(a__w=[gradient]),
        rate=rate,
        roundings=roundings,
    ).gap


def test_update_gap_is_relative_to_the_update_not_to_the_parameter():
    assert gap_of_updates(100.2, 100.1, before=100.0) == pytest.approx(1.0, abs=1e-9)


def test_update_gap_takes_off_the_rounding_of_the_parameter():
    one_ulp_up = np.nextafter(1.0, 2.0)

    assert gap_of_updates(one_ulp_up, 1.0, before=1.0 + 1e-13) == 0.0


def test_update_gap_allows_decay_one_more_rounding():
    four_ulp = 1.0 + 4 * np.spacing(1.0)

    assert gap_of_updates(four_ulp, 1.0, before=1.0 + 1e-13) > 0.0
    assert gap_of_updates(four_ulp, 1.0, before=1.0 + 1e-13, roundings=1.0) == 0.0


def test_update_gap_floors_its_scale_at_the_rate_times_the_gradient():
    assert gap_of_updates(1e-3, 0.0, before=0.0, gradient=1.0, rate=0.1) == pytest.approx(1e-2)
