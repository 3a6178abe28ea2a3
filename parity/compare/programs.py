"""Compare two captured models: what is measured, in which order."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from parity.compare.comparison import Comparison, Sides
from parity.compare.conclusion import conclude
from parity.compare.findings import Finding
from parity.compare.gaps import largest
from parity.compare.matching import Match, match_programs
from parity.compare.power import measure_power
from parity.compare.steps import compare_steps
from parity.errors import CaptureError
from parity.frameworks.program import Array, Objective, Program, Run, State, Stepper, is_float
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
    steppers: tuple[Stepper, Stepper] | None = None,
    steps: int = 1,
    measures_statistics: bool = False,
    measures_power: bool = True,
) -> Finding:
    """Return what a comparison of two captured models finds.

    Args:
        reference: The model that is taken as right.
        candidate: The model in question.
        inputs: Of each; the same numbers, perhaps in another order of axes.
        weights: Whether the candidate takes the reference's weights, or both are compared as they
            are, weights included.
        pinned: Counterparts that the user names; see `parity.compare.alignment.align`.
        phases: What to compare beyond the weights: `forward`, `train` (with the buffers), `loss`,
            `gradients` and `step`; the last three want `objectives`, the last `steppers` too.
        objectives: The losses of both.
        targets: Of the losses.
        steppers: The optimizers of both.
        steps: How many steps they make in phase `step`.
        measures_statistics: Whether both models take the statistics of the inputs as the running
            ones of their batch norms; drawn ones can hide the inputs.
        measures_power: Whether a pass is followed by injected faults.

    Raises:
        CaptureError: If the inputs do not hold the same numbers, or a pinned name is unknown.
    """
    match = match_programs(reference, candidate, inputs, pinned=pinned)
    notes: list[str] = []
    sides = _doubled(match, transfers=weights == "transfer", notes=notes)
    if measures_statistics:
        _take_statistics(match, sides, inputs[0])
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
    if "step" in phases and steppers is not None and objectives is not None:
        compare_steps(comparison, steppers, objectives[0], targets[0], steps=steps)
    power = (
        measure_power(comparison, run)
        if run and measures_power and comparison.first_wrong() is None
        else {}
    )
    return conclude(comparison, sensitivity=sensitivity, power=power, notes=notes)


def _take_statistics(match: Match, sides: Sides, inputs: Sequence[Array]) -> None:
    """Give every batch norm the statistics that the inputs have before it, on all sides."""
    found = measure_statistics(sides.reference, inputs)
    sides.reference.load_state(found)
    sides.single.load_state(found)
    moved: State = {}
    for pair in match.weights.pairs:
        if set(pair.reference) <= set(found):
            moved |= pair.move({name: found[name] for name in pair.reference})
    sides.candidate.load_state(moved)


def measure_statistics(program: Program, inputs: Sequence[Array]) -> State:
    """Return the means and variances that batch norms see in training mode, by name."""
    norms = [
        operation
        for operation in program.trace.operations
        if operation.kind == "batch_norm"
        and {"running_mean", "running_var"} <= {*operation.weights}
    ]
    run = program.run(inputs, training=True, keep=[norm.inputs[0] for norm in norms])
    found: State = {}
    for norm in norms:
        values = np.moveaxis(run.values[norm.inputs[0]], norm.attributes["channel_axis"], -1)
        rows = values.reshape(-1, values.shape[-1])
        found[norm.weights["running_mean"]] = rows.mean(axis=0)
        found[norm.weights["running_var"]] = rows.var(axis=0)
    return found


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
