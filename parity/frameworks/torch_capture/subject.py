"""The copy of a model that a program owns: how it is called, set up for a run, and moved."""

import contextlib
import copy
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from parity.errors import CaptureError
from parity.frameworks.torch_capture.structures import Structure, replace_tensors, tensors_of

Arguments = tuple[tuple[Any, ...], dict[str, Any]]

# Torch's own bookkeeping, which no other framework has.
_UNTRACKED = "num_batches_tracked"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Subject:
    """A model of this program's own.

    Attributes:
        root: Holds the layers and the state.
        call: What is called, `root` itself or a method of it, or a function.
        arguments: Positional and keyword arguments as they were traced.
        memory_format: Of inputs of four axes.
    """

    root: nn.Module
    call: Callable[..., Any]
    arguments: Arguments
    memory_format: torch.memory_format = torch.contiguous_format


def copied_model(model: Callable[..., Any]) -> tuple[nn.Module, Callable[..., Any]]:
    """Return a copy's layers, and what is called."""
    owner = getattr(model, "__self__", model)
    try:
        twin = copy.deepcopy(owner if isinstance(owner, nn.Module) else model)
    except Exception as error:
        message = (
            f"torch: expected a model that `copy.deepcopy` can copy; {type(model).__name__} cannot "
            f"be: {error}"
        )
        raise CaptureError(message) from error
    if isinstance(owner, nn.Module):
        name = "__call__" if owner is model else model.__name__
        return twin, (twin if name == "__call__" else getattr(twin, name))
    return nn.Module(), twin


def call_model(
    call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Structure:
    """Call a model.

    Raises:
        CaptureError: If the call fails; says on what.
    """
    try:
        return call(*args, **kwargs)
    except CaptureError:
        raise
    except Exception as error:
        shapes = ", ".join(str(tuple(t.shape)) for t in tensors_of((args, kwargs)))
        message = (
            f"torch: the model cannot be called on inputs of shapes {shapes}: "
            f"{type(error).__name__}: {error}"
        )
        raise CaptureError(message) from error


@contextlib.contextmanager
def prepared(root: nn.Module, *, training: bool, dtype: torch.dtype) -> Iterator[None]:
    """Set mode, precision and seed for one run, and put back what it changes."""
    modes = {module: module.training for module in root.modules()}
    buffers = [(module, dict(module._buffers.items())) for module in root.modules()]
    before = [
        (buffer, buffer.clone())
        for _, own in buffers
        for buffer in own.values()
        if buffer is not None
    ]
    default = torch.get_default_dtype()
    fast = torch.backends.mha.get_fastpath_enabled()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        try:
            torch.backends.mha.set_fastpath_enabled(False)
            torch.set_default_dtype(dtype)
            root.train(training)
            yield
        finally:
            torch.set_default_dtype(default)
            torch.backends.mha.set_fastpath_enabled(fast)
            for module, mode in modes.items():
                module.training = mode
            for module, own in buffers:
                if not isinstance(module, torch.jit.ScriptModule):
                    module._buffers.clear()
                    module._buffers.update(own)
            with torch.no_grad():
                for buffer, content in before:
                    buffer.copy_(content)


def state_of(root: nn.Module) -> dict[str, Tensor]:
    """Return parameters and buffers by their first name, persistent ones only."""
    transient = {
        f"{path}.{name}" if path else name
        for path, module in root.named_modules(remove_duplicate=False)
        for name in module._non_persistent_buffers_set
    }
    buffers = {
        name: buffer
        for name, buffer in root.named_buffers()
        if name not in transient and not name.endswith(_UNTRACKED)
    }
    return {**dict(root.named_parameters()), **buffers}


def trained_of(root: nn.Module) -> dict[str, Tensor]:
    """Return the parameters that take a gradient, by their first name."""
    return {name: tensor for name, tensor in root.named_parameters() if tensor.requires_grad}


def moved(
    subject: Subject,
    *,
    dtype: torch.dtype | None = None,
    memory_format: torch.memory_format | None = None,
) -> Subject:
    """Return a copy of a subject in another dtype or memory format."""
    memory_format = memory_format or subject.memory_format
    # Copied together, as what is called may be a method of a layer.
    root, call = copy.deepcopy((subject.root, subject.call))
    root = root.to(dtype=dtype).to(memory_format=memory_format)
    arguments = subject.arguments if dtype is None else cast(subject.arguments, dtype)
    return Subject(
        root=root,
        call=call,
        arguments=replace_tensors(arguments, lambda t: formatted(t, memory_format)),
        memory_format=memory_format,
    )


def cast(arguments: Arguments, dtype: torch.dtype) -> Arguments:
    """Return the arguments with their floats in another dtype."""
    converted: Arguments = replace_tensors(
        arguments, lambda t: t.to(dtype) if t.is_floating_point() else t
    )
    return converted


def device_of(root: nn.Module) -> torch.device:
    """Return where a model computes."""
    return next((t.device for t in root.parameters()), torch.device("cpu"))


def formatted(tensor: Tensor, memory_format: torch.memory_format) -> Tensor:
    """Return an input in a memory format, if it has the four axes of images."""
    return tensor.contiguous(memory_format=memory_format) if tensor.dim() == 4 else tensor
