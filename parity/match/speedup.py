"""Effective speed-up: how many more epochs a baseline would need to reach another one's error.

The baseline's error is taken as a power law of the epochs, fitted by least squares and inverted at
the other's error. Source: Jordan 2024 (arXiv 2404.00498), section on alternating flip.
"""

import importlib
import itertools
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from parity.errors import FitError

# Three parameters: fewer lengths of training leave them open.
MIN_POINTS = 3

# Exponents that are told apart; beyond them a law is a logarithm, or its first point alone.
_FLATTEST, _STEEPEST = -0.02, -12.0
_TRIALS = 120
_LARGEST_LOG = math.log(sys.float_info.max)


@dataclass(frozen=True, kw_only=True)
class PowerLaw:
    """`error = floor + scale * epochs ** exponent`.

    Attributes:
        floor: Error that no number of epochs gets below, in the unit of the errors.
        scale: Error above the floor at one epoch, positive.
        exponent: Negative.
        residual: Largest distance of a measured error from the law; three points leave none.
        points: Count of lengths that were fitted.
        first: Fewest epochs that were fitted.
        last: Most epochs that were fitted.
    """

    floor: float
    scale: float
    exponent: float
    residual: float
    points: int
    first: float
    last: float

    def error(self, epochs: float) -> float:
        """Return the error after `epochs`."""
        return float(self.floor + self.scale * epochs**self.exponent)

    def epochs_to_reach(self, error: float) -> float | None:
        """Return the epochs after which the law reaches `error`; None for one beyond the curve.

        >>> law = PowerLaw(floor=5.0, scale=20.0, exponent=-1.0, residual=0.0, points=4,
        ...                first=10, last=80)
        >>> round(law.epochs_to_reach(6.0), 9), law.epochs_to_reach(5.0)
        (20.0, None)
        """
        if error <= self.floor:
            return None
        logarithm = math.log((error - self.floor) / self.scale) / self.exponent
        return math.exp(logarithm) if logarithm < _LARGEST_LOG else None

    def speedup(self, error: float, *, epochs: float) -> float | None:
        """Return effective epochs over epochs, minus 1; None for an error beyond the curve."""
        reached = self.epochs_to_reach(error)
        return None if reached is None else reached / epochs - 1

    def covers(self, epochs: float) -> bool:
        """Return whether `epochs` lie between the fewest and the most that were fitted."""
        return self.first <= epochs <= self.last


def fit_power_law(epochs: Sequence[float], errors: Sequence[float]) -> PowerLaw:
    """Return the power law closest to the errors, by least squares.

    For each exponent floor and scale follow from linear least squares, so that the search is over
    one number: first over a grid, then within the best cell (`scipy.optimize.minimize_scalar`).

    Raises:
        FitError: If there are fewer than three lengths of training, the errors do not fall from
            each to the next, or no exponent is best.
    """
    order = np.argsort(epochs)
    x, y = np.array(epochs, np.float64)[order], np.array(errors, np.float64)[order]
    _require_falling(x, y)
    exponents = -np.geomspace(-_FLATTEST, -_STEEPEST, _TRIALS)
    squares = [_squares(exponent, x, y) for exponent in exponents]
    best = int(np.argmin(squares))
    if best in (0, _TRIALS - 1):
        shape = "like a logarithm, with no floor" if best == 0 else "to a floor at once"
        message = (
            f"power law: the fit does not converge: the errors {_describe(y)} fall {shape}. "
            "Train for more different numbers of epochs."
        )
        raise FitError(message)
    minimize = importlib.import_module("scipy.optimize").minimize_scalar
    bounds = (exponents[best + 1], exponents[best - 1])
    found = minimize(
        _squares, args=(x, y), bounds=bounds, method="bounded", options={"xatol": 1e-12}
    )
    exponent = float(found.x)
    floor, scale = _solve(exponent, x, y)
    return PowerLaw(
        floor=floor,
        scale=scale,
        exponent=exponent,
        residual=float(np.abs(floor + scale * x**exponent - y).max()),
        points=len(x),
        first=float(x[0]),
        last=float(x[-1]),
    )


def _require_falling(x: NDArray[np.float64], y: NDArray[np.float64]) -> None:
    if len(set(x)) < MIN_POINTS or len(x) != len(set(x)):
        lengths = ", ".join(f"{value:g}" for value in x)
        message = f"power law: expected {MIN_POINTS} different numbers of epochs; got {lengths}."
        raise FitError(message)
    if not np.isfinite(y).all() or any(after >= before for before, after in itertools.pairwise(y)):
        message = (
            f"power law: expected errors that fall from each number of epochs to the next; "
            f"got {_describe(y)}. Train with more seeds, or for epochs further apart."
        )
        raise FitError(message)


def _solve(exponent: float, x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[float, float]:
    """Return the floor and scale of least squares for one exponent."""
    shape = x**exponent
    centred = shape - shape.mean()
    scale = float(centred @ (y - y.mean()) / (centred @ centred))
    return float(y.mean() - scale * shape.mean()), scale


def _squares(exponent: float, x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    floor, scale = _solve(exponent, x, y)
    return float(((floor + scale * x**exponent - y) ** 2).sum())


def _describe(errors: NDArray[np.float64]) -> str:
    return ", ".join(f"{error:.4g}" for error in errors)
