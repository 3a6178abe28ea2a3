"""What a comparison could have seen: weights of the candidate are damaged, one array at a time.

Each trial puts one small fault into one array of the candidate, runs it from the reference's values
as the comparison did, and asks whether the layer's output is clearly wrong. A layer whose output
hardly depends on its weights hides faults; then a pass says little.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from parity.compare.comparison import Comparison
from parity.compare.gaps import largest
from parity.compare.verdicts import CLEARLY_WRONG
from parity.frameworks.program import Array, Run, is_float
from parity.rng import stream

# How many arrays are damaged: spread over the model, each in another way.
TRIALS = 12


def _scaled(array: Array, generator: np.random.Generator) -> Array:
    del generator
    return array * 1.001


def _one_sign(array: Array, generator: np.random.Generator) -> Array:
    changed = array.copy()
    place = int(generator.choice(np.argsort(np.abs(array).ravel())[-max(1, array.size // 4) :]))
    changed.flat[place] *= -1.0
    return changed


def _rolled(array: Array, generator: np.random.Generator) -> Array:
    axis = int(generator.integers(array.ndim)) if array.ndim else 0
    return np.roll(array, 1, axis=axis)


FAULTS: dict[str, Callable[[Array, np.random.Generator], Array]] = {
    "scaled by 1.001": _scaled,
    "one sign flipped": _one_sign,
    "channels moved by one": _rolled,
}


@dataclass(frozen=True, kw_only=True)
class _Trial:
    name: str
    fault: str
    layer: str


def measure_power(comparison: Comparison, exact: Run) -> dict[str, bool]:
    """Return fault -> whether it would have been caught.

    Args:
        comparison: Whose forward pass was compared, and found nothing.
        exact: The reference's run in evaluation mode, with every point kept.
    """
    candidate = comparison.sides.candidate
    state = candidate.state()
    noise = {
        figure.reference: figure.noise
        for figure in comparison.figures
        if figure.phase == "forward" and figure.quantity == "output"
    }
    caught = {}
    for trial in _choose_trials(comparison, state):
        generator = stream(0, "power", trial.name)
        faulty = FAULTS[trial.fault](state[trial.name], generator)
        if np.array_equal(faulty, state[trial.name]):
            continue
        candidate.load_state({trial.name: faulty})
        try:
            ratio = _worst_ratio(comparison, exact, trial.layer, noise)
        finally:
            candidate.load_state({trial.name: state[trial.name]})
        caught[f"{trial.name} {trial.fault}"] = ratio >= CLEARLY_WRONG
    return caught


def _choose_trials(comparison: Comparison, state: Mapping[str, Array]) -> list[_Trial]:
    """Return arrays spread over the layers that forward passes use, each with a fault in turn."""
    seen = {point.reference for point in comparison.match.points}
    usable = [
        (name, pair.operations[0])
        for pair in comparison.match.weights.pairs
        for name in pair.candidate
        if pair.operations[0] in seen and is_float(state[name]) and np.any(state[name])
    ]
    chosen: Sequence[int] = np.unique(
        np.linspace(0, len(usable) - 1, min(TRIALS, len(usable))).astype(int)
    ).tolist()
    kinds = list(FAULTS)
    return [
        _Trial(name=usable[place][0], layer=usable[place][1], fault=kinds[turn % len(kinds)])
        for turn, place in enumerate(chosen)
    ]


def _worst_ratio(
    comparison: Comparison, exact: Run, layer: str, noise: Mapping[str, float]
) -> float:
    points = [point for point in comparison.match.points if point.reference == layer]
    run = comparison.sides.candidate.run(
        comparison.inputs[1],
        keep=[point.values[1] for point in points],
        replaced=comparison.replacements(exact),
    )
    ratios = []
    for point in points:
        wanted = exact.values[point.values[0]]
        actual = comparison.match.to_reference(point, run.values[point.values[1]])
        scale = largest(wanted) or 1.0
        differences = np.abs(actual - wanted)
        # A root of a negative variance is caught as well.
        differences = np.where(np.isfinite(differences), differences, np.inf)
        ratios.append(float(np.max(differences, initial=0.0)) / scale / noise[layer])
    return max(ratios, default=0.0)
