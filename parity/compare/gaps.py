"""Gaps between states of two nets, each on the scale that gives it meaning.

Every function returns the worst element of a whole state. An array that is not finite has an
infinite gap.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
State = Mapping[str, Array]


@dataclass(frozen=True, kw_only=True)
class Worst:
    """The largest gap found.

    Attributes:
        gap: Largest difference, divided by its scale.
        where: Array name and index of the element, such as `stem.bn.running_var[17]`; empty where
            nothing differs.
        relative: Differences of all elements of that array over the same scale.
    """

    gap: float
    where: str
    relative: Array | None = field(default=None, repr=False, compare=False)

    def share_over(self, bound: float) -> float:
        """Return the share of that array's elements whose difference is over a bound."""
        if self.relative is None:
            return float(self.gap > bound)
        return float(np.mean(~(self.relative <= bound)))


NOTHING = Worst(gap=0.0, where="")


def layer_of(name: str) -> str:
    """Return the layer path of an array's name.

    >>> layer_of("stages.0.blocks.1.conv2.weight")
    'stages.0.blocks.1.conv2'
    """
    return name.rpartition(".")[0]


def largest(array: Array) -> float:
    """Return the largest magnitude in an array, 0 for an empty one."""
    return float(np.max(np.abs(array), initial=0.0))


def layer_scales(state: State) -> dict[str, float]:
    """Return the largest magnitude over each layer's arrays."""
    scales: dict[str, float] = {}
    for name, array in state.items():
        layer = layer_of(name)
        scales[layer] = max(scales.get(layer, 0.0), largest(array))
    return scales


def tensor_gap(candidate: State, reference: State, *, names: Iterable[str] | None = None) -> Worst:
    """Return the worst `|candidate - reference| / max|reference|`, the scale taken per array."""
    chosen = reference if names is None else names
    return _worst(
        (name, np.abs(candidate[name] - reference[name]), largest(reference[name]))
        for name in chosen
    )


def layer_gap(candidate: State, reference: State) -> Worst:
    """Return the worst `|candidate - reference|` over the largest magnitude of its layer's arrays.

    Some arrays are zero in theory and rounding in practice (a bias before batch norm); their layer
    has the scale.
    """
    scales = layer_scales(reference)
    return _worst(
        (name, np.abs(candidate[name] - array), scales[layer_of(name)])
        for name, array in reference.items()
    )


def identity_gap(candidate: State, reference: State, *, names: Iterable[str]) -> Worst:
    """Return an infinite gap where any element of the named arrays differs at all."""
    return _worst((name, np.abs(candidate[name] - reference[name]), 0.0) for name in names)


def update_gap(
    candidate: State,
    reference: State,
    *,
    before: State,
    gradients: State,
    rate: float,
    roundings: float,
    amplified: State | None = None,
) -> Worst:
    """Return the worst gap between two updates from the same parameters.

    Storing a parameter rounds it, which says nothing about the update: two units in the last place
    of the parameter are subtracted, one a side. A rule that takes decay off first, or mixes the
    parameter with an average, rounds more often at the size of the old parameter. The scale is the
    layer's largest update, at least `rate` times its largest gradient.

    Args:
        candidate: Parameters after the candidate's update.
        reference: Parameters after the reference's.
        before: Parameters both started from.
        gradients: The reference's, for the floor of the scale.
        rate: Learning rate of the step.
        roundings: Further roundings at the size of the old parameter, one side counted.
        amplified: What rounding elsewhere makes of each element, subtracted too.
    """
    updates = layer_scales({name: array - before[name] for name, array in reference.items()})
    floors = layer_scales(gradients)

    def beyond_rounding(name: str, array: Array) -> Array:
        stored = candidate[name]
        rounding = 2.0 * np.spacing(np.abs(stored))
        if roundings:
            rounding = rounding + 2.0 * roundings * np.spacing(
                np.abs(before[name]).astype(stored.dtype)
            )
        if amplified is not None:
            rounding = rounding + amplified[name]
        excess: Array = np.maximum(np.abs(stored - array) - rounding, 0.0)
        return excess

    return _worst(
        (
            name,
            beyond_rounding(name, array),
            max(updates[layer_of(name)], rate * floors.get(layer_of(name), 0.0)),
        )
        for name, array in reference.items()
    )


def _worst(rows: Iterable[tuple[str, Array, float]]) -> Worst:
    """Return the worst of `(name, differences, scale)` rows."""
    worst = NOTHING
    for name, differences, scale in rows:
        if differences.size == 0:
            continue
        index = (
            int(np.argmax(differences))
            if np.isfinite(differences).all()
            else _first_not_finite(differences)
        )
        difference = float(differences.flat[index])
        if difference == 0.0:
            continue
        gap = difference / scale if np.isfinite(difference) and scale > 0.0 else float("inf")
        if gap > worst.gap:
            worst = Worst(
                gap=gap,
                where=_describe_element(name, differences.shape, index),
                relative=_relative(differences, scale),
            )
    return worst


def _relative(differences: Array, scale: float) -> Array:
    """Return differences over their scale; any difference from nothing is infinite."""
    if scale > 0.0:
        return differences / scale
    return np.where(differences == 0.0, 0.0, np.inf)


def _first_not_finite(array: Array) -> int:
    return int(np.argmin(np.isfinite(array)))


def _describe_element(name: str, shape: tuple[int, ...], index: int) -> str:
    position = ", ".join(str(int(i)) for i in np.unravel_index(index, shape))
    return f"{name}[{position}]" if position else name
