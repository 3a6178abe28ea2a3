"""How each Keras layer kind stores the arrays that PyTorch stores under another name and layout.

Axes are letters: `o i` output and input channels, `h w` kernel rows and columns, `c` channels, `m`
output channels of one input channel, `v e` ids and their vectors. Letters in brackets share one
axis, the first the outermost: `(cm)` counts through `m` for each `c`. `1` is an axis of length 1,
which the other side may lack. A state is kept in PyTorch's names and layout, so only Keras needs a
table. Kinds whose arrays are also cut, reordered or added are in `conversion.recurrent_layouts` and
`conversion.attention_layouts`. Imports numpy and `parity.errors` only.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parity.errors import ConversionError, describe_nearest

Array = NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class SlotLayout:
    """One Keras variable and the slot it holds.

    Attributes:
        slot: PyTorch's name of the array.
        keras_axes: Its axes in Keras.
        torch_axes: Its axes in PyTorch.
    """

    slot: str
    keras_axes: str
    torch_axes: str


def _channel_slot(slot: str) -> SlotLayout:
    return SlotLayout(slot=slot, keras_axes="c", torch_axes="c")


# Keras layer class -> Keras variable -> slot; variables in the order Keras creates and saves them.
# A layer without affine parameters, or without one of the two, leaves out their variables.
# Source: keras 3.15.1, `build` of each layer's class or base class. A separable convolution is two
# of PyTorch's.
LAYOUTS: dict[str, dict[str, SlotLayout]] = {
    "Conv2D": {
        "kernel": SlotLayout(slot="weight", keras_axes="hwio", torch_axes="oihw"),
        "bias": SlotLayout(slot="bias", keras_axes="o", torch_axes="o"),
    },
    "Conv2DTranspose": {
        "kernel": SlotLayout(slot="weight", keras_axes="hwoi", torch_axes="iohw"),
        "bias": SlotLayout(slot="bias", keras_axes="o", torch_axes="o"),
    },
    "DepthwiseConv2D": {
        "kernel": SlotLayout(slot="weight", keras_axes="hwcm", torch_axes="(cm)1hw"),
        "bias": SlotLayout(slot="bias", keras_axes="o", torch_axes="o"),
    },
    "SeparableConv2D": {
        "depthwise_kernel": SlotLayout(
            slot="depthwise.weight", keras_axes="hwcm", torch_axes="(cm)1hw"
        ),
        "pointwise_kernel": SlotLayout(
            slot="pointwise.weight", keras_axes="hwio", torch_axes="oihw"
        ),
        "bias": SlotLayout(slot="pointwise.bias", keras_axes="o", torch_axes="o"),
    },
    "Dense": {
        "kernel": SlotLayout(slot="weight", keras_axes="io", torch_axes="oi"),
        "bias": SlotLayout(slot="bias", keras_axes="o", torch_axes="o"),
    },
    "BatchNormalization": {
        "gamma": _channel_slot("weight"),
        "beta": _channel_slot("bias"),
        "moving_mean": _channel_slot("running_mean"),
        "moving_variance": _channel_slot("running_var"),
    },
    "Dropout": {},
    "Embedding": {
        "embeddings": SlotLayout(slot="weight", keras_axes="ve", torch_axes="ve"),
    },
    # Normalized over the last axis. Over more axes the arrays take the order of the data's axes.
    "LayerNormalization": {"gamma": _channel_slot("weight"), "beta": _channel_slot("bias")},
    "RMSNormalization": {"scale": _channel_slot("weight")},
    "GroupNormalization": {"gamma": _channel_slot("weight"), "beta": _channel_slot("bias")},
    # Of images, with a slope for each channel: shared_axes=[1, 2].
    "PReLU": {"alpha": SlotLayout(slot="weight", keras_axes="11c", torch_axes="c")},
}


def move_axes(
    array: Array, *, source: str, target: str, sizes: Mapping[str, int] | None = None
) -> Array:
    """Return a contiguous copy of `array` with its axes reordered; no value changes.

    Axes named `1` are dropped, and inserted where `target` names them.

    >>> move_axes(np.zeros((3, 5, 2, 4)), source="hwio", target="oihw").shape
    (4, 2, 3, 5)
    >>> move_axes(np.zeros((3, 5, 2, 4)), source="hwcm", target="(cm)1hw").shape
    (8, 1, 3, 5)
    >>> move_axes(np.zeros((8, 1, 3, 5)), source="(cm)1hw", target="hwcm", sizes={"c": 2}).shape
    (3, 5, 2, 4)

    Args:
        array: Of one axis for each letter, bracket or `1` of `source`.
        source: Its axes.
        target: The axes of the copy.
        sizes: Lengths by letter: of all letters but one of each bracket of `source`.

    Raises:
        ConversionError: If `source` and `target` do not hold the same letters once each, the
            array has another number of axes, or a bracket cannot be split.
    """
    lengths = _letter_lengths(array.shape, source=source, target=target, sizes=sizes)
    letters = list(lengths)
    apart = array.reshape(tuple(lengths.values()))
    order = [letters.index(letter) for axis in letters_of(target) for letter in axis]
    moved = apart.transpose(order).reshape(_joined_shape(lengths, target))
    return np.array(moved, order="C", copy=True)


def move_shape(
    shape: tuple[int, ...], *, source: str, target: str, sizes: Mapping[str, int] | None = None
) -> tuple[int, ...]:
    """Return what `move_axes` makes of a shape.

    >>> move_shape((3, 5, 2, 4), source="hwio", target="oihw")
    (4, 2, 3, 5)
    """
    lengths = _letter_lengths(shape, source=source, target=target, sizes=sizes)
    return _joined_shape(lengths, target)


def letters_of(text: str) -> list[str]:
    """Return the letters of each axis of a layout.

    >>> letters_of("(cm)1hw")
    ['cm', '', 'h', 'w']
    """
    return [token.strip("()1") for token in re.findall(r"\(\w+\)|\w", text)]


def _letter_lengths(
    shape: tuple[int, ...], *, source: str, target: str, sizes: Mapping[str, int] | None
) -> dict[str, int]:
    """Return the length of each letter of `source`, in its order."""
    letters = [sorted("".join(letters_of(axes))) for axes in (source, target)]
    if letters[0] != letters[1] or len(set(letters[0])) != len(letters[0]):
        message = (
            f"axes {source!r} to {target!r}: expected the same letters, each once, on both sides."
        )
        raise ConversionError(message)
    axes = letters_of(source)
    if len(shape) != len(axes):
        message = f"expected {len(axes)} axes ({source}); got shape {shape}."
        raise ConversionError(message)
    lengths: dict[str, int] = {}
    for axis, length in zip(axes, shape, strict=True):
        lengths |= _split_length(axis, length, sizes=sizes or {})
    return lengths


def _split_length(axis: str, length: int, *, sizes: Mapping[str, int]) -> dict[str, int]:
    """Return the lengths of the letters that share an axis; one of them follows from the others."""
    if len(axis) == 1:
        return {axis: length}
    known = {letter: sizes[letter] for letter in axis if letter in sizes}
    missing = [letter for letter in axis if letter not in known]
    product = math.prod(known.values())
    rest = length // product if product and len(missing) == 1 else 1
    if len(missing) > 1 or product * rest != length:
        message = (
            f"axis ({axis}) of length {length} cannot be split by sizes {dict(sizes)}."
            if axis
            else f"expected length 1 where an axis is named 1; got {length}."
        )
        raise ConversionError(message)
    return {letter: known.get(letter, rest) for letter in axis}


def _joined_shape(lengths: Mapping[str, int], target: str) -> tuple[int, ...]:
    return tuple(math.prod(lengths[letter] for letter in axis) for axis in letters_of(target))


def keras_variables(kind: str) -> dict[str, SlotLayout]:
    """Return the slots of a Keras layer class by variable name, in the order Keras saves them.

    Raises:
        ConversionError: If the class carries arrays that no slot is known for.
    """
    if kind not in LAYOUTS:
        message = (
            f"Keras layer class {kind!r} has no known layout.{describe_nearest(kind, LAYOUTS)}"
        )
        raise ConversionError(message)
    return LAYOUTS[kind]


def keras_variable(kind: str, slot: str) -> str:
    """Return the Keras variable that holds a slot.

    >>> keras_variable("BatchNormalization", "running_var")
    'moving_variance'

    Raises:
        ConversionError: If the class is unknown or holds no such slot.
    """
    for variable, layout in keras_variables(kind).items():
        if layout.slot == slot:
            return variable
    slots = ", ".join(layout.slot for layout in LAYOUTS[kind].values())
    message = f"Keras layer class {kind!r} holds no slot {slot!r}. Known: {slots}."
    raise ConversionError(message)


def to_torch_layout(kind: str, variable: str, array: Array) -> tuple[str, Array]:
    """Return the slot that a Keras variable holds, and its array in PyTorch's layout.

    Raises:
        ConversionError: If class or variable is unknown, or the array has another number of axes.
    """
    variables = keras_variables(kind)
    if variable not in variables:
        known = ", ".join(variables)
        message = f"Keras layer class {kind!r} holds no variable {variable!r}. Known: {known}."
        raise ConversionError(message)
    layout = variables[variable]
    return layout.slot, move_axes(array, source=layout.keras_axes, target=layout.torch_axes)


def to_keras_layout(
    kind: str, slot: str, array: Array, *, sizes: Mapping[str, int] | None = None
) -> tuple[str, Array]:
    """Return the Keras variable that holds a slot, and its array in Keras' layout.

    Args:
        kind: Keras layer class.
        slot: PyTorch's name of the array.
        array: In PyTorch's layout.
        sizes: Lengths by letter, as `move_axes` takes them, for what PyTorch keeps in one axis and
            Keras in several: the input channels `c` of a depthwise kernel.

    Raises:
        ConversionError: If class or slot is unknown, or the array has another number of axes or
            an axis that cannot be split.
    """
    variable = keras_variable(kind, slot)
    layout = LAYOUTS[kind][variable]
    moved = move_axes(array, source=layout.torch_axes, target=layout.keras_axes, sizes=sizes)
    return variable, moved
