"""Compare two programs phase by phase, and say where they first part.

The reference runs in float64. The candidate runs in float64 too, with the reference's values in
place of its own at every point, so that each stretch between two points is judged alone: what one
layer gets wrong does not hide in, or spread to, the next. The same holds backward: each stretch is
given the reference's gradients. A gap is judged by its ratio to the rounding noise of its place.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from parity.compare.findings import Figure, Phase
from parity.compare.gaps import largest
from parity.compare.matching import Match
from parity.compare.noise import calibrated_runs, units
from parity.compare.verdicts import CLEARLY_WRONG, VISIBLE_UNITS
from parity.frameworks.program import Array, Objective, Program, Run, State, ValueId, is_float
from parity.rng import stream

# An array far below the largest of its kind in the whole model is zero in theory.
NEGLIGIBLE = 1e-12
# Activations that are constant up to one value, and from another on.
FLAT_BELOW = {"relu": 0.0, "relu6": 0.0}
FLAT_ABOVE = {"relu6": 6.0}
# What gives one value of its operand in several places.
REPEATING = ("max_pool", "adaptive_max_pool", "resize", "expand")


@dataclass(frozen=True, kw_only=True)
class Sides:
    """Both programs in the precision that judges, and the reference in float32.

    Attributes:
        reference: In float64.
        candidate: In float64, or in its own precision where it has no float64.
        single: The reference in float32, for calibration.
    """

    reference: Program
    candidate: Program
    single: Program


@dataclass(kw_only=True)
class Comparison:
    """A comparison under way: what was measured so far.

    Attributes:
        match: How the programs correspond.
        sides: In the precisions that judge.
        inputs: Of reference and candidate.
        figures: Measured so far.
        is_finite: Whether every output of the reference was.
    """

    match: Match
    sides: Sides
    inputs: tuple[Sequence[Array], Sequence[Array]]
    figures: list[Figure] = field(default_factory=list)
    is_finite: bool = True

    def compare_forward(self, *, training: bool) -> Run:
        """Compare the values at every point; return the reference's run."""
        phase: Phase = "train" if training else "forward"
        ours, theirs = self.uniforms() if training else ({}, {})
        points = [point.values[0] for point in self.match.points]
        exact = self.sides.reference.run(
            self.inputs[0], training=training, keep=points, uniforms=ours
        )
        noisy = calibrated_runs(
            self.sides.single,
            self.inputs[0],
            exact,
            points=points,
            training=training,
            uniforms=ours,
            cotangents=None,
        )
        actual = self.sides.candidate.run(
            self.inputs[1],
            training=training,
            keep=[point.values[1] for point in self.match.points],
            replaced=self.replacements(exact),
            uniforms=theirs,
        )
        ends = self.sides.reference.trace.outputs.values()
        self.is_finite &= all(bool(np.isfinite(exact.values[v]).all()) for v in ends if v in points)
        for point in self.match.points:
            value = point.values[0]
            self.judge(
                phase,
                point.operations,
                "output",
                kind=point.kind,
                actual=self.match.to_reference(point, actual.values[point.values[1]]),
                exact=exact.values[value],
                noisy=[run.values[value] for run in noisy],
                scale=largest(exact.values[value]),
            )
        if training:
            self._compare_buffers(exact, actual, noisy)
        return exact

    def compare_gradients(self, d_outputs: Mapping[str, Array]) -> Run:
        """Compare the gradients of every point and parameter in training mode.

        Args:
            d_outputs: Gradient of the loss with respect to each of the reference's outputs.

        Returns:
            The reference's run.
        """
        ours, theirs = self.uniforms()
        trace = self.sides.reference.trace
        outer = {trace.outputs[name]: array for name, array in d_outputs.items()}
        points = [point.values[0] for point in self.match.points]
        exact = self.sides.reference.run(
            self.inputs[0],
            training=True,
            keep=points,
            uniforms=ours,
            cotangents=outer,
        )
        given = outer | dict(exact.gradients)
        noisy = calibrated_runs(
            self.sides.single,
            self.inputs[0],
            exact,
            points=points,
            training=True,
            uniforms=ours,
            cotangents=given,
        )
        actual = self.sides.candidate.run(
            self.inputs[1],
            training=True,
            keep=[point.values[1] for point in self.match.points],
            replaced=self.replacements(exact),
            uniforms=theirs,
            cotangents={
                point.values[1]: self.match.to_candidate(point, given[point.values[0]])
                for point in self.match.points
                if point.values[0] in given
            },
        )
        self._compare_parameter_gradients(exact, actual, noisy)
        self._compare_value_gradients(exact, actual, noisy, outer=outer)
        return exact

    def compare_weights(self) -> None:
        """Compare the arrays of counterparts as they are, in the precision they are kept in."""
        states = tuple(program.state() for program in self.match.programs)
        for pair in self.match.weights.pairs:
            wanted = pair.move({name: states[0][name] for name in pair.reference})
            actual = pair.settle({name: states[1][name] for name in pair.candidate})
            self._judge_arrays(
                "weights", pair.operations, wanted=wanted, actual=actual, noisy=(), scale=0.0
            )

    def compare_loss(
        self, objectives: tuple[Objective, Objective], exact: Run, targets: tuple[Any, Any]
    ) -> dict[str, Array]:
        """Compare the loss and its gradient, both from the reference's outputs.

        Args:
            objectives: Of reference and candidate.
            exact: The reference's run in training mode.
            targets: Of reference and candidate.

        Returns:
            The reference's gradient with respect to each of its outputs.
        """
        outputs = [point for point in self.match.points if point.kind == "output"]
        names = tuple(
            {value: name for name, value in program.trace.outputs.items()}
            for program in self.match.programs
        )
        loss, gradients = objectives[0].evaluate(
            {names[0][point.values[0]]: exact.values[point.values[0]] for point in outputs},
            targets[0],
        )
        other, computed = objectives[1].evaluate(
            {
                names[1][point.values[1]]: self.match.to_candidate(
                    point, exact.values[point.values[0]]
                )
                for point in outputs
            },
            targets[1],
        )
        self.judge(
            "loss",
            ("loss", "loss"),
            "loss",
            actual=np.asarray(other),
            exact=np.asarray(loss),
            noisy=(),
            scale=max(1.0, abs(loss)),
        )
        for point in outputs:
            ours, theirs = (names[side][point.values[side]] for side in (0, 1))
            if ours in gradients and theirs in computed:
                self.judge(
                    "loss",
                    point.operations,
                    "gradient of the loss",
                    actual=self.match.to_reference(point, computed[theirs]),
                    exact=gradients[ours],
                    noisy=(),
                    scale=largest(gradients[ours]),
                )
        return gradients

    def first_wrong(self) -> Figure | None:
        """Return the first figure that is clearly wrong, in the order of the phases."""
        return next((figure for figure in self.figures if figure.is_wrong), None)

    def first_unclear(self) -> Figure | None:
        """Return the first figure that is neither clearly right nor clearly wrong."""
        return next((figure for figure in self.figures if figure.is_unclear), None)

    def first_hidden(self) -> Figure | None:
        """Return the first figure that is more than rounding, but less than the models show."""
        return next(
            (one for one in self.figures if one.ratio >= CLEARLY_WRONG and not one.is_wrong), None
        )

    def replacements(self, exact: Run) -> dict[ValueId, Array]:
        """Return the reference's values at the points, in the candidate's axes."""
        return {
            point.values[1]: self.match.to_candidate(point, exact.values[point.values[0]])
            for point in self.match.points
            if point.kind != "output" and is_float(exact.values[point.values[0]])
        }

    def uniforms(self) -> tuple[dict[str, Array], dict[str, Array]]:
        """Return what each side's dropouts keep by: the same numbers at counterparts."""
        ours: dict[str, Array] = {}
        theirs: dict[str, Array] = {}
        # What is dropped within an operation of the match has no numbers on the other side.
        operations = self.match.traces[0].operations
        shapes = self.sides.reference.trace.shapes
        points = {point.values[0]: point for point in self.match.points}
        for place, operation in enumerate(one for one in operations if one.kind == "dropout"):
            numbers = stream(place, "uniforms").random(shapes[operation.outputs[0]])
            ours[operation.name] = numbers
            if (point := points.get(operation.outputs[0])) is not None:
                theirs[point.candidate] = self.match.to_candidate(point, numbers)
        return ours, theirs

    def _compare_buffers(self, exact: Run, actual: Run, noisy: Sequence[Run]) -> None:
        for pair in self.match.weights.pairs:
            if not set(pair.reference) <= set(exact.buffers):
                continue
            self._judge_arrays(
                "buffers",
                pair.operations,
                wanted=pair.move({name: exact.buffers[name] for name in pair.reference}),
                actual=actual.buffers,
                noisy=[
                    pair.move({name: run.buffers[name] for name in pair.reference}) for run in noisy
                ],
                scale=0.0,
            )

    def _compare_parameter_gradients(self, exact: Run, actual: Run, noisy: Sequence[Run]) -> None:
        scales = _layer_scales(self.match, exact.parameter_gradients)
        for pair in self.match.weights.pairs:
            layer = pair.operations[0]
            trained = set(pair.reference) <= set(exact.parameter_gradients)
            runs = [run.parameter_gradients for run in (exact, *noisy)]
            if not trained:
                # What the reference keeps as it is has no gradient: one on the other side shows.
                if not set(pair.candidate) & set(actual.parameter_gradients):
                    continue
                runs = [{name: 0.0 * exact.buffers[name] for name in pair.reference}]
            wanted, *rounded = (
                pair.move_gradients({name: run[name] for name in pair.reference}) for run in runs
            )
            found = {
                name: actual.parameter_gradients.get(name, np.zeros_like(array))
                for name, array in wanted.items()
            }
            self._judge_arrays(
                "gradients",
                pair.operations,
                wanted=wanted,
                actual=found,
                noisy=rounded,
                scale=scales[layer] if trained else max(map(largest, found.values())),
            )

    def _compare_value_gradients(
        self, exact: Run, actual: Run, noisy: Sequence[Run], *, outer: Mapping[ValueId, Array]
    ) -> None:
        """Compare what flows back into each point, but for the share that the loss gives itself."""
        overall = max((largest(array) for array in exact.gradients.values()), default=0.0)
        for point in reversed(self.match.points):
            value, other = point.values
            if point.kind == "output" or value not in exact.gradients:
                continue
            passes = _passes(point.kind, exact.values[value])
            wanted = (exact.gradients[value] - outer.get(value, 0.0)) * passes
            computed = actual.gradients.get(other)
            shape = self.sides.candidate.trace.shapes[other]
            self.judge(
                "gradients",
                point.operations,
                "gradient",
                kind=point.kind,
                actual=passes
                * self.match.to_reference(point, np.zeros(shape) if computed is None else computed),
                exact=wanted,
                noisy=[run.gradients[value] * passes for run in noisy if value in run.gradients],
                scale=max(largest(wanted), NEGLIGIBLE * overall),
            )

    def _judge_arrays(
        self,
        phase: Phase,
        operations: tuple[str, str],
        *,
        wanted: State,
        actual: Mapping[str, Array],
        noisy: Sequence[State],
        scale: float,
    ) -> None:
        """Judge arrays of a state, by the candidate's names and in its layout."""
        for name, array in wanted.items():
            if name not in actual:
                continue
            self.judge(
                phase,
                operations,
                name,
                actual=actual[name],
                exact=array,
                noisy=[state[name] for state in noisy],
                scale=scale or largest(array),
            )

    def judge(
        self,
        phase: Phase,
        operations: tuple[str, str],
        quantity: str,
        *,
        actual: Array,
        exact: Array,
        noisy: Sequence[Array],
        scale: float,
        kind: str = "",
    ) -> None:
        """Measure one quantity of two counterparts.

        Args:
            phase: When.
            operations: Names of the counterparts.
            quantity: What of them.
            actual: The candidate's.
            exact: The reference's, in the same axes.
            noisy: The same of calibration runs.
            scale: What gaps are relative to; 0 where the reference is nothing but zeros.
            kind: Of the reference's operation.
        """
        noise = units(exact, noisy, scale=scale) * self._unit()
        differences = np.abs(actual.astype(np.float64) - exact.astype(np.float64))
        # Nothing but zeros has no scale: then any difference counts in full.
        differences = differences / scale if scale > 0.0 else np.where(differences == 0, 0.0, 1.0)
        differences = np.where(np.isfinite(differences), differences, np.inf)
        worst = int(np.argmax(differences)) if differences.size else 0
        place = np.unravel_index(worst, differences.shape) if differences.ndim else ()
        self.figures.append(
            Figure(
                phase=phase,
                quantity=quantity,
                reference=operations[0],
                candidate=operations[1],
                kind=kind,
                gap=float(differences.flat[worst]) if differences.size else 0.0,
                noise=noise,
                where=", ".join(str(int(index)) for index in place),
                share=float(np.mean(differences > CLEARLY_WRONG * noise))
                if differences.size
                else 0.0,
                visible=self._visible(),
            )
        )

    def _visible(self) -> float:
        """Return the gap that the coarser of the two models, as the user runs it, may hide."""
        units = [_unit_of(program.dtype) for program in self.match.programs]
        return VISIBLE_UNITS * max(units)

    def _unit(self) -> float:
        return _unit_of(self.sides.candidate.dtype)


def _unit_of(dtype: str) -> float:
    """Return the spacing at 1 of a dtype; NumPy has no bfloat16."""
    return 2.0**-7 if dtype == "bfloat16" else float(np.finfo(np.dtype(dtype)).eps)


def _passes(kind: str, values: Array) -> Array:
    """Return 1 where the gradient with respect to a value means something on its own, 0 elsewhere.

    A max pool over equal values sends the gradient to one of them, and frameworks choose another.
    The flat parts of an activation give equal values, where the activation then stops the gradient;
    so do the overlapping windows of a pool before it, which adds the gradients of one value up.
    """
    if kind in FLAT_BELOW:
        flat = (values <= FLAT_BELOW[kind]) | (values >= FLAT_ABOVE.get(kind, np.inf))
        return np.where(flat, 0.0, 1.0)
    if kind in REPEATING:
        _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
        return np.where(counts[places.reshape(values.shape)] > 1, 0.0, 1.0)
    return np.ones_like(values)


def _layer_scales(match: Match, gradients: Mapping[str, Array]) -> dict[str, float]:
    """Return the largest gradient of each operation's parameters, floored by the model's."""
    overall = max((largest(array) for array in gradients.values()), default=0.0)
    scales: dict[str, float] = {}
    for pair in match.weights.pairs:
        for name in pair.reference:
            if name in gradients:
                layer = pair.operations[0]
                scales[layer] = max(
                    scales.get(layer, NEGLIGIBLE * overall), largest(gradients[name])
                )
    return scales
