"""Every kind of node as Keras writes it, channels last: layers and functions, one after the other.

A part's arrays are in the order of its layer's `weights`.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import keras
import numpy as np
from keras import ops

from parity.frameworks.pairs.keras_recurrent import attention_parts, recurrent_arrays
from parity.frameworks.pairs.keras_tensors import (
    Bias,
    EmbeddedPositions,
    FixedDropout,
    FrozenBatchNormalization,
    Part,
    Positions,
    Tensor,
)
from parity.frameworks.pairs.plan import Array, Node, Pads, Plan, output_shape, same_pads


@dataclass(frozen=True, kw_only=True)
class Making:
    """What a builder of parts is told.

    Attributes:
        plan: That the node is in.
        name: Of its main layer; others carry a word behind it.
        fixed_dropout: Whether dropouts keep what the plan's seed says.
    """

    plan: Plan
    name: str
    fixed_dropout: bool


class Builder(Protocol):
    """What makes the parts of a node."""

    def __call__(self, node: Node, making: Making) -> list[Part]:
        """Return the parts in the order of their calls."""


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


def _fused_activation(node: Node, plan: Plan) -> Callable[..., Any] | None:
    """Return the activation that the layer applies itself, where its style is to."""
    consumers = plan.consumers(node.name)
    if node.styles.get("keras") != "fused" or len(consumers) != 1:
        return None
    (consumer,) = consumers
    if consumer.kind != "activation" or consumer.group != node.group:
        return None
    return activation_function(consumer)


def _conv(node: Node, making: Making) -> list[Part]:
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
        "activation": _fused_activation(node, making.plan),
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
    main = Part(call=layer, arrays=_with_bias(kernel, slots), is_main=True)
    if is_same or not is_padded:
        return [main]
    if mode == "reflect":
        return [Part(call=lambda x: ops.pad(x, [(0, 0), *pads, (0, 0)], mode="reflect")), main]
    return [Part(call=keras.layers.ZeroPadding2D(pads, name=f"{making.name}_pad")), main]


def _with_bias(kernel: Array, slots: dict[str, Array]) -> tuple[Array, ...]:
    return (kernel, slots["bias"]) if "bias" in slots else (kernel,)


def _conv_transpose(node: Node, making: Making) -> list[Part]:
    slots, settings = making.plan.slots(node.name), node.settings
    layer = keras.layers.Conv2DTranspose(
        slots["weight"].shape[1],
        settings["kernel"],
        strides=settings["stride"],
        padding="valid",
        use_bias="bias" in slots,
        name=making.name,
    )
    arrays = _with_bias(slots["weight"].transpose(2, 3, 1, 0), slots)
    main = Part(call=layer, arrays=arrays, is_main=True)
    if not any(any(pair) for pair in settings["crop"]):
        return [main]
    return [main, Part(call=keras.layers.Cropping2D(settings["crop"], name=f"{making.name}_crop"))]


def _dense(node: Node, making: Making) -> list[Part]:
    plan = making.plan
    slots = plan.slots(node.name)
    weight = slots["weight"]
    source = next((other for other in plan.nodes if other.name == node.inputs[0]), None)
    if source is not None and source.kind == "flatten" and _is_reordered(source):
        channels, height, width = plan.shapes()[source.inputs[0]]
        image = weight.reshape(-1, channels, height, width)
        weight = image.transpose(0, 2, 3, 1).reshape(weight.shape)
    layer = keras.layers.Dense(
        len(weight),
        use_bias="bias" in slots,
        activation=_fused_activation(node, plan),
        name=making.name,
    )
    return [Part(call=layer, arrays=_with_bias(weight.T, slots), is_main=True)]


def _is_reordered(node: Node) -> bool:
    return node.settings["order"] == "nchw" and node.styles.get("keras") == "reordered"


def _flatten(node: Node, making: Making) -> list[Part]:
    shape = making.plan.shapes()[node.inputs[0]]
    main = Part(call=keras.layers.Flatten(name=making.name), is_main=True)
    is_plain = math.prod(shape[1:]) == 1 or shape[0] == 1 or node.settings["order"] == "nhwc"
    if is_plain or _is_reordered(node):
        return [main]
    return [Part(call=keras.layers.Permute((3, 1, 2), name=f"{making.name}_permute")), main]


def _batch_norm(node: Node, making: Making) -> list[Part]:
    slots, settings = making.plan.slots(node.name), node.settings
    is_frozen = bool(settings.get("frozen"))
    kind = FrozenBatchNormalization if is_frozen else keras.layers.BatchNormalization
    layer = kind(momentum=settings["stats_decay"], epsilon=settings["epsilon"], name=making.name)
    names = ("weight", "bias", "running_mean", "running_var")
    return [Part(call=layer, arrays=tuple(slots[name] for name in names), is_main=True)]


def _layer_norm(node: Node, making: Making) -> list[Part]:
    slots, epsilon = making.plan.slots(node.name), node.settings["epsilon"]
    weight, bias = slots["weight"], slots["bias"]
    if not node.settings.get("uncentred"):
        layer = keras.layers.LayerNormalization(epsilon=epsilon, name=making.name)
        return [Part(call=layer, arrays=(weight, bias), is_main=True)]
    layer = keras.layers.RMSNormalization(epsilon=epsilon, name=making.name)
    shift = Bias(name=f"{making.name}_shift")
    return [Part(call=layer, arrays=(weight,), is_main=True), Part(call=shift, arrays=(bias,))]


def _group_norm(node: Node, making: Making) -> list[Part]:
    slots, settings = making.plan.slots(node.name), node.settings
    layer = keras.layers.GroupNormalization(
        settings["groups"], epsilon=settings["epsilon"], name=making.name
    )
    return [Part(call=layer, arrays=(slots["weight"], slots["bias"]), is_main=True)]


def _embedding(node: Node, making: Making) -> list[Part]:
    weight = making.plan.slots(node.name)["weight"]
    layer = keras.layers.Embedding(*weight.shape, name=making.name)
    return [Part(call=layer, arrays=(weight,), is_main=True)]


def _position(node: Node, making: Making) -> list[Part]:
    weight = making.plan.slots(node.name)["weight"]
    kind = EmbeddedPositions if node.styles.get("keras") == "embedded" else Positions
    layer = kind(*weight.shape, name=making.name)
    return [Part(call=layer, arrays=(weight,), is_main=True)]


def _gelu(*, approximate: bool) -> Callable[..., Any]:
    def gelu(x: Tensor) -> Tensor:
        return keras.activations.gelu(x, approximate=approximate)

    return gelu


def activation_function(node: Node) -> Callable[..., Any]:
    """Return the function of an activation's node, as `activation=` takes it."""
    settings = node.settings
    parametric: dict[str, Callable[[], Callable[..., Any]]] = {
        "leaky_relu": lambda: lambda x: keras.activations.leaky_relu(x, settings["slope"]),
        "elu": lambda: lambda x: keras.activations.elu(x, settings["alpha"]),
        "gelu": lambda: _gelu(approximate=settings["approximate"]),
        "identity": lambda: keras.activations.linear,
    }
    name = settings["function"]
    if name in parametric:
        return parametric[name]()
    function: Callable[..., Any] = keras.activations.get(name)
    return function


def _tensor_function(name: str, settings: Mapping[str, Any]) -> Callable[..., Any]:
    options = {
        "leaky_relu": {"negative_slope": settings.get("slope")},
        "elu": {"alpha": settings.get("alpha")},
        "gelu": {"approximate": settings.get("approximate")},
    }.get(name, {})
    if name == "identity":
        return lambda x: x
    function = getattr(ops, name)
    return lambda x: function(x, **options)


def _activation(node: Node, making: Making) -> list[Part]:
    source = next((other for other in making.plan.nodes if other.name == node.inputs[0]), None)
    if source is not None and _fused_activation(source, making.plan):
        return []
    name, settings = node.settings["function"], node.settings
    if node.styles.get("keras") == "functional":
        return [Part(call=_tensor_function(name, settings))]
    classes: dict[str, Callable[[], Any]] = {
        "relu": lambda: keras.layers.ReLU(name=making.name),
        "relu6": lambda: keras.layers.ReLU(max_value=6.0, name=making.name),
        "leaky_relu": lambda: keras.layers.LeakyReLU(
            negative_slope=settings["slope"], name=making.name
        ),
        "elu": lambda: keras.layers.ELU(alpha=settings["alpha"], name=making.name),
    }
    default = lambda: keras.layers.Activation(activation_function(node), name=making.name)  # noqa: E731  # as the rows above
    return [Part(call=classes.get(name, default)(), is_main=True)]


def _softmax(node: Node, making: Making) -> list[Part]:
    axis = node.settings["axis"]
    if node.styles.get("keras") == "functional":
        return [Part(call=lambda x: ops.softmax(x, axis=axis))]
    return [Part(call=keras.layers.Softmax(axis=axis, name=making.name), is_main=True)]


def _dropout(node: Node, making: Making) -> list[Part]:
    rate = node.settings["rate"]
    if making.fixed_dropout:
        layer = FixedDropout(rate, seed=making.plan.seed, key=node.name, name=making.name)
        return [Part(call=layer, is_main=True)]
    return [Part(call=keras.layers.Dropout(rate, name=making.name), is_main=True)]


def _pool(node: Node, making: Making) -> list[Part]:
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


def _reduce(node: Node, making: Making) -> list[Part]:
    settings = node.settings
    is_max, keepdims = settings["function"] == "max", bool(settings.get("keepdims"))
    is_image = len(making.plan.shapes()[node.inputs[0]]) == 3
    if node.styles.get("keras") == "functional":
        function, axes = (ops.max if is_max else ops.mean), (1, 2) if is_image else 1
        return [Part(call=lambda x: function(x, axis=axes, keepdims=keepdims))]
    classes = {
        (True, True): keras.layers.GlobalMaxPooling2D,
        (True, False): keras.layers.GlobalAveragePooling2D,
        (False, True): keras.layers.GlobalMaxPooling1D,
        (False, False): keras.layers.GlobalAveragePooling1D,
    }
    layer = classes[is_image, is_max](keepdims=keepdims, name=making.name)
    return [Part(call=layer, is_main=True)]


def _concat(node: Node, making: Making) -> list[Part]:
    if node.styles.get("keras") == "functional":
        return [Part(call=lambda *xs: ops.concatenate(xs, axis=-1))]
    layer = keras.layers.Concatenate(name=making.name)
    return [Part(call=layer, invoke=lambda *xs: layer(list(xs)), is_main=True)]


def _resize(node: Node, making: Making) -> list[Part]:
    layer = keras.layers.UpSampling2D(
        node.settings["factor"], interpolation=node.settings["mode"], name=making.name
    )
    return [Part(call=layer, is_main=True)]


def _recurrent(node: Node, making: Making) -> list[Part]:
    """Stack layers, each of one or two directions, and take what is asked for."""
    settings, slots = node.settings, making.plan.slots(node.name)
    parts = []
    for index in range(settings["layers"]):
        is_last = index == settings["layers"] - 1
        name = making.name if is_last else f"{making.name}_below{index}"
        options: dict[str, Any] = {
            "return_sequences": not is_last or settings["take"] != "end",
            "name": f"{name}_cell" if settings["bidirectional"] else name,
        }
        if settings.get("hard_gates"):
            options["recurrent_activation"] = "hard_sigmoid"
        if node.kind == "gru":
            options["reset_after"] = settings.get("reset_after", True)
        kind = keras.layers.LSTM if node.kind == "lstm" else keras.layers.GRU
        layer = kind(settings["units"], **options)
        if settings["bidirectional"]:
            layer = keras.layers.Bidirectional(layer, name=name)
        arrays = recurrent_arrays(node, slots, index)
        parts.append(Part(call=layer, arrays=arrays, is_main=is_last))
    step = {"last_step": -1, "first_step": 0}.get(settings["take"])
    if step is not None:
        parts.append(Part(call=lambda x: x[:, step]))
    if settings.get("swaps_directions"):
        units = settings["units"]
        parts.append(
            Part(call=lambda x: ops.concatenate([x[..., units:], x[..., :units]], axis=-1))
        )
    return parts


def _attention(node: Node, making: Making) -> list[Part]:
    return attention_parts(node, making.plan.slots(node.name), name=making.name)


def _arithmetic(layer_class: Any, function: Callable[..., Any]) -> Builder:  # noqa: ANN401  # a class of Keras
    def build(node: Node, making: Making) -> list[Part]:
        if node.styles.get("keras") == "functional":
            return [Part(call=function)]
        layer = layer_class(name=making.name)
        return [Part(call=layer, invoke=lambda *xs: layer(list(xs)), is_main=True)]

    return build


def _function(call: Callable[..., Any]) -> Builder:
    def build(node: Node, making: Making) -> list[Part]:
        del node, making
        return [Part(call=call)]

    return build


def _scale_gradient(node: Node, making: Making) -> list[Part]:
    del making
    factor = node.settings["factor"]
    return [Part(call=lambda x: x * factor + ops.stop_gradient(x * (1.0 - factor)))]


def _scale(node: Node, making: Making) -> list[Part]:
    factor = node.settings["factor"]
    return [Part(call=keras.layers.Rescaling(factor, name=making.name), is_main=True)]


def _take_step(node: Node, making: Making) -> list[Part]:
    del making
    index = node.settings["index"]
    return [Part(call=lambda x: x[:, index])]


PARTS: dict[str, Builder] = {
    "conv": _conv,
    "conv_transpose": _conv_transpose,
    "dense": _dense,
    "batch_norm": _batch_norm,
    "layer_norm": _layer_norm,
    "group_norm": _group_norm,
    "embedding": _embedding,
    "position": _position,
    "activation": _activation,
    "softmax": _softmax,
    "dropout": _dropout,
    "max_pool": _pool,
    "avg_pool": _pool,
    "reduce": _reduce,
    "take_step": _take_step,
    "flatten": _flatten,
    "concat": _concat,
    "resize": _resize,
    "lstm": _recurrent,
    "gru": _recurrent,
    "attention": _attention,
    "add": _arithmetic(keras.layers.Add, lambda left, right: left + right),
    "multiply": _arithmetic(keras.layers.Multiply, lambda left, right: left * right),
    "detach": _function(ops.stop_gradient),
    "scale_gradient": _scale_gradient,
    "scale": _scale,
    "reverse_batch": _function(lambda x: ops.flip(x, axis=0)),
    "reverse_time": _function(lambda x: ops.flip(x, axis=1)),
}
