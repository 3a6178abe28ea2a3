"""What the axes of a value mean, so that two sides' values can be laid one upon the other.

An axis is a product of *atoms*, outermost first: an image's channel axis is one atom, a flattened
image the product of three, in PyTorch's order or in Keras's. Atoms are named after the axes of the
inputs, which the user's arrays relate, and after what operations put in their place. Names are the
same on both sides, so the order of the atoms tells how one side's array is reordered into the
other's: NCHW against NHWC, and a flattened NCHW against a flattened NHWC.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parity.frameworks.program import Array, Operation, Trace, ValueId

# Name and length.
Atom = tuple[str, int]
# A run of positions along an axis that are counted together: atoms, outermost first.
Part = tuple[Atom, ...]
CHANNELS = "channels"
# Rank of the last step alone.
LAST_STEP = 2


@dataclass(frozen=True)
class Axis:
    """One axis of a value.

    Attributes:
        parts: One; several, one after the other, where unlike axes were joined.
    """

    parts: tuple[Part, ...]

    @property
    def length(self) -> int:
        """How many positions it has."""
        return sum(math.prod(size for _, size in part) for part in self.parts)

    @property
    def atoms(self) -> Part:
        """Its atoms, where it is one part."""
        return self.parts[0] if len(self.parts) == 1 else ((_joined_name(self.parts), self.length),)

    def resized(self, length: int) -> "Axis":
        """Return an axis of the same meaning and another length."""
        if length == self.length:
            return self
        if len(self.parts) == 1 and len(self.parts[0]) == 1:
            return axis(self.parts[0][0][0], length)
        return axis(_joined_name(self.parts), length)


Axes = tuple[Axis, ...]


def axis(name: str, length: int) -> Axis:
    """Return an axis of one atom; none where the length is 1, which any side may leave out."""
    return Axis(parts=(((name, length),) if length != 1 else (),))


def _joined_name(parts: Sequence[Part]) -> str:
    """Return one name for an axis of several parts, the same in whatever order their atoms are."""
    return "+".join("*".join(sorted(name for name, _ in part)) or "1" for part in parts)


def permutation(source: Axis, target: Axis) -> NDArray[np.intp] | None:
    """Return where each position of `target` lies along `source`; `None` if they hold unlike atoms.

    >>> chw = Axis(parts=((("c", 2), ("w", 3)),))
    >>> wc = Axis(parts=((("w", 3), ("c", 2)),))
    >>> permutation(chw, wc)
    array([0, 3, 1, 4, 2, 5])
    """
    if len(source.parts) != len(target.parts):
        return None
    moved, start = [], 0
    for ours, theirs in zip(source.parts, target.parts, strict=True):
        order = _atom_order(ours, theirs)
        if order is None:
            return None
        sizes = [size for _, size in ours]
        positions = start + np.arange(math.prod(sizes)).reshape(sizes)
        moved.append(positions.transpose(order).ravel())
        start += math.prod(sizes)
    return np.concatenate(moved) if moved else np.arange(1)


def have_like_atoms(ours: Axes, theirs: Axes) -> bool:
    """Return whether two values are made of the same atoms."""
    atoms = [tuple(atom for one in axes for atom in one.atoms) for axes in (ours, theirs)]
    return _atom_order(atoms[0], atoms[1]) is not None


def _atom_order(source: Part, target: Part) -> list[int] | None:
    """Return the place in `source` of each atom of `target`; equal ones keep their order."""
    free = list(range(len(source)))
    order = []
    for atom in target:
        place = next((i for i in free if source[i] == atom), None)
        if place is None:
            return None
        free.remove(place)
        order.append(place)
    return order if not free else None


def move_value(array: Array, source: Axes, target: Axes, shape: tuple[int, ...]) -> Array | None:
    """Return an array of one side in the axes of the other; `None` where they do not correspond.

    Args:
        array: Of one side.
        source: Its axes.
        target: The axes of the counterpart.
        shape: The counterpart's; lengths of 1 may lie elsewhere.
    """
    if array.size != math.prod(shape):
        return None
    order = _atom_order(
        tuple(atom for one in source for atom in one.atoms),
        tuple(atom for one in target for atom in one.atoms),
    )
    if order is None:
        return _moved_by_shape(array, shape)
    array = _with_parts_like(array, source, target)
    sizes = [size for one in source for _, size in one.atoms]
    if math.prod(sizes) != array.size:
        return _moved_by_shape(array, shape)
    return np.ascontiguousarray(array.reshape(sizes).transpose(order)).reshape(shape)


def _with_parts_like(array: Array, source: Axes, target: Axes) -> Array:
    """Return the array with every joined axis reordered within its parts as the counterpart's."""
    joined = {_joined_name(one.parts): one for one in target if len(one.parts) > 1}
    for place, one in enumerate(source):
        if len(one.parts) > 1 and (other := joined.get(_joined_name(one.parts))) is not None:
            positions = permutation(one, other)
            if positions is not None:
                array = np.take(array, positions, axis=place)
    return array


def _moved_by_shape(array: Array, shape: tuple[int, ...]) -> Array | None:
    """Return the array where the shapes alone leave one way to lay it."""
    if array.shape == shape:
        return array
    if _without_ones(array.shape) == _without_ones(shape):
        return array.reshape(shape)
    if sorted(array.shape) == sorted(shape) and len(set(shape)) == len(shape):
        return array.transpose([array.shape.index(length) for length in shape])
    return None


def _without_ones(shape: Sequence[int]) -> tuple[int, ...]:
    return tuple(length for length in shape if length != 1)


def label_axes(trace: Trace, inputs: Mapping[ValueId, Axes]) -> dict[ValueId, Axes]:
    """Return the axes of every value of a trace.

    Args:
        trace: Of one side.
        inputs: The axes of its inputs.
    """
    labelled = dict(inputs)
    for operation in trace.operations:
        operands = [labelled[value] for value in operation.inputs if value in labelled]
        shapes = [trace.shapes[value] for value in operation.inputs]
        for value in operation.outputs:
            shape = trace.shapes[value]
            call = Call(operation=operation, operands=operands, shapes=shapes, shape=shape)
            axes = RULES.get(operation.kind, _unknown)(call) if operands else None
            labelled[value] = _fitted(axes, shape)
    return labelled


def input_axes(index: int, shape: Sequence[int]) -> Axes:
    """Return the axes of an input, named after it."""
    return tuple(axis(f"input{index}.{place}", length) for place, length in enumerate(shape))


@dataclass(frozen=True, kw_only=True)
class Call:
    """An operation with what it is applied to.

    Attributes:
        operation: The operation.
        operands: Axes of its inputs.
        shapes: Of its inputs.
        shape: Of one output.
    """

    operation: Operation
    operands: list[Axes]
    shapes: list[tuple[int, ...]]
    shape: tuple[int, ...]


Rule = Callable[[Call], Sequence[Axis] | None]


def _fitted(axes: Sequence[Axis] | None, shape: tuple[int, ...]) -> Axes:
    """Return the axes with the value's own lengths; unknown ones are named by their place."""
    if axes is None or len(axes) != len(shape):
        return tuple(axis(f"axis{place}", length) for place, length in enumerate(shape))
    return tuple(one.resized(length) for one, length in zip(axes, shape, strict=True))


def _same(call: Call) -> Sequence[Axis] | None:
    return call.operands[0]


def _new_channels(call: Call) -> Sequence[Axis] | None:
    axes = list(call.operands[0])
    if len(axes) != len(call.shape):
        return None
    place = call.operation.attributes.get("channel_axis", len(call.shape) - 1)
    axes[place] = axis(CHANNELS, call.shape[place])
    return axes


def _recurrent(call: Call) -> Sequence[Axis] | None:
    """Follow steps `(n, t, c)` or `(t, n, c)`, the last step `(n, c)`, or states `(layers, n, c)`.

    An operand without a batch, `(t, c)`, has states `(layers, c)`.
    """
    axes, units = call.operands[0], axis(CHANNELS, call.shape[-1])
    if len(call.shape) == len(call.shapes[0]) and call.shape[:-1] == call.shapes[0][:-1]:
        return (*axes[:-1], units)
    if len(axes) == LAST_STEP:
        return axis("layers", 1), units
    batch = axes[call.operation.attributes.get("batch_axis", 0)]
    return (batch, units) if len(call.shape) == LAST_STEP else (axis("layers", 1), batch, units)


def _appended_channels(call: Call) -> Sequence[Axis] | None:
    return (*call.operands[0], axis(CHANNELS, call.shape[-1]))


def _broadcast(call: Call) -> Sequence[Axis] | None:
    chosen: list[Axis] = []
    for place in range(1, len(call.shape) + 1):
        candidates = [axes[-place] for axes in call.operands if len(axes) >= place]
        chosen.append(
            next((one for one in candidates if one.length == call.shape[-place]), candidates[0])
        )
    return chosen[::-1]


def _reshaped(call: Call) -> Sequence[Axis] | None:
    """Deal the operand's atoms out to the new axes, cutting one where an axis ends within it."""
    if tuple(one.length for one in call.operands[0]) == call.shape:
        return call.operands[0]
    parts = [one.parts for one in call.operands[0]]
    if any(len(part) > 1 for part in parts):
        return _kept_whole(call.operands[0], call.shape)
    left = [atom for (part,) in parts for atom in part]
    axes = []
    for length in call.shape:
        atoms: list[Atom] = []
        missing = length
        while missing > 1:
            if not left:
                return None
            name, size = left.pop(0)
            if missing % size == 0:
                atoms.append((name, size))
                missing //= size
            elif size % missing == 0:
                atoms.append((f"{name}>", missing))
                left.insert(0, (f"{name}<", size // missing))
                missing = 1
            else:
                return None
        axes.append(Axis(parts=(tuple(atoms),)))
    return axes


def _kept_whole(axes: Axes, shape: tuple[int, ...]) -> Sequence[Axis] | None:
    """Return the axes with their ones dropped or added."""
    left = [one for one in axes if one.length != 1]
    if [one.length for one in left] != list(_without_ones(shape)):
        return None
    return [axis("", 1) if length == 1 else left.pop(0) for length in shape]


def _permuted(call: Call) -> Sequence[Axis] | None:
    return [call.operands[0][place] for place in call.operation.attributes["order"]]


def _concatenated(call: Call) -> Sequence[Axis] | None:
    place = call.operation.attributes["axis"]
    if len(call.operands) != len(call.shapes):
        return call.operands[0]
    joined = [axes[place] for axes in call.operands]
    names = {tuple(name for name, _ in one.atoms) for one in joined}
    axes = list(call.operands[0])
    if len(names) == 1 and len(next(iter(names))) <= 1:
        axes[place] = joined[0].resized(call.shape[place])
    else:
        axes[place] = Axis(parts=tuple(part for one in joined for part in one.parts))
    return axes


def _stacked(call: Call) -> Sequence[Axis] | None:
    place = call.operation.attributes["axis"]
    return [*call.operands[0][:place], axis("stack", call.shape[place]), *call.operands[0][place:]]


def _reduced(call: Call) -> Sequence[Axis] | None:
    gone = {place % len(call.operands[0]) for place in call.operation.attributes["axes"]}
    if len(call.shape) == len(call.operands[0]):
        return [axis("", 1) if i in gone else one for i, one in enumerate(call.operands[0])]
    return [one for i, one in enumerate(call.operands[0]) if i not in gone]


def _cut(call: Call) -> Sequence[Axis] | None:
    """Follow a slice: axes that keep their length, in order; cut ones are resized."""
    axes = list(call.operands[0])
    if len(axes) == len(call.shape):
        return axes
    index = call.operation.attributes.get("index")
    if (
        isinstance(index, tuple)
        and Ellipsis not in index
        and all(isinstance(entry, int | slice) for entry in index)
    ):
        whole = [*index, *[slice(None)] * (len(axes) - len(index))]
        return [one for one, entry in zip(axes, whole, strict=True) if isinstance(entry, slice)]
    kept: list[Axis] = []
    for length in call.shape:
        while axes and axes[0].length != length:
            axes.pop(0)
        if not axes:
            return None
        kept.append(axes.pop(0))
    return kept


def _multiplied(call: Call) -> Sequence[Axis] | None:
    left, right = call.operands[0], call.operands[-1]
    if len(left) != len(call.shape):
        return None
    last = right[-1] if len(right) > 1 else axis(CHANNELS, call.shape[-1])
    return [*left[:-1], last]


def _unknown(call: Call) -> Sequence[Axis] | None:
    if (
        len(call.operands) == 1
        and call.shapes[0] != call.shape
        and math.prod(call.shapes[0]) == math.prod(call.shape)
    ):
        return _reshaped(call)
    return call.operands[0] if len(call.operands[0]) == len(call.shape) else None


_ELEMENTWISE = ("add", "subtract", "multiply", "divide", "power", "maximum", "minimum", "where")
_REDUCTIONS = ("mean", "sum", "max", "min", "prod", "var", "std")

RULES: dict[str, Rule] = {
    **dict.fromkeys(("conv", "conv_transpose", "dense", "pixel_shuffle"), _new_channels),
    **dict.fromkeys(("attention", "einsum_dense"), _new_channels),
    **dict.fromkeys(("lstm", "gru", "rnn"), _recurrent),
    "embedding": _appended_channels,
    **dict.fromkeys(_ELEMENTWISE, _broadcast),
    "reshape": _reshaped,
    "permute": _permuted,
    "concat": _concatenated,
    "stack": _stacked,
    **dict.fromkeys(_REDUCTIONS, _reduced),
    **dict.fromkeys(("slice", "split"), _cut),
    "matmul": _multiplied,
    "scaled_dot_product_attention": _multiplied,
}


def axes_of(labelled: Mapping[ValueId, Axes], operation: Operation, place: Any) -> Axis | None:  # noqa: ANN401
    """Return the axis of an operation's first operand at a place; `None` where there is none."""
    if not operation.inputs:
        return None
    axes = labelled[operation.inputs[0]]
    return axes[place] if -len(axes) <= place < len(axes) else None
