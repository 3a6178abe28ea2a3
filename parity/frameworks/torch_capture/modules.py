"""The layers of a model while it is followed: which are one operation, and where calls come from.

Each module's `forward` is replaced for the length of a context, so a call of it is seen however it
is made. Functions of `torch.autograd` are no functions of torch: their `forward` is replaced too.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.utils.checkpoint
from torch import nn
from torch.autograd import Function

from parity.frameworks.torch_capture.calls import Call, Following
from parity.frameworks.torch_capture.recurrent import follow_layers, is_stack, why_whole
from parity.frameworks.torch_capture.structures import Structure

# Layers that are followed as one operation, with the kind of each.
WHOLE_LAYERS: dict[type[nn.Module], str] = {
    nn.LSTM: "lstm",
    nn.GRU: "gru",
    nn.RNN: "rnn",
    nn.LSTMCell: "lstm_cell",
    nn.GRUCell: "gru_cell",
    nn.RNNCell: "rnn_cell",
    nn.MultiheadAttention: "attention",
}


def is_opaque(module: nn.Module) -> bool:
    """Return whether nothing can be followed within: a compiled or scripted module."""
    compiled = hasattr(module, "_orig_mod") and hasattr(module, "dynamo_ctx")
    return compiled or isinstance(module, torch.jit.ScriptModule)


def whole_kind(module: nn.Module) -> str | None:
    """Return the kind of a layer that is one operation, None of any other."""
    if is_opaque(module):
        return "opaque"
    return next((kind for base, kind in WHOLE_LAYERS.items() if isinstance(module, base)), None)


def dropout_within(module: nn.Module) -> float:
    """Return the rate of what a layer that is one operation drops between or within its parts."""
    return 0.0 if is_opaque(module) else float(getattr(module, "dropout", 0.0))


@contextlib.contextmanager
def followed_modules(root: nn.Module, following: Following) -> Iterator[None]:
    """Tell `following` of every call of a layer."""
    replaced: list[tuple[nn.Module, Any]] = []
    opaque: list[str] = []
    try:
        for path, module in root.named_modules():
            if any(path.startswith(prefix) for prefix in opaque):
                continue
            if is_opaque(module):
                opaque.append(f"{path}." if path else "")
            replaced.append((module, module.__dict__.get("forward")))
            module.__dict__["forward"] = _followed_forward(path, module, following)
        yield
    finally:
        for module, own in replaced:
            if own is None:
                del module.__dict__["forward"]
            else:
                module.__dict__["forward"] = own


@contextlib.contextmanager
def reading_autograd_functions(following: Following) -> Iterator[None]:
    """Tell `following` of every call of a function with a backward of its own.

    A recomputation in the backward pass would compute the values anew that a run has replaced, so
    `torch.utils.checkpoint` keeps what it calls.
    """
    replaced: list[tuple[object, str, object]] = []

    def replace(owner: object, name: str, value: object) -> None:
        replaced.append((owner, name, owner.__dict__[name]))
        setattr(owner, name, value)

    try:
        replace(torch.utils.checkpoint, "_checkpoint_without_reentrant_generator", _nothing_saved)
        replace(torch.utils.checkpoint, "CheckpointFunction", _CalledFunction)
        replace(Function, "apply", _resolved_apply(Function.__dict__["apply"].__func__, following))
        for function in _user_functions(Function):
            replace(function, "forward", _followed_function(function, following))
        yield
    finally:
        for owner, name, value in reversed(replaced):
            setattr(owner, name, value)


class _CalledFunction:
    """Stands in for a checkpoint: calls its function."""

    @staticmethod
    def apply(function: Callable[..., Any], preserve: object, *args: Structure) -> Structure:
        """Call `function`; torch hands it and its settings over as arguments."""
        del preserve
        return function(*args)


def _nothing_saved(*args: Structure, **kwargs: Structure) -> Iterator[None]:
    del args, kwargs
    yield


def _followed_forward(path: str, module: nn.Module, following: Following) -> Callable[..., Any]:
    forward = module.forward
    kind = whole_kind(module)
    is_layer = kind is not None or _is_torch_layer(module)

    def whole(*args: Structure, **kwargs: Structure) -> Structure:
        with _nothing_dropped(module):
            return forward(*args, **kwargs)

    def follow(*args: Structure, **kwargs: Structure) -> Structure:
        reason = why_whole(module, args, kwargs) if is_stack(module) else None
        has_parts = is_stack(module) and reason is None
        with following.inside(path, is_layer=is_layer and not has_parts):
            if kind is None:
                return forward(*args, **kwargs)
            if has_parts:
                with torch._C.DisableTorchFunction():
                    return follow_layers(module, path, following, args, kwargs)
            if reason is not None:
                following.note(reason)
            name = _class_name(module)
            native = name if kind == "opaque" else f"torch.nn.{name}"
            call = Call(
                function=whole, native=native, name=kind, module=module, args=args, kwargs=kwargs
            )
            with torch._C.DisableTorchFunction():
                return following.make(call)

    return follow


def _class_name(module: nn.Module) -> str:
    inner = getattr(module, "_orig_mod", module)
    return str(getattr(inner, "original_name", type(inner).__name__))


def _is_torch_layer(module: nn.Module) -> bool:
    bases = [
        base
        for base in type(module).__mro__
        if base.__module__.startswith("torch.nn.modules.") and base is not nn.Module
    ]
    return bool(bases) and not any(True for _ in module.children())


@contextlib.contextmanager
def _nothing_dropped(module: nn.Module) -> Iterator[None]:
    """Turn off the dropout between or within the parts of a layer."""
    rate = dropout_within(module)
    if not rate:
        yield
        return
    module.dropout = 0.0
    try:
        yield
    finally:
        module.dropout = rate


def _user_functions(base: type) -> Iterator[type]:
    function: type
    for function in base.__subclasses__():
        if not function.__module__.startswith("torch.") and "forward" in function.__dict__:
            yield function
        yield from _user_functions(function)


def _resolved_apply(
    apply: Callable[..., Any], following: Following
) -> "classmethod[Any, ..., Any]":
    def resolved(function: type, *args: Structure, **kwargs: Structure) -> Structure:
        result = apply(function, *args, **kwargs)
        with torch._C.DisableTorchFunction():
            return following.resolve(result)

    return classmethod(resolved)


def _followed_function(function: type, following: Following) -> "staticmethod[..., Structure]":
    forward = function.forward  # type: ignore[attr-defined]
    has_context = function.setup_context is Function.setup_context  # type: ignore[attr-defined]

    def follow(*args: Structure, **kwargs: Structure) -> Structure:
        with following.paused():
            result = forward(*args, **kwargs)
        operands = args[1:] if has_context else args
        call = Call(
            function=forward, native=function.__name__, name="opaque", args=operands, kwargs=kwargs
        )
        with torch._C.DisableTorchFunction():
            return following.take(call, result)

    return staticmethod(follow)
