"""Two programs laid one upon the other: counterparts, axes, weights, points to compare at."""

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import permutations

import numpy as np

from parity.compare.alignment import Alignment, Shapes, align, is_seen
from parity.compare.attention import are_alike, contract, find_written
from parity.compare.axes import Axes, input_axes, label_axes, move_value
from parity.compare.weights import WeightMap, pair_weights
from parity.errors import CaptureError
from parity.frameworks.program import Array, Program, Trace, ValueId


@dataclass(frozen=True, kw_only=True)
class Point:
    """A value of the reference and its counterpart.

    Attributes:
        reference: Name of the operation that makes it, or of the output.
        candidate: Name of the counterpart.
        kind: Of the reference's operation; `output` for what the model returns.
        values: The value on each side.
    """

    reference: str
    candidate: str
    kind: str
    values: tuple[ValueId, ValueId]

    @property
    def operations(self) -> tuple[str, str]:
        """Names on either side."""
        return self.reference, self.candidate


@dataclass(frozen=True, kw_only=True)
class Match:
    """How two programs correspond.

    Attributes:
        programs: Reference and candidate.
        traces: Theirs, with what amounts to one layer as one operation.
        alignment: Of these traces.
        labelled: Axes of the values of each.
        weights: How their arrays correspond.
        points: Where they are compared, in the reference's call order; the outputs last.
        unlike: Counterparts whose values have unlike shapes, in the reference's call order.
    """

    programs: tuple[Program, Program]
    traces: tuple[Trace, Trace]
    alignment: Alignment
    labelled: tuple[Mapping[ValueId, Axes], Mapping[ValueId, Axes]]
    weights: WeightMap
    points: tuple[Point, ...]
    unlike: tuple[Point, ...]

    def to_candidate(self, point: Point, array: Array) -> Array:
        """Return a value of the reference's in the candidate's axes."""
        return self._moved(point, array, source=0)

    def to_reference(self, point: Point, array: Array) -> Array:
        """Return a value of the candidate's in the reference's axes."""
        return self._moved(point, array, source=1)

    def _moved(self, point: Point, array: Array, *, source: int) -> Array:
        target = 1 - source
        axes = tuple(self.labelled[side][point.values[side]] for side in (source, target))
        shape = self.traces[target].shapes[point.values[target]]
        moved = move_value(array, axes[0], axes[1], shape)
        if moved is None:
            message = f"{point.reference}: its axes are not those of {point.candidate}."
            raise CaptureError(message)
        return moved

    def missing(self, side: int) -> tuple[str, ...]:
        """Return the names of one side's operations without a counterpart."""
        paired = set(self.alignment.pairs) if side == 0 else set(self.alignment.pairs.values())
        return tuple(
            operation.name
            for index, operation in enumerate(self.traces[side].operations)
            if index not in paired and is_seen(operation)
        )


def match_programs(
    reference: Program,
    candidate: Program,
    inputs: tuple[Sequence[Array], Sequence[Array]],
    *,
    pinned: Mapping[str, str] | None = None,
) -> Match:
    """Return how two programs correspond.

    Args:
        reference: One program.
        candidate: The other.
        inputs: Of each; the same numbers, perhaps in another order of axes.
        pinned: See `parity.compare.alignment.align`.

    Raises:
        CaptureError: If the inputs do not hold the same numbers.
    """
    programs = (reference, candidate)
    axes = _input_axes((reference.trace, candidate.trace), inputs)
    shapes = tuple(
        {name: array.shape for name, array in program.state().items()} for program in programs
    )
    traces, alignment = _align(
        (reference.trace, candidate.trace), (shapes[0], shapes[1]), pinned or {}
    )
    labelled = label_axes(traces[0], axes[0]), label_axes(traces[1], axes[1])
    points, unlike = _find_points(traces, alignment, labelled)
    return Match(
        programs=programs,
        traces=traces,
        alignment=alignment,
        labelled=labelled,
        weights=pair_weights(programs, traces, alignment, labelled),
        points=points,
        unlike=unlike,
    )


def _align(
    traces: tuple[Trace, Trace], shapes: tuple[Shapes, Shapes], pinned: Mapping[str, str]
) -> tuple[tuple[Trace, Trace], Alignment]:
    """Return the traces and their counterparts, attention written out as one where it has to be.

    It stays as it is written where the other side writes it in the same way, or has none.
    """
    written = (
        find_written(traces[0], kept=pinned.keys()),
        find_written(traces[1], kept=pinned.values()),
    )
    if not any(written):
        return traces, align(*traces, shapes=shapes, pinned=pinned)
    whole = contract(traces[0], written[0]), contract(traces[1], written[1])
    first = align(*whole, shapes=shapes, pinned=pinned)
    met = [
        (whole[0].operations[ours], whole[1].operations[theirs])
        for ours, theirs in first.pairs.items()
    ]
    wanted = [pair for pair in met if pair[0].kind == pair[1].kind and not are_alike(*pair)]
    names = {pair[0].name for pair in wanted}, {pair[1].name for pair in wanted}
    kept = [[one for one in written[side] if one.layer.name in names[side]] for side in (0, 1)]
    seen = contract(traces[0], kept[0]), contract(traces[1], kept[1])
    return seen, align(*seen, shapes=shapes, pinned=pinned)


def relate(reference: Array, candidate: Array) -> tuple[int, ...] | None:
    """Return the order of the reference's axes that gives the candidate's array.

    >>> images = np.arange(24).reshape(1, 2, 3, 4)
    >>> relate(images, np.moveaxis(images, 1, -1))
    (0, 2, 3, 1)
    """
    rank = reference.ndim
    if candidate.ndim != rank or sorted(candidate.shape) != sorted(reference.shape):
        return None
    usual = [tuple(range(rank)), (0, *range(2, rank), 1)] if rank > 1 else [tuple(range(rank))]
    for order in [*usual, *permutations(range(rank))]:
        moved = reference.transpose(order)
        if moved.shape == candidate.shape and np.array_equal(moved, candidate, equal_nan=True):
            return tuple(order)
    return None


def _input_axes(
    traces: tuple[Trace, Trace], inputs: tuple[Sequence[Array], Sequence[Array]]
) -> tuple[dict[ValueId, Axes], dict[ValueId, Axes]]:
    if len(inputs[0]) != len(inputs[1]):
        message = (
            f"inputs: expected as many on both sides; got {len(inputs[0])} of the reference and "
            f"{len(inputs[1])} of the candidate."
        )
        raise CaptureError(message)
    ours: dict[ValueId, Axes] = {}
    theirs: dict[ValueId, Axes] = {}
    for place, (first, second) in enumerate(zip(*inputs, strict=True)):
        order = relate(np.asarray(first), np.asarray(second))
        if order is None:
            message = (
                f"input {place}: expected the same numbers on both sides in some order of axes; "
                f"got {np.shape(first)} and {np.shape(second)}. Give the candidate its own form of "
                "the same inputs."
            )
            raise CaptureError(message)
        axes = input_axes(place, np.shape(first))
        ours[traces[0].inputs[place]] = axes
        theirs[traces[1].inputs[place]] = tuple(axes[axis] for axis in order)
    return ours, theirs


def _find_points(
    traces: tuple[Trace, Trace],
    alignment: Alignment,
    labelled: tuple[Mapping[ValueId, Axes], Mapping[ValueId, Axes]],
) -> tuple[tuple[Point, ...], tuple[Point, ...]]:
    """Return where the two are compared, and the counterparts of unlike shapes."""
    operations = [
        (traces[0].operations[ours], traces[1].operations[theirs])
        for ours, theirs in alignment.pairs.items()
    ]
    candidates = [
        Point(reference=first.name, candidate=second.name, kind=first.kind, values=values)
        for first, second in operations
        for values in zip(first.outputs, second.outputs, strict=False)
    ]
    candidates += [
        Point(
            reference=f"output {ours}".rstrip(),
            candidate=f"output {theirs}".rstrip(),
            kind="output",
            values=(traces[0].outputs[ours], traces[1].outputs[theirs]),
        )
        for ours, theirs in zip(traces[0].outputs, traces[1].outputs, strict=False)
    ]
    points, unlike = [], []
    for point in (_past_division(point, traces, alignment) for point in candidates):
        if _corresponds(point, traces, labelled):
            points.append(point)
        elif later := _later_point(point, traces, alignment, labelled):
            points.append(later)
        else:
            unlike.append(point)
    return tuple(points), tuple(unlike)


def _past_division(point: Point, traces: tuple[Trace, Trace], alignment: Alignment) -> Point:
    """Return the point behind the division by the share of each window that is no padding.

    Where average pools leave their padding out of the count, a framework without that option pools
    ones too and divides.
    """
    if point.kind != "avg_pool":
        return point
    paired = set(alignment.pairs), set(alignment.pairs.values())
    ours, theirs = (_divided(traces[side], point.values[side], paired[side]) for side in (0, 1))
    return replace(point, values=(ours, theirs))


def _divided(trace: Trace, value: ValueId, paired: Container[int]) -> ValueId:
    """Return the quotient of a pooled value and another one, or the value itself."""
    pooled = {
        output for one in trace.operations if one.kind == "avg_pool" for output in one.outputs
    }
    takers = [
        (index, operation)
        for index, operation in enumerate(trace.operations)
        if value in operation.inputs
    ]
    if len(takers) != 1:
        return value
    index, taker = takers[0]
    is_quotient = taker.kind == "divide" and set(taker.inputs) <= pooled and index not in paired
    return taker.outputs[0] if is_quotient and taker.inputs[0] == value else value


def _corresponds(
    point: Point,
    traces: tuple[Trace, Trace],
    labelled: tuple[Mapping[ValueId, Axes], Mapping[ValueId, Axes]],
) -> bool:
    """Return whether the two values of a point lie upon each other."""
    shapes = tuple(traces[side].shapes[point.values[side]] for side in (0, 1))
    axes = tuple(labelled[side][point.values[side]] for side in (0, 1))
    probe = np.empty(shapes[0], dtype=np.bool_)
    return move_value(probe, axes[0], axes[1], shapes[1]) is not None


def _later_point(
    point: Point,
    traces: tuple[Trace, Trace],
    alignment: Alignment,
    labelled: tuple[Mapping[ValueId, Axes], Mapping[ValueId, Axes]],
) -> Point | None:
    """Return where counterparts of unlike outputs meet again, before the next counterparts.

    A recurrent layer may return every step, of which the model takes the last, or the last alone.
    """
    paired = set(alignment.pairs), set(alignment.pairs.values())
    ends = [
        _taken_values(traces[side], point.values[side], paired[side]) or [point.values[side]]
        for side in (0, 1)
    ]
    if len(ends[0]) != 1 or len(ends[1]) != 1:
        return None
    later = replace(point, values=(ends[0][0], ends[1][0]))
    return later if _corresponds(later, traces, labelled) else None


def _taken_values(trace: Trace, start: ValueId, paired: Container[int]) -> list[ValueId]:
    """Return what becomes of a value until a counterpart, or the caller, takes it.

    Its layer's other outputs count as it does: a hidden state is the last step.
    """
    maker = next(one for one in trace.operations if start in one.outputs)
    reached = set(maker.outputs)
    taken: list[ValueId] = []
    for index, operation in enumerate(trace.operations):
        if not reached & set(operation.inputs):
            continue
        if index in paired:
            taken += [value for value in operation.inputs if value in reached]
        else:
            reached |= set(operation.outputs)
    taken += [value for value in trace.outputs.values() if value in reached]
    return list(dict.fromkeys(taken))
