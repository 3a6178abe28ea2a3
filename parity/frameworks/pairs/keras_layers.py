"""Every kind of node as Keras writes it, channels last: layers and functions, one after the other.

A part's arrays are in the order of its layer's `weights`.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import keras
from keras import ops

from parity.frameworks.pairs.keras_activations import (
    activation_parts,
    fused_activation,
    softmax_parts,
)
from parity.frameworks.pairs.keras_recurrent import attention_parts, recurrent_arrays
from parity.frameworks.pairs.keras_tensors import (
    Bias,
    EmbeddedPositions,
    FixedDropout,
    FrozenBatchNormalization,
    Making,
    Part,
    Positions,
)
from parity.frameworks.pairs.keras_windows import (
    conv_parts,
    conv_transpose_parts,
    pool_parts,
    resize_parts,
    with_bias,
)
from parity.frameworks.pairs.plan import Node


class Builder(Protocol):
    """What makes the parts of a node."""

    def __call__(self, node: Node, making: Making) -> list[Part]:
        """Return the parts in the order of their calls."""


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
        activation=fused_activation(node, plan),
        name=making.name,
    )
    return [Part(call=layer, arrays=with_bias(weight.T, slots), is_main=True)]


def _is_reordered(node: Node) -> bool:
    return node.settings["order"] == "nchw" and node.styles.get("keras") == "reordered"


def _flatten(node: Node, making: Making) -> list[Part]:
    shape = making.plan.shapes()[node.inputs[0]]
    main = Part(call=keras.layers.Flatten(name=making.name), is_main=True)
    is_plain = math.prod(shape[1:]) == 1 or shape[0] == 1 or node.settings["order"] == "nhwc"
    if is_plain or _is_reordered(node):
        return [main]
    return [Part(call=keras.layers.Permute((3, 1, 2), name=f"{making.name}_permute")), main]


def _batch_norm_class(settings: Mapping[str, Any]) -> type[keras.layers.BatchNormalization]:
    from models_keras.layers import BatchNormalization

    if settings.get("frozen"):
        return FrozenBatchNormalization
    return keras.layers.BatchNormalization if settings.get("biased") else BatchNormalization


def _batch_norm(node: Node, making: Making) -> list[Part]:
    """Store the unbiased variance, as PyTorch does; stock Keras, a fault here, the biased one."""
    slots, settings = making.plan.slots(node.name), node.settings
    kind = _batch_norm_class(settings)
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


def _dropout(node: Node, making: Making) -> list[Part]:
    rate = node.settings["rate"]
    if making.fixed_dropout:
        layer = FixedDropout(rate, seed=making.plan.seed, key=node.name, name=making.name)
        return [Part(call=layer, is_main=True)]
    return [Part(call=keras.layers.Dropout(rate, name=making.name), is_main=True)]


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
    "conv": conv_parts,
    "conv_transpose": conv_transpose_parts,
    "dense": _dense,
    "batch_norm": _batch_norm,
    "layer_norm": _layer_norm,
    "group_norm": _group_norm,
    "embedding": _embedding,
    "position": _position,
    "activation": activation_parts,
    "softmax": softmax_parts,
    "dropout": _dropout,
    "max_pool": pool_parts,
    "avg_pool": pool_parts,
    "reduce": _reduce,
    "take_step": _take_step,
    "flatten": _flatten,
    "concat": _concat,
    "resize": resize_parts,
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
