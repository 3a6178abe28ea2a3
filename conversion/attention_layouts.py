"""How Keras' MultiHeadAttention stores the arrays of PyTorch's.

PyTorch keeps one matrix a projection, its rows the heads one after the other, and packs query, key
and value into `in_proj_weight` where key and value are as wide as the query; their biases are
always packed, in `in_proj_bias`. Keras keeps a kernel `(inputs, heads, key_dim)` and a bias
`(heads, key_dim)` for each of `query`, `key` and `value`, and `attention_output/kernel` `(heads,
value_dim, outputs)`. Both ways are cuts, reshapes and transpositions: no value changes. PyTorch can
hold a layer only if `heads * key_dim`, `heads * value_dim` and the outputs are all as wide as the
query. Imports numpy and `parity.errors` only.

Source: torch 2.13.0, nn.MultiheadAttention.__init__; keras 3.15.1, MultiHeadAttention.build.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parity.errors import ConversionError

Array = NDArray[Any]
Arrays = dict[str, Array]

_PARTS = ("query", "key", "value")
_SEPARATE = ("q_proj_weight", "k_proj_weight", "v_proj_weight")


def to_keras_attention(slots: Mapping[str, Array], *, heads: int) -> Arrays:
    """Return Keras' variables by path below the layer, such as `query/kernel`.

    Args:
        slots: PyTorch's arrays by name in the layer's `state_dict`.
        heads: Number of heads, which PyTorch's arrays do not show.

    Raises:
        ConversionError: If arrays are missing or unknown, or their rows do not divide into heads.
    """
    packed = "in_proj_weight" in slots
    weights = ("in_proj_weight",) if packed else _SEPARATE
    _check_names(slots, (*weights, "out_proj.weight"), ("in_proj_bias", "out_proj.bias"))
    kernels = np.split(slots["in_proj_weight"], 3) if packed else [slots[name] for name in weights]
    output = slots["out_proj.weight"]
    _check_heads([*map(len, kernels), output.shape[1]], heads)
    variables = {
        f"{part}/kernel": _copied(kernel.reshape(heads, -1, kernel.shape[1]).transpose(2, 0, 1))
        for part, kernel in zip(_PARTS, kernels, strict=True)
    }
    variables["attention_output/kernel"] = _copied(output.T.reshape(heads, -1, len(output)))
    if "in_proj_bias" in slots:
        cuts = np.cumsum([len(kernel) for kernel in kernels[:2]])
        for part, bias in zip(_PARTS, np.split(slots["in_proj_bias"], cuts), strict=True):
            variables[f"{part}/bias"] = _copied(bias.reshape(heads, -1))
        variables["attention_output/bias"] = _copied(slots["out_proj.bias"])
    return variables


def to_torch_attention(variables: Mapping[str, Array]) -> Arrays:
    """Return PyTorch's arrays by name in the layer's `state_dict`.

    Raises:
        ConversionError: If arrays are missing or unknown, or PyTorch's layer has no such form.
    """
    kernel_names = tuple(f"{part}/kernel" for part in (*_PARTS, "attention_output"))
    bias_names = tuple(f"{part}/bias" for part in (*_PARTS, "attention_output"))
    _check_names(variables, kernel_names, bias_names)
    *kernels, output = (variables[name] for name in kernel_names)
    width = kernels[0].shape[0]
    wide = [kernel.shape[1] * kernel.shape[2] for kernel in kernels] + [output.shape[2]]
    if set(wide) != {width}:
        message = (
            f"MultiHeadAttention: PyTorch's layer has heads * key_dim, heads * value_dim and "
            f"outputs as wide as the query, {width}; got {wide[0]}, {wide[2]} and {wide[3]}."
        )
        raise ConversionError(message)
    matrices = [_copied(kernel.transpose(1, 2, 0).reshape(width, -1)) for kernel in kernels]
    packed = all(kernel.shape[0] == width for kernel in kernels)
    slots = {"in_proj_weight": np.concatenate(matrices)} if packed else {}
    slots = slots or dict(zip(_SEPARATE, matrices, strict=True))
    slots["out_proj.weight"] = _copied(output.reshape(width, width).T)
    if bias_names[0] in variables:
        parts = [variables[name].reshape(-1) for name in bias_names[:3]]
        slots["in_proj_bias"] = np.concatenate(parts)
        slots["out_proj.bias"] = _copied(variables[bias_names[3]])
    return slots


def _copied(array: Array) -> Array:
    return np.array(array, order="C", copy=True)


def _check_names(
    arrays: Mapping[str, Array], required: tuple[str, ...], optional: tuple[str, ...]
) -> None:
    if set(arrays) not in ({*required}, {*required, *optional}):
        message = (
            f"MultiHeadAttention: expected arrays {', '.join(required)} and, all or none, "
            f"{', '.join(optional)}; got {', '.join(arrays)}."
        )
        raise ConversionError(message)


def _check_heads(rows: list[int], heads: int) -> None:
    if heads < 1 or any(count % heads for count in rows):
        message = (
            f"MultiHeadAttention: expected rows that {heads} heads divide; got "
            f"{', '.join(map(str, rows))}."
        )
        raise ConversionError(message)
