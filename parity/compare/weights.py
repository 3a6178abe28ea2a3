"""Which array of the candidate's state is which of the reference's, and how one becomes the other.

Counterparts say which; the axes of the arrays, and of the values that they are applied to, say how:
a kernel turns from OIHW into HWIO, and the rows of a dense layer that follow a flattened image are
put in the order in which the other side flattens.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from conversion.layouts import letters_of
from parity.compare.alignment import Alignment, has_weights, sort_of
from parity.compare.axes import Atom, Axes, Axis, Part, have_like_atoms, move_value
from parity.compare.composites import CompositeMove, composite_move
from parity.errors import ConversionError
from parity.frameworks.program import Array, Operation, Program, State, Trace, ValueId

Move = Callable[[State], State]


@dataclass(frozen=True, kw_only=True)
class WeightPair:
    """The arrays of two counterparts that hold the same numbers.

    Attributes:
        operations: Names of the two operations.
        reference: Names in the reference's state.
        candidate: Names in the candidate's state.
        move: Takes the reference's arrays by name, gives the candidate's.
        move_gradients: The same for gradients with respect to them.
        settle: Takes the candidate's own arrays by name, gives them in the form that `move` does.
    """

    operations: tuple[str, str]
    reference: tuple[str, ...]
    candidate: tuple[str, ...]
    move: Move
    move_gradients: Move
    settle: Move = dict


@dataclass(frozen=True, kw_only=True)
class WeightMap:
    """All pairs of arrays, and those that have no counterpart.

    Attributes:
        pairs: In the reference's call order.
        unused: Names of the reference that nothing of the candidate takes.
        unset: Names of the candidate that nothing of the reference gives, with the value that
            changes nothing (a bias of zeros, a scale of ones), or `None` where there is no such.
        unlike: Sentences on arrays of unlike shapes, and on arrays that one side shares.
    """

    pairs: tuple[WeightPair, ...]
    unused: tuple[str, ...]
    unset: Mapping[str, float | None]
    unlike: tuple[str, ...]

    def transfer(self, state: Mapping[str, Array], *, candidate: Mapping[str, Array]) -> State:
        """Return the candidate's state that the reference's makes.

        Args:
            state: The reference's.
            candidate: The candidate's, for arrays that keep what they hold, and for shapes.
        """
        moved: State = {}
        for pair in self.pairs:
            moved |= pair.move({name: state[name] for name in pair.reference})
        for name, value in self.unset.items():
            if value is not None:
                moved[name] = candidate[name] * 0 + value
        return moved


# Slot -> what leaves a layer as if it had none.
NEUTRAL = {"bias": 0.0, "running_mean": 0.0, "weight": 1.0, "running_var": 1.0}


def pair_weights(
    programs: tuple[Program, Program],
    traces: tuple[Trace, Trace],
    alignment: Alignment,
    labelled: tuple[Mapping[ValueId, Axes], Mapping[ValueId, Axes]],
) -> WeightMap:
    """Return which arrays correspond.

    Args:
        programs: Reference and candidate.
        traces: Theirs, as they are aligned.
        alignment: Of these traces.
        labelled: Axes of the values of each.
    """
    matcher = _Matcher(programs, traces, labelled)
    for ours, theirs in alignment.pairs.items():
        matcher.match_operations(ours, theirs)
    return matcher.finish()


class _Matcher:
    """Collects pairs of arrays, operation by operation."""

    def __init__(
        self,
        programs: tuple[Program, Program],
        traces: tuple[Trace, Trace],
        labelled: tuple[Mapping[ValueId, Axes], Mapping[ValueId, Axes]],
    ) -> None:
        self._traces = traces
        self._states = (programs[0].state(), programs[1].state())
        self._labelled = labelled
        self._pairs: list[WeightPair] = []
        self._given: dict[str, list[str]] = defaultdict(list)
        self._unset: dict[str, float | None] = {}
        self._unlike: list[str] = []

    def match_operations(self, ours: int, theirs: int) -> None:
        """Pair the arrays of two counterparts, and those among their operands."""
        operations = (self._traces[0].operations[ours], self._traces[1].operations[theirs])
        if has_weights(operations[0]) and has_weights(operations[1]):
            self._match_slots(*operations)
        for first, second in zip(
            parameter_operands(self._traces[0], operations[0]),
            parameter_operands(self._traces[1], operations[1]),
            strict=False,
        ):
            self._match_slots(first, second)

    def finish(self) -> WeightMap:
        """Return what was found; what no pair names is listed."""
        used = {name for pair in self._pairs for name in pair.reference}
        unset = {name: self._unset.get(name) for name in self._states[1] if name not in self._given}
        return WeightMap(
            pairs=tuple(self._pairs),
            unused=tuple(name for name in self._states[0] if name not in used),
            unset=unset,
            unlike=tuple(self._unlike),
        )

    def _match_composite(self, ours: Operation, theirs: Operation, move: CompositeMove) -> None:
        """Pair all arrays of two layers that keep them in unlike forms."""

        def moving(function: Callable[[Mapping[str, Array]], State]) -> Move:
            def moved(arrays: State) -> State:
                made = function({slot: arrays[name] for slot, name in ours.weights.items()})
                return {theirs.weights[slot]: array for slot, array in made.items()}

            return moved

        def settle(arrays: State) -> State:
            own = move.settled({slot: arrays[name] for slot, name in theirs.weights.items()})
            return {theirs.weights[slot]: array for slot, array in own.items()}

        pair = WeightPair(
            operations=(ours.name, theirs.name),
            reference=tuple(ours.weights.values()),
            candidate=tuple(theirs.weights.values()),
            move=moving(move.arrays),
            move_gradients=moving(move.gradients),
            settle=settle,
        )
        try:
            made = pair.move(self._states[0])
        except (ConversionError, KeyError) as error:
            self._unlike.append(f"{ours.name} and {theirs.name}: {error}")
            return
        for name, array in made.items():
            if array.shape != self._states[1][name].shape:
                self._unlike.append(
                    f"{ours.name} gives {array.shape} for {name} {self._states[1][name].shape}"
                )
                return
        for name in made:
            self._given[name] += pair.reference
        self._pairs.append(pair)

    def _match_slots(self, ours: Operation, theirs: Operation) -> None:
        move = composite_move(ours, theirs)
        if move is not None:
            self._match_composite(ours, theirs, move)
            return
        for slot, target in theirs.weights.items():
            source = ours.weights.get(slot)
            if target in self._given:
                if source is not None and source not in self._given[target]:
                    self._unlike.append(
                        f"{target} is shared where the reference has {source} and "
                        f"{', '.join(self._given[target])}"
                    )
                continue
            if source is None:
                self._unset[target] = NEUTRAL.get(slot)
                continue
            self._match_arrays((ours, theirs), slot, (source, target))

    def _match_arrays(
        self, operations: tuple[Operation, Operation], slot: str, names: tuple[str, str]
    ) -> None:
        source, target = names
        shapes = (self._states[0][source].shape, self._states[1][target].shape)
        axes = tuple(
            weight_axes(operation, slot, shape, labelled)
            for operation, shape, labelled in zip(operations, shapes, self._labelled, strict=True)
        )
        if not have_like_atoms(axes[0], axes[1]):
            # The values' axes could not be followed on one side: the layers' own letters remain.
            axes = tuple(
                weight_axes(operation, slot, shape, {})
                for operation, shape in zip(operations, shapes, strict=True)
            )

        def move(arrays: Mapping[str, Array]) -> State:
            moved = move_value(arrays[source], axes[0], axes[1], shapes[1])
            return {} if moved is None else {target: moved}

        if not move(self._states[0]):
            self._unlike.append(f"{source} {shapes[0]} and {target} {shapes[1]}")
            return
        self._given[target].append(source)
        self._pairs.append(
            WeightPair(
                operations=(operations[0].name, operations[1].name),
                reference=(source,),
                candidate=(target,),
                move=move,
                move_gradients=move,
            )
        )


# What a parameter may go through before it is an operand.
_MOVED = ("reshape", "permute", "cast", "expand", "slice", "take")


def parameter_operands(trace: Trace, operation: Operation) -> list[Operation]:
    """Return the parameters that an operation takes as operands, looked for through reshapes.

    Rows of an embedding that are looked up by fixed numbers, such as those of the positions, are a
    parameter too.
    """
    makers = {value: one for one in trace.operations for value in one.outputs}

    def source(value: ValueId) -> Operation | None:
        maker = makers.get(value)
        while maker is not None and maker.kind in _MOVED and maker.inputs:
            maker = makers.get(maker.inputs[0])
        return maker

    found = []
    for value in operation.inputs:
        maker = source(value)
        if maker is None:
            continue
        if maker.kind == "parameter":
            found.append(maker)
        elif maker.kind == "embedding" and maker.inputs:
            numbers = source(maker.inputs[0])
            if numbers is not None and numbers.kind == "constant":
                found.append(replace(maker, weights={"value": maker.weights["weight"]}, layouts={}))
    return found


def weight_axes(
    operation: Operation,
    slot: str,
    shape: tuple[int, ...],
    labelled: Mapping[ValueId, Axes],
) -> Axes:
    """Return the axes of an array of a layer, in the atoms of the values it is applied to.

    Args:
        operation: The layer.
        slot: Of the array.
        shape: Of the array.
        labelled: Axes of the values of its trace.
    """
    layout = operation.layouts.get(slot, "")
    letters = letters_of(layout) if layout else []
    if len(letters) != len(shape):
        return _normalized_axes(operation, shape, labelled)
    groups = operation.attributes.get("groups", 1)
    return tuple(
        _letter_axis(operation, one, length, groups=groups, labelled=labelled, layout=layout)
        for one, length in zip(letters, shape, strict=True)
    )


def _letter_axis(
    operation: Operation,
    letters: str,
    length: int,
    *,
    groups: int,
    labelled: Mapping[ValueId, Axes],
    layout: str,
) -> Axis:
    # A depthwise kernel counts its output channels through the multiplier for each channel.
    by_channel = {"o": length // groups, "m": length}
    if sort_of(operation.kind) == "linear" and groups > 1:
        if letters == "o":
            return _product(("o.c", groups), ("o.m", by_channel["o"]))
        if letters == "c" and "m" in layout:
            return _product(("o.c", length))
        if letters == "m":
            return _product(("o.m", length))
    if letters == "i" and groups == 1:
        taken = _operand_axis(operation, labelled)
        if taken is not None and taken.length == length:
            return taken
    return _product((letters, length))


def _normalized_axes(
    operation: Operation, shape: tuple[int, ...], labelled: Mapping[ValueId, Axes]
) -> Axes:
    """Return the axes of a norm's array: those that it normalizes."""
    operand = labelled.get(operation.inputs[0]) if operation.inputs else None
    if operand is not None and "axes" in operation.attributes:
        chosen = tuple(operand[place] for place in operation.attributes["axes"])
        if tuple(one.length for one in chosen) == shape:
            return chosen
    if len(shape) == 1 and sort_of(operation.kind) in ("norm", "activation"):
        taken = _operand_axis(operation, labelled)
        if taken is not None and taken.length == shape[0]:
            return (taken,)
    return tuple(_product((f"w{place}", length)) for place, length in enumerate(shape))


def _operand_axis(operation: Operation, labelled: Mapping[ValueId, Axes]) -> Axis | None:
    """Return the axis of the operand that the weights run along."""
    place: Any = operation.attributes.get("channel_axis", -1)
    axes = labelled.get(operation.inputs[0], ()) if operation.inputs else ()
    return axes[place] if axes and -len(axes) <= place < len(axes) else None


def _product(*atoms: Atom) -> Axis:
    part: Part = tuple(atom for atom in atoms if atom[1] != 1)
    return Axis(parts=(part,))
