"""How each Keras layer kind stores the arrays that PyTorch stores under another name and layout.

Axes are letters: `o i` output and input channels, `h w` kernel rows and columns, `c` channels, `v
e` ids and their vectors; `1` is an axis of length 1, which the other side may lack. A state is kept
in PyTorch's names and layout, so only Keras needs a table. Kinds whose arrays are also cut,
reordered or added are in `conversion.recurrent_layouts` and `conversion.attention_layouts`. Imports
numpy and `parity.errors` only.
"""

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
# Source: keras 3.15.1, `build` of BaseConv, Dense and each layer below.
LAYOUTS: dict[str, dict[str, SlotLayout]] = {
    "Conv2D": {
        "kernel": SlotLayout(slot="weight", keras_axes="hwio", torch_axes="oihw"),
        "bias": SlotLayout(slot="bias", keras_axes="o", torch_axes="o"),
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


def move_axes(array: Array, *, source: str, target: str) -> Array:
    """Return a contiguous copy of `array` with its axes reordered; no value changes.

    Axes named `1` are dropped, and inserted where `target` names them.

    >>> move_axes(np.zeros((3, 5, 2, 4)), source="hwio", target="oihw").shape
    (4, 2, 3, 5)
    >>> move_axes(np.zeros((1, 1, 6)), source="11c", target="c").shape
    (6,)

    Raises:
        ConversionError: If `source` and `target` do not hold the same letters once each, or the
            array has another number of axes, or an axis named `1` is longer.
    """
    letters = source.replace("1", "")
    if sorted(letters) != sorted(target.replace("1", "")) or len(set(letters)) != len(letters):
        message = (
            f"axes {source!r} to {target!r}: expected the same letters, each once, on both sides."
        )
        raise ConversionError(message)
    if array.ndim != len(source):
        message = f"expected {len(source)} axes ({source}); got shape {array.shape}."
        raise ConversionError(message)
    ones = tuple(index for index, axis in enumerate(source) if axis == "1")
    if any(array.shape[index] != 1 for index in ones):
        message = f"expected axes {source}, of length 1 where named 1; got shape {array.shape}."
        raise ConversionError(message)
    order = [letters.index(axis) for axis in target if axis != "1"]
    moved = array.squeeze(ones).transpose(order)
    inserted = tuple(index for index, axis in enumerate(target) if axis == "1")
    return np.array(np.expand_dims(moved, inserted), order="C", copy=True)


def move_shape(shape: tuple[int, ...], *, source: str, target: str) -> tuple[int, ...]:
    """Return what `move_axes` makes of a shape.

    >>> move_shape((3, 5, 2, 4), source="hwio", target="oihw")
    (4, 2, 3, 5)
    """
    return tuple(1 if axis == "1" else shape[source.index(axis)] for axis in target)


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


def to_keras_layout(kind: str, slot: str, array: Array) -> tuple[str, Array]:
    """Return the Keras variable that holds a slot, and its array in Keras' layout.

    Raises:
        ConversionError: If class or slot is unknown, or the array has another number of axes.
    """
    variable = keras_variable(kind, slot)
    layout = LAYOUTS[kind][variable]
    return variable, move_axes(array, source=layout.torch_axes, target=layout.keras_axes)
