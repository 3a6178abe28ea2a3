"""The layers of a recurrent stack, each followed as an operation of its own.

PyTorch keeps several layers in one module where other frameworks stack modules. Layer by layer the
two have the same operations, and what flows between the layers is a value like any other.

Source: torch 2.13.0, torch/nn/modules/rnn.py, RNNBase, for the names and order of the arrays.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  # the name PyTorch's own documentation uses
from torch.nn.utils.rnn import PackedSequence

from parity.frameworks.torch_capture.calls import Call, Following, function_call
from parity.frameworks.torch_capture.structures import Structure

_KINDS: dict[type[nn.Module], str] = {nn.LSTM: "lstm", nn.GRU: "gru", nn.RNN: "rnn"}
# `RNNBase.mode` of the layers whose nonlinearity is a choice.
_PLAIN = ("RNN_TANH", "RNN_RELU")


def is_stack(module: nn.Module) -> bool:
    """Return whether a module is one of torch's recurrent layers, several deep."""
    layer = _layer_of(module)
    if layer is None or module.num_layers == 1:
        return False
    return type(module).forward is layer.forward


def why_whole(
    module: nn.Module, args: tuple[Structure, ...], kwargs: Mapping[str, Structure]
) -> str | None:
    """Return why a call of a stack is followed as one operation, None where its layers are."""
    if isinstance(_operands(args, kwargs)[0], PackedSequence):
        return "its layers are not seen apart, as its sequences are packed."
    if module.proj_size:
        return "its layers are not seen apart, as they project their states."
    if not set(module._flat_weights_names) <= set(dict(module.named_parameters(recurse=False))):
        return "its layers are not seen apart, as their arrays are computed from others."
    return None


def follow_layers(
    module: nn.Module,
    path: str,
    following: Following,
    args: tuple[Structure, ...],
    kwargs: Mapping[str, Structure],
) -> Structure:
    """Make the calls that a call of a stack stands for, and return what it returns.

    Args:
        module: The stack.
        path: Of it; its layers are `<path>.l0`, `<path>.l1` and so on.
        following: Follows the calls.
        args: Of the call.
        kwargs: Of the call.
    """
    sequence, states = _operands(args, kwargs)
    base = _layer_of(module) or type(module)
    ends = []
    for index, layer in enumerate(_single_layers(module, base)):
        if index and module.dropout:
            settings = {"p": module.dropout, "training": module.training}
            sequence = following.make(function_call(F.dropout, (sequence,), settings))
        start = _start(states, index, following, count=_directions(module))
        call = Call(
            function=layer,
            native=f"torch.nn.{base.__name__}",
            name=_KINDS[base],
            module=layer,
            args=(sequence,) if start is None else (sequence, start),
        )
        with following.inside(f"{path}.l{index}" if path else f"l{index}", is_layer=True):
            sequence, end = following.make(call)
        ends.append(end)
    return sequence, _joined(ends, following)


def _operands(
    args: tuple[Structure, ...], kwargs: Mapping[str, Structure]
) -> tuple[Structure, Structure]:
    bound = {**dict(zip(("input", "hx"), args, strict=False)), **kwargs}
    return bound.get("input"), bound.get("hx")


def _directions(module: nn.Module) -> int:
    return 2 if module.bidirectional else 1


def _layer_of(module: nn.Module) -> type[nn.Module] | None:
    return next((layer for layer in _KINDS if isinstance(module, layer)), None)


def _single_layers(module: nn.Module, base: type[nn.Module]) -> Iterator[nn.Module]:
    """Yield the layers of a stack, as modules of one layer that hold the stack's own arrays."""
    options: dict[str, Any] = {"nonlinearity": module.nonlinearity} if module.mode in _PLAIN else {}
    for index in range(module.num_layers):
        layer = base(
            module.hidden_size * _directions(module) if index else module.input_size,
            module.hidden_size,
            bias=module.bias,
            batch_first=module.batch_first,
            bidirectional=module.bidirectional,
            # Its own arrays are never used.
            device="meta",
            **options,
        )
        for name in tuple(layer._flat_weights_names):
            setattr(layer, name, getattr(module, name.replace("_l0", f"_l{index}")))
        yield layer.train(module.training)


def _start(states: Structure, index: int, following: Following, *, count: int) -> Structure:
    """Return the initial states of one layer: `count` rows of those of the stack."""
    if states is None:
        return None
    if isinstance(states, tuple | list):
        return tuple(_start(state, index, following, count=count) for state in states)
    rows = slice(index * count, (index + 1) * count)
    return following.make(function_call(Tensor.__getitem__, (states, rows), {}))


def _joined(ends: list[Structure], following: Following) -> Structure:
    """Return the final states of all layers, as the stack returns them."""
    if isinstance(ends[0], tuple):
        return tuple(_joined(list(parts), following) for parts in zip(*ends, strict=True))
    return following.make(function_call(torch.cat, (ends, 0), {}))
