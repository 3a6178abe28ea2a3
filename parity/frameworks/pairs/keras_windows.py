"""Convolutions, pools and resizing in Keras, whose padding is `same`, or none."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from parity.frameworks.pairs.keras_activations import fused_activation
from parity.frameworks.pairs.keras_tensors import Making, Part, Tensor
from parity.frameworks.pairs.plan import Array, Node, Pads, Plan, output_shape, same_pads


def _kernel(weight: Array) -> Array:
    """Return a filter `o i h w` as Keras has it, `h w i o`."""
    return weight.transpose(2, 3, 1, 0)


def _pads_of_same(node: Node, plan: Plan) -> Pads:
    settings = node.settings
    height, width = (
        same_pads(
            size, kernel=kernel, stride=settings["stride"], dilation=settings.get("dilation", 1)
        )
        for size, kernel in zip(plan.shapes()[node.inputs[0]][1:], settings["kernel"], strict=True)
    )
    return height, width


def conv_parts(node: Node, making: Making) -> list[Part]:
    """Return a convolution, with padding="same" or a layer of zeros where it is padded."""
    slots, settings = making.plan.slots(node.name), node.settings
    pads: Pads = settings["padding"]
    is_padded = any(any(pair) for pair in pads)
    mode = settings.get("pad_mode", "zeros")
    is_same = is_padded and mode == "zeros" and pads == _pads_of_same(node, making.plan)
    is_same = is_same and node.styles.get("keras_padding") != "split"
    weight = slots["weight"]
    groups = settings["groups"]
    options: dict[str, Any] = {
        "strides": settings["stride"],
        "padding": "same" if is_same else "valid",
        "dilation_rate": settings["dilation"],
        "use_bias": "bias" in slots,
        "activation": fused_activation(node, making.plan),
        "name": making.name,
    }
    if weight.shape[1] == 1 and groups > 1:
        multiplier = len(weight) // groups
        layer = keras.layers.DepthwiseConv2D(
            settings["kernel"], depth_multiplier=multiplier, **options
        )
        kernel = weight.reshape(groups, multiplier, *weight.shape[2:]).transpose(2, 3, 0, 1)
    else:
        layer = keras.layers.Conv2D(len(weight), settings["kernel"], groups=groups, **options)
        kernel = _kernel(weight)
    main = Part(call=layer, arrays=with_bias(kernel, slots), is_main=True)
    if is_same or not is_padded:
        return [main]
    if mode == "reflect":
        return [Part(call=lambda x: ops.pad(x, [(0, 0), *pads, (0, 0)], mode="reflect")), main]
    return [Part(call=keras.layers.ZeroPadding2D(pads, name=f"{making.name}_pad")), main]


def with_bias(kernel: Array, slots: dict[str, Array]) -> tuple[Array, ...]:
    """Return a kernel, and the bias of the layer if it has one."""
    return (kernel, slots["bias"]) if "bias" in slots else (kernel,)


def conv_transpose_parts(node: Node, making: Making) -> list[Part]:
    """Return a transposed convolution without padding, and what is cropped of it."""
    slots, settings = making.plan.slots(node.name), node.settings
    layer = keras.layers.Conv2DTranspose(
        slots["weight"].shape[1],
        settings["kernel"],
        strides=settings["stride"],
        padding="valid",
        use_bias="bias" in slots,
        name=making.name,
    )
    arrays = with_bias(slots["weight"].transpose(2, 3, 1, 0), slots)
    main = Part(call=layer, arrays=arrays, is_main=True)
    if not any(any(pair) for pair in settings["crop"]):
        return [main]
    return [main, Part(call=keras.layers.Cropping2D(settings["crop"], name=f"{making.name}_crop"))]


def pool_parts(node: Node, making: Making) -> list[Part]:
    """Return a pool, padded beforehand where padding="same" is not what is asked for."""
    settings, plan = node.settings, making.plan
    is_max = node.kind == "max_pool"
    pads = _with_ceil(node, plan)
    is_padded = any(any(pair) for pair in pads)
    fill = settings.get("fill", "lowest" if is_max else "zeros")
    is_ignored = fill == "lowest" if is_max else not settings["counts_padding"]
    is_same = is_padded and is_ignored and pads == _pads_of_same(node, plan)
    kind = keras.layers.MaxPooling2D if is_max else keras.layers.AveragePooling2D
    layer = kind(
        settings["kernel"],
        strides=settings["stride"],
        padding="same" if is_same else "valid",
        name=making.name,
    )
    main = Part(call=layer, is_main=True)
    if is_same or not is_padded:
        return [main]
    if not is_max and is_ignored:
        return [Part(call=_averaging_without_pads(node, pads))]
    if fill == "zeros":
        return [Part(call=keras.layers.ZeroPadding2D(pads, name=f"{making.name}_pad")), main]
    lowest = -np.inf
    pad = Part(call=lambda x: ops.pad(x, [(0, 0), *pads, (0, 0)], constant_values=lowest))
    return [pad, main]


def _with_ceil(node: Node, plan: Plan) -> Pads:
    """Return the pads with what a last, partial window needs on the far sides."""
    shape = plan.shapes()[node.inputs[0]]
    counts = output_shape(node, [shape], weights={})[1:]
    settings = node.settings
    sides = zip(shape[1:], counts, settings["kernel"], settings["padding"], strict=True)
    height, width = (
        (near, max(far, (count - 1) * settings["stride"] + kernel - length - near))
        for length, count, kernel, (near, far) in sides
    )
    return height, width


def _averaging_without_pads(node: Node, pads: Pads) -> Callable[..., Any]:
    """Return an average over the pixels that are inside, as a quotient of two averages."""
    kernel, stride = node.settings["kernel"], node.settings["stride"]

    def average(x: Tensor) -> Tensor:
        widths = [(0, 0), *pads, (0, 0)]
        inside = ops.pad(ops.ones_like(x), widths)
        parts = (ops.average_pool(part, kernel, stride) for part in (ops.pad(x, widths), inside))
        return ops.divide(*parts)

    return average


def resize_parts(node: Node, making: Making) -> list[Part]:
    """Return an upsampling layer."""
    layer = keras.layers.UpSampling2D(
        node.settings["factor"], interpolation=node.settings["mode"], name=making.name
    )
    return [Part(call=layer, is_main=True)]
