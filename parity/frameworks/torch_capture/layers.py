"""Readers of what has weights: convolutions, products, norms, recurrent layers and attention."""

import functools
from typing import TypeVar

import torch
from torch import Tensor

from parity.frameworks.torch_capture.calls import Call
from parity.frameworks.torch_capture.described import Described, Reader, present, spread

Number = TypeVar("Number")

# Axes of space of a kernel; a convolution over one axis calls it `w`.
_SPACE = {1: "w", 2: "hw", 3: "dhw"}


def _conv(call: Call, outputs: list[Tensor], *, count: int) -> Described:
    del outputs
    a = call.bind("input weight bias stride padding dilation groups")
    dilation = spread(_or(a.dilation, 1), count)
    return Described(
        kind="conv",
        operands=(a.input,),
        weights=present(weight=a.weight, bias=a.bias),
        layouts={"weight": f"oi{_SPACE[count]}"},
        attributes={
            "channel_axis": a.input.dim() - count - 1,
            "stride": spread(_or(a.stride, 1), count),
            "padding": _conv_padding(_or(a.padding, 0), tuple(a.weight.shape[2:]), dilation),
            "dilation": dilation,
            "groups": _or(a.groups, 1),
        },
    )


def _conv_padding(
    padding: str | int | tuple[int, ...], kernel: tuple[int, ...], dilation: tuple[int, ...]
) -> tuple[tuple[int, int], ...]:
    if padding == "valid":
        padding = 0
    if padding == "same":
        # Source: torch 2.13.0, nn/modules/conv.py, _ConvNd.__init__: the odd one is at the end.
        totals = [each * (size - 1) for each, size in zip(dilation, kernel, strict=True)]
        return tuple((total // 2, total - total // 2) for total in totals)
    return tuple((each, each) for each in spread(padding, len(kernel)))  # type: ignore[arg-type]


def _conv_transpose(call: Call, outputs: list[Tensor], *, count: int) -> Described:
    del outputs
    a = call.bind("input weight bias stride padding output_padding groups dilation")
    return Described(
        kind="conv_transpose",
        operands=(a.input,),
        weights=present(weight=a.weight, bias=a.bias),
        layouts={"weight": f"io{_SPACE[count]}"},
        attributes={
            "channel_axis": a.input.dim() - count - 1,
            "stride": spread(_or(a.stride, 1), count),
            "padding": tuple((p, p) for p in spread(_or(a.padding, 0), count)),
            "output_padding": spread(_or(a.output_padding, 0), count),
            "dilation": spread(_or(a.dilation, 1), count),
            "groups": _or(a.groups, 1),
        },
    )


def _linear(call: Call, outputs: list[Tensor]) -> Described:
    del outputs
    a = call.bind("input weight bias")
    return Described(
        kind="dense",
        operands=(a.input,),
        weights=present(weight=a.weight, bias=a.bias),
        layouts={"weight": "oi"},
        attributes={"channel_axis": a.input.dim() - 1},
    )


def _embedding(call: Call, outputs: list[Tensor]) -> Described:
    del outputs
    # `torch.embedding` takes them the other way round.
    order = "weight input" if call.native == "torch.embedding" else "input weight"
    a = call.bind(order)
    return Described(
        kind="embedding",
        operands=(a.input,),
        weights={"weight": a.weight},
        layouts={"weight": "ve"},
    )


def _batch_norm(call: Call, outputs: list[Tensor]) -> Described:
    del outputs
    names = (
        "input weight bias running_mean running_var"
        if call.native == "torch.batch_norm"
        else "input running_mean running_var weight bias"
    )
    a = call.bind(f"{names} training momentum eps")
    return Described(
        kind="batch_norm",
        operands=(a.input,),
        weights=present(
            weight=a.weight, bias=a.bias, running_mean=a.running_mean, running_var=a.running_var
        ),
        attributes={
            "channel_axis": 1,
            "epsilon": _or(a.eps, 1e-5),
            "stats_decay": 1 - _or(a.momentum, 0.1),
        },
    )


def _instance_norm(call: Call, outputs: list[Tensor]) -> Described | None:
    del outputs
    a = call.bind("input running_mean running_var weight bias use_input_stats momentum eps")
    if a.running_mean is not None:
        return None
    channels = int(a.input.shape[1])
    return _grouped(a.input, a.weight, a.bias, groups=channels, epsilon=_or(a.eps, 1e-5))


def _group_norm(call: Call, outputs: list[Tensor]) -> Described:
    del outputs
    a = call.bind("input num_groups weight bias eps")
    return _grouped(a.input, a.weight, a.bias, groups=a.num_groups, epsilon=_or(a.eps, 1e-5))


def _grouped(
    tensor: Tensor, weight: Tensor | None, bias: Tensor | None, *, groups: int, epsilon: float
) -> Described:
    return Described(
        kind="group_norm",
        operands=(tensor,),
        weights=present(weight=weight, bias=bias),
        attributes={"channel_axis": 1, "groups": groups, "epsilon": epsilon},
    )


def _layer_norm(call: Call, outputs: list[Tensor]) -> Described:
    del outputs
    a = call.bind("input normalized_shape weight bias eps")
    return Described(
        kind="layer_norm",
        operands=(a.input,),
        weights=present(weight=a.weight, bias=a.bias),
        attributes={"axes": _last(a.input, a.normalized_shape), "epsilon": _or(a.eps, 1e-5)},
    )


def _rms_norm(call: Call, outputs: list[Tensor]) -> Described:
    del outputs
    a = call.bind("input normalized_shape weight eps")
    epsilon = torch.finfo(a.input.dtype).eps if a.eps is None else a.eps
    return Described(
        kind="rms_norm",
        operands=(a.input,),
        weights=present(weight=a.weight),
        attributes={"axes": _last(a.input, a.normalized_shape), "epsilon": epsilon},
    )


def _prelu(call: Call, outputs: list[Tensor]) -> Described:
    del outputs
    a = call.bind("input weight")
    return Described(
        kind="prelu",
        operands=(a.input,),
        weights={"weight": a.weight},
        attributes={"channel_axis": min(1, a.input.dim() - 1)},
    )


def _recurrent(call: Call, outputs: list[Tensor]) -> Described | None:
    del outputs
    module = call.module
    if module is None:
        return None
    attributes = {
        "units": module.hidden_size,
        "layers": module.num_layers,
        "bidirectional": module.bidirectional,
        "batch_axis": 0 if module.batch_first else 1,
    }
    if call.name == "gru":
        attributes["reset_after"] = True
    if call.name == "rnn":
        attributes["activation"] = module.nonlinearity
    return _whole(call, attributes)


def _attention(call: Call, outputs: list[Tensor]) -> Described | None:
    del outputs
    return None if call.module is None else _whole(call, {"heads": call.module.num_heads})


def _attention_function(call: Call, outputs: list[Tensor]) -> Described | None:
    del outputs
    a = call.bind(
        "query key value embed_dim_to_check num_heads in_proj_weight in_proj_bias bias_k bias_v "
        "add_zero_attn dropout_p out_proj_weight out_proj_bias"
    )
    if a.add_zero_attn or a.bias_k is not None or a.bias_v is not None:
        return None
    separate = {
        name: call.kwargs.get(name) for name in ("q_proj_weight", "k_proj_weight", "v_proj_weight")
    }
    weights = present(
        in_proj_weight=a.in_proj_weight,
        **separate,
        in_proj_bias=a.in_proj_bias,
        **{"out_proj.weight": a.out_proj_weight, "out_proj.bias": a.out_proj_bias},
    )
    return Described(
        kind="attention",
        operands=(a.query, a.key, a.value),
        weights=weights,
        attributes={"heads": a.num_heads},
    )


def _any_layer(call: Call, outputs: list[Tensor]) -> Described | None:
    del outputs
    return _whole(call, {})


def _opaque(call: Call, outputs: list[Tensor]) -> Described:
    del outputs
    return _whole(call, {}) or Described(kind="opaque", operands=tuple(call.tensors))


def _whole(call: Call, attributes: dict[str, object]) -> Described | None:
    """Return a layer with all its arrays, by the names that it gives them."""
    if call.module is None:
        return None
    arrays = dict(call.module.named_parameters()) | dict(call.module.named_buffers())
    return Described(
        kind=call.name,
        operands=tuple(call.tensors),
        weights=arrays,
        attributes=attributes,
    )


def _last(tensor: Tensor, shape: tuple[int, ...] | list[int]) -> tuple[int, ...]:
    return tuple(range(tensor.dim() - len(shape), tensor.dim()))


def _or(value: Number | None, default: Number) -> Number:
    return default if value is None else value


LAYER_READERS: dict[str, Reader] = {
    **{f"conv{count}d": functools.partial(_conv, count=count) for count in _SPACE},
    **{
        f"conv_transpose{count}d": functools.partial(_conv_transpose, count=count)
        for count in _SPACE
    },
    "linear": _linear,
    "embedding": _embedding,
    "batch_norm": _batch_norm,
    "instance_norm": _instance_norm,
    "group_norm": _group_norm,
    "layer_norm": _layer_norm,
    "rms_norm": _rms_norm,
    "prelu": _prelu,
    "lstm": _recurrent,
    "gru": _recurrent,
    "rnn": _recurrent,
    "attention": _attention,
    "multi_head_attention_forward": _attention_function,
    "lstm_cell": _any_layer,
    "gru_cell": _any_layer,
    "rnn_cell": _any_layer,
    "opaque": _opaque,
}
