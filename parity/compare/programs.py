"""Compare two captured models: what is measured, in which order."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from parity.compare.comparison import Comparison, Sides
from parity.compare.conclusion import conclude
from parity.compare.findings import Finding
from parity.compare.gaps import largest
from parity.compare.matching import Match, match_programs
from parity.errors import CaptureError
from parity.frameworks.program import Array, Objective, Program, Run, is_float
from parity.rng import stream

Weights = Literal["transfer", "as-is"]


def compare_programs(
    reference: Program,
    candidate: Program,
    inputs: tuple[Sequence[Array], Sequence[Array]],
    *,
    weights: Weights = "transfer",
    pinned: Mapping[str, str] | None = None,
    phases: Sequence[str] = ("forward",),
    objectives: tuple[Objective, Objective] | None = None,
    targets: tuple[Any, Any] = (None, None),
) -> Finding:
    """Return what a comparison of two captured models finds.

    Args:
        reference: The model that is taken as right.
        candidate: The model in question.
        inputs: Of each; the same numbers, perhaps in another order of axes.
        weights: Whether the candidate takes the reference's weights, or both are compared as they
            are, weights included.
        pinned: Counterparts that the user names; see `parity.compare.alignment.align`.
        phases: What to compare beyond the weights: `forward`, `train` (with the buffers), `loss`
            and `gradients`; the last two want `objectives`.
        objectives: The losses of both.
        targets: Of the losses.

    Raises:
        CaptureError: If the inputs do not hold the same numbers, or a pinned name is unknown.
    """
    match = match_programs(reference, candidate, inputs, pinned=pinned)
    notes: list[str] = []
    sides = _doubled(match, transfers=weights == "transfer", notes=notes)
    comparison = Comparison(match=match, sides=sides, inputs=inputs)
    if weights == "as-is":
        comparison.compare_weights()
    run = comparison.compare_forward(training=False) if "forward" in phases else None
    sensitivity = measure_sensitivity(sides.reference, inputs[0], run) if run else None
    if {"train", "loss", "gradients"} & set(phases):
        trained = comparison.compare_forward(training=True)
        if objectives is not None:
            d_outputs = comparison.compare_loss(objectives, trained, targets)
            if "gradients" in phases:
                comparison.compare_gradients(d_outputs)
    return conclude(comparison, sensitivity=sensitivity, notes=notes)


def _doubled(match: Match, *, transfers: bool, notes: list[str]) -> Sides:
    """Return both programs in float64, the candidate with the weights it is judged with."""
    reference, candidate = match.programs
    exact = reference.astype("float64")
    try:
        judged = candidate.astype("float64")
    except CaptureError as error:
        notes.append(f"the candidate ran in {candidate.dtype}: {error}")
        judged = candidate
    if transfers:
        judged.load_state(match.weights.transfer(exact.state(), candidate=judged.state()))
    single = reference if reference.dtype == "float32" else reference.astype("float32")
    return Sides(reference=exact, candidate=judged, single=single)


def measure_sensitivity(reference: Program, inputs: Sequence[Array], run: Run) -> float:
    """Return how far the outputs move, over their scale, when the inputs do.

    Floats move by a tenth of their deviation; samples of integers change places.
    """
    moved = []
    for place, array in enumerate(inputs):
        generator = stream(place, "sensitivity")
        if is_float(array):
            spread = 0.1 * float(np.std(array)) or 1.0
            moved.append(array + spread * generator.standard_normal(array.shape))
        else:
            moved.append(generator.permutation(array.ravel()).reshape(array.shape))
    values = list(reference.trace.outputs.values())
    other = reference.run(moved, keep=values)
    shares = [
        float(np.max(np.abs(other.values[value] - run.values[value]), initial=0.0)) / scale
        for value in values
        if is_float(run.values[value]) and (scale := largest(run.values[value])) > 0.0
    ]
    return max(shares, default=0.0)
