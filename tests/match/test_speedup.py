"""Power laws and effective speed-ups, against exact laws, scipy's fit and published figures.

Source of the grid: Jordan 2024 (arXiv 2404.00498), table of airbench94's accuracies in percent over
10, 20, 40 and 80 epochs, and the effective speed-ups of alternating over random flip it states.
"""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import curve_fit

from parity.errors import FitError
from parity.match.speedup import fit_power_law
from parity.testing.assertions import assert_close

EPOCHS = (10, 20, 40, 80)

# Views and cutout -> accuracies under random and alternating flip, and the stated speed-ups.
PUBLISHED = {
    "plain": (
        (93.10, 93.74, 94.01, 94.12),
        (93.28, 93.87, 94.07, 94.16),
        (15.0, 27.1, 38.3, 101.5),
    ),
    "views": ((93.95, 94.56, 94.78, 94.85), (94.02, 94.65, 94.82, 94.87), (5.3, 21.3, 36.4, 31.8)),
    "cutout": ((92.04, 93.38, 94.10, 94.43), (92.14, 93.49, 94.20, 94.52), (3.8, 7.4, 18.6, 29.2)),
    "both": ((92.78, 94.13, 94.85, 95.18), (92.81, 94.17, 94.90, 95.24), (1.13, 2.0, 9.3, 14.3)),
}
# Of the printed accuracies.
HALF_DIGIT = 0.005


def errors(accuracies):
    return [100 - accuracy for accuracy in accuracies]


def speedups(baseline, others):
    """Return the percent speed-up at each number of epochs; infinite beyond the curve."""
    law = fit_power_law(EPOCHS, baseline)
    found = [
        law.speedup(error, epochs=epochs) for error, epochs in zip(others, EPOCHS, strict=True)
    ]
    return [np.inf if each is None else 100 * each for each in found]


def reachable(case):
    """Return the least and greatest speed-ups of grids that round to the printed one."""
    random, alternating, _ = PUBLISHED[case]
    corners = itertools.product((-HALF_DIGIT, HALF_DIGIT), repeat=len(EPOCHS))
    found = [
        speedups(np.add(errors(random), corner), np.add(errors(alternating), shift))
        for corner in corners
        for shift in (-HALF_DIGIT, HALF_DIGIT)
    ]
    return np.min(found, axis=0), np.max(found, axis=0)


@pytest.mark.parametrize("case", PUBLISHED)
def test_stated_speedups_are_those_of_a_grid_that_rounds_to_the_printed_one(case):
    least, greatest = reachable(case)

    stated = PUBLISHED[case][2]
    assert (least <= stated).all()
    assert (stated <= greatest).all()


@pytest.mark.parametrize("case", PUBLISHED)
def test_fit_is_the_least_squares_of_scipy(case):
    measured = errors(PUBLISHED[case][0])
    start = (0.9 * measured[-1], 20.0, -1.0)

    law = fit_power_law(EPOCHS, measured)

    expected, _ = curve_fit(lambda x, a, b, c: a + b * x**c, EPOCHS, measured, p0=start, ftol=1e-14)
    assert_close([law.floor, law.scale, law.exponent], expected, atol=0.0, rtol=1e-5)


def test_speedups_of_the_printed_grid_are_those_of_scipys_fit():
    random, alternating, _ = PUBLISHED["plain"]

    found = speedups(errors(random), errors(alternating))

    # 5.79877 + 19.9494 * epochs ** -1.25801, solved for 6.72, 6.13, 5.93 and 5.84 percent.
    assert_close(found, [15.25, 29.94, 35.63, 70.24], atol=0.01, rtol=0.0)


@given(
    floor=st.floats(0.0, 10.0),
    scale=st.floats(1.0, 100.0),
    exponent=st.floats(-3.0, -0.2),
    epochs=st.sets(st.integers(1, 100), min_size=4, max_size=6),
)
def test_an_exact_law_is_found_again(floor, scale, exponent, epochs):
    epochs = sorted(epochs)
    measured = [floor + scale * number**exponent for number in epochs]
    if min(np.abs(np.diff(measured))) < 1e-4 * scale:
        return

    law = fit_power_law(epochs, measured)

    assert_close([law.error(number) for number in epochs], measured, atol=1e-6 * scale, rtol=0.0)
    assert_close(law.epochs_to_reach(measured[1]), epochs[1], atol=0.0, rtol=1e-2)


def test_a_law_through_three_points_leaves_no_residual():
    law = fit_power_law([1, 2, 4], [50.0, 30.0, 20.0])

    # With halving steps of 20 and 10 the floor is 10, the scale 40 and the exponent -1.
    assert_close([law.floor, law.scale, law.exponent], [10.0, 40.0, -1.0], atol=1e-5, rtol=0.0)
    assert law.residual < 1e-6


def test_order_of_the_points_does_not_matter():
    measured = errors(PUBLISHED["plain"][0])

    assert fit_power_law(EPOCHS[::-1], measured[::-1]) == fit_power_law(EPOCHS, measured)


def test_an_error_below_the_floor_is_beyond_the_curve():
    law = fit_power_law([1, 2, 4], [50.0, 30.0, 20.0])

    assert law.speedup(9.9, epochs=4) is None
    assert_close(law.speedup(15.0, epochs=4), 1.0, atol=1e-5, rtol=0.0)


@pytest.mark.parametrize(
    ("epochs", "measured", "reason"),
    [
        ([1, 2], [50.0, 30.0], "3 different numbers of epochs; got 1, 2"),
        ([1, 2, 2], [50.0, 30.0, 20.0], "3 different numbers of epochs"),
        ([1, 2, 4], [50.0, 30.0, 30.0], "errors that fall"),
        ([1, 2, 4], [50.0, np.nan, 30.0], "errors that fall"),
        ([1, 2, 4, 8], [50.0, 40.0, 30.0, 20.0], "does not converge: .* no floor"),
        ([1, 2, 4], [50.0, 40.0, 39.9999999], "does not converge: .* at once"),
    ],
)
def test_what_no_law_describes_is_refused(epochs, measured, reason):
    with pytest.raises(FitError, match=reason):
        fit_power_law(epochs, measured)
