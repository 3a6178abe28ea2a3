"""Recurrent layers and attention in Keras: their arrays from PyTorch's, and attention by hand.

What this arranges is what the converter arranges too; it shares no code with it, so that a mistake
there shows here.
"""

from collections.abc import Mapping

import keras
import numpy as np
from keras import ops

from parity.frameworks.pairs.keras_tensors import Part, Tensor
from parity.frameworks.pairs.plan import Array, Node

# keras 3.15.1, GRUCell.call: update, reset, new; torch 2.13.0, nn.GRU: reset, update, new.
_GRU_GATES = (1, 0, 2)


def recurrent_arrays(node: Node, slots: Mapping[str, Array], index: int) -> tuple[Array, ...]:
    """Return kernel, recurrent kernel and bias of each direction of one layer of a stack."""
    directions = ("", "_reverse") if node.settings["bidirectional"] else ("",)
    arrays: list[Array] = []
    for direction in directions:
        suffix = f"_l{index}{direction}"
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        inputs, recurrent, bias, recurrent_bias = (
            _with_gates(node, slots[name + suffix]) for name in names
        )
        has_two = node.kind == "gru" and node.settings.get("reset_after", True)
        biases = np.stack([bias, recurrent_bias]) if has_two else bias + recurrent_bias
        arrays += [inputs.T, recurrent.T, biases]
    return tuple(arrays)


def _with_gates(node: Node, array: Array) -> Array:
    if node.kind == "lstm":
        return array
    gates = np.split(array, 3)
    return np.concatenate([gates[index] for index in _GRU_GATES])


def attention_parts(node: Node, slots: Mapping[str, Array], *, name: str) -> list[Part]:
    """Return Keras's layer, or two dense layers with the product between them."""
    if node.styles.get("keras") == "manual" or node.settings.get("scale") is not None:
        return _attention_by_hand(node, slots, name=name)
    heads, width = node.settings["heads"], len(slots["out_proj.weight"])
    is_causal = node.settings["causal"]
    layer = keras.layers.MultiHeadAttention(heads, width // heads, name=name)
    arrays: list[Array] = []
    kernels = np.split(slots["in_proj_weight"], 3)
    for kernel, bias in zip(kernels, np.split(slots["in_proj_bias"], 3), strict=True):
        arrays += [kernel.T.reshape(width, heads, -1), bias.reshape(heads, -1)]
    arrays += [slots["out_proj.weight"].T.reshape(heads, -1, width), slots["out_proj.bias"]]

    def attend(x: Tensor) -> Tensor:
        return layer(x, x, use_causal_mask=is_causal)

    return [Part(call=layer, arrays=tuple(arrays), invoke=attend, is_main=True)]


def _attention_by_hand(node: Node, slots: Mapping[str, Array], *, name: str) -> list[Part]:
    heads, width = node.settings["heads"], len(slots["out_proj.weight"])
    is_causal, scale = node.settings["causal"], node.settings.get("scale")
    factor = (width // heads) ** -0.5 if scale is None else scale

    def mix(qkv: Tensor) -> Tensor:
        steps = qkv.shape[1]
        parts = ops.split(ops.reshape(qkv, (-1, steps, 3 * heads, width // heads)), 3, axis=2)
        query, key, value = (ops.transpose(part, (0, 2, 1, 3)) for part in parts)
        scores = ops.matmul(query, ops.transpose(key, (0, 1, 3, 2))) * factor
        if is_causal:
            behind = ops.convert_to_tensor(np.tri(steps, dtype=bool))
            scores = ops.where(behind, scores, -1e9)
        mixed = ops.matmul(ops.softmax(scores, axis=-1), value)
        return ops.reshape(ops.transpose(mixed, (0, 2, 1, 3)), (-1, steps, width))

    weights = slots["in_proj_weight"].T, slots["in_proj_bias"]
    out_weights = slots["out_proj.weight"].T, slots["out_proj.bias"]
    return [
        Part(call=keras.layers.Dense(3 * width, name=f"{name}_qkv"), arrays=weights),
        Part(call=mix),
        Part(call=keras.layers.Dense(width, name=name), arrays=out_weights, is_main=True),
    ]
