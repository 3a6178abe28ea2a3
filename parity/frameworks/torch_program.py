"""`capture_torch`: any PyTorch module or function behind the protocol `Program`."""

import contextlib
import dataclasses
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from parity.errors import CaptureError, ConversionError, describe_list
from parity.frameworks.program import Array, Run, State, Trace, ValueId
from parity.frameworks.torch_capture.recorded import Recording
from parity.frameworks.torch_capture.recording import Recorder
from parity.frameworks.torch_capture.replaying import Asked, Replayer
from parity.frameworks.torch_capture.structures import (
    Structure,
    named_tensors,
    replace_tensors,
    tensors_of,
)
from parity.frameworks.torch_capture.subject import (
    Arguments,
    Subject,
    call_model,
    cast,
    copied_model,
    device_of,
    formatted,
    moved,
    prepared,
    state_of,
    trained_of,
)

_DTYPES = {
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float32": torch.float32,
    "float64": torch.float64,
}


def capture_torch(
    model: Callable[..., Any], inputs: Structure, *, keywords: Mapping[str, Any] | None = None
) -> "TorchProgram":
    """Return the program of a model, as it is called on these inputs in evaluation mode.

    Args:
        model: An `nn.Module`, a method of one, or a function of tensors. It is copied.
        inputs: The positional arguments: arrays and tensors, in tuples, lists or dicts, and other
            values; a single array or tensor is the only argument.
        keywords: Keyword arguments, likewise.

    Raises:
        CaptureError: If the model cannot be copied, called on the inputs or followed.
    """
    root, call = copied_model(model)
    positional = tuple(inputs) if isinstance(inputs, list | tuple) else (inputs,)
    arguments = _as_tensors((positional, dict(keywords or {})))
    dtype = _compute_dtype(root, tensors_of(arguments))
    subject = Subject(root=root, call=call, arguments=cast(arguments, dtype))
    recording = _record(subject, dtype=dtype)
    first = TorchProgram(subject, recording, dtype=dtype)
    notes = dict.fromkeys((*first.trace.notes, *first.training_notes(), *_half_notes(first)))
    trace = dataclasses.replace(recording.trace, notes=tuple(notes))
    return TorchProgram(subject, dataclasses.replace(recording, trace=trace), dtype=dtype)


class TorchProgram:
    """A PyTorch model as operations; `Program` says what each method does."""

    label = "torch"

    def __init__(
        self,
        subject: Subject,
        recording: Recording,
        *,
        dtype: torch.dtype,
        widening: tuple[torch.dtype, torch.dtype] | None = None,
    ) -> None:
        """Take over a recorded model; `capture_torch` makes the first program of one."""
        self._subject = subject
        self._recording = recording
        self._dtype = dtype
        self._widening = widening

    @property
    def dtype(self) -> str:
        """See `Program.dtype`."""
        return _name_of(self._dtype)

    @property
    def trace(self) -> Trace:
        """See `Program.trace`."""
        return self._recording.trace

    def state(self) -> State:
        """See `Program.state`."""
        return {name: _to_numpy(tensor) for name, tensor in state_of(self._subject.root).items()}

    def parameter_names(self) -> tuple[str, ...]:
        """See `Program.parameter_names`."""
        return tuple(trained_of(self._subject.root))

    def load_state(self, state: Mapping[str, Array]) -> None:
        """See `Program.load_state`."""
        tensors = state_of(self._subject.root)
        unknown = sorted(set(state) - set(tensors))
        misfits = [
            f"{name}: expected shape {tuple(tensors[name].shape)}; got {np.shape(array)}"
            for name, array in state.items()
            if name in tensors and tuple(tensors[name].shape) != np.shape(array)
        ]
        if unknown or misfits:
            names = [f"{name}: the model has no such array" for name in unknown]
            message = f"torch: {'; '.join([*names, *misfits])}."
            raise ConversionError(message)
        with torch.no_grad():
            for name, array in state.items():
                tensors[name].copy_(torch.from_numpy(np.array(array, copy=True)))

    def run(
        self,
        inputs: Sequence[Array],
        *,
        training: bool = False,
        keep: Collection[ValueId] = (),
        replaced: Mapping[ValueId, Array] | None = None,
        uniforms: Mapping[str, Array] | None = None,
        cotangents: Mapping[ValueId, Array] | None = None,
    ) -> Run:
        """See `Program.run`."""
        asked = Asked(
            keep=frozenset(keep),
            replaced=dict(replaced or {}),
            uniforms=dict(uniforms or {}),
            cotangents=None if cotangents is None else dict(cotangents),
        )
        self._require_known(asked)
        with self._replay(self._fed(inputs), asked, training=training) as replayer:
            values = {value: _to_numpy(replayer.computed[value]) for value in keep}
            buffers = self._buffers()
            if cotangents is None:
                return Run(values=values, buffers=buffers)
            gradients, parameter_gradients = self._gradients(replayer, asked)
        return Run(
            values=values,
            gradients=gradients,
            parameter_gradients=parameter_gradients,
            buffers=buffers,
        )

    def astype(self, dtype: str) -> "TorchProgram":
        """See `Program.astype`."""
        if dtype not in _DTYPES:
            message = f"torch: expected a dtype among {', '.join(_DTYPES)}; got {dtype!r}."
            raise CaptureError(message)
        target = _DTYPES[dtype]
        is_wider = target.itemsize > self._dtype.itemsize
        subject = moved(self._subject, dtype=target)
        program = TorchProgram(
            subject,
            self._recording,
            dtype=target,
            widening=(self._dtype, target) if is_wider else self._widening,
        )
        if is_wider:
            program._require_width(narrow=self._dtype)
        return program

    def channels_last(self) -> "TorchProgram":
        """Return a program of the same model, state and trace with channels last in memory."""
        subject = moved(self._subject, memory_format=torch.channels_last)
        return TorchProgram(subject, self._recording, dtype=self._dtype, widening=self._widening)

    def training_notes(self) -> tuple[str, ...]:
        """Return what cannot be followed in training, as sentences."""
        try:
            with self._replay(self._traced(), Asked(), training=True) as replayer:
                return tuple(replayer.notes)
        except CaptureError as error:
            return (f"Not to be compared in training: {error}",)

    def _traced(self) -> Arguments:
        arguments: Arguments = replace_tensors(self._subject.arguments, Tensor.clone)
        return arguments

    def _require_width(self, *, narrow: torch.dtype) -> None:
        """Check that nothing computes in the dtype that the model had before."""
        with self._replay(self._traced(), Asked(), training=False) as replayer:
            dtypes = replayer.dtypes
        names = [
            operation.name
            for operation in self.trace.operations
            if any(dtypes.get(value) == narrow for value in operation.outputs)
        ]
        if names:
            message = (
                f"torch: expected operations that compute in {self.dtype}; {describe_list(names)} "
                f"stay in {_name_of(narrow)}. Let them take the dtype of their inputs."
            )
            raise CaptureError(message)

    @contextlib.contextmanager
    def _replay(self, arguments: Arguments, asked: Asked, *, training: bool) -> Iterator[Replayer]:
        """Run the model; its buffers are put back when the context is left."""
        root = self._subject.root
        replayer = Replayer(
            state_of(root), self._recording, asked, training=training, widening=self._widening
        )
        fed = iter(replayer.feed(tensors_of(arguments)))
        args, kwargs = replace_tensors(arguments, lambda _: next(fed))
        with prepared(root, training=training, dtype=self._dtype):
            with torch.set_grad_enabled(asked.cotangents is not None), replayer.follow(root):
                outputs = call_model(self._subject.call, args, kwargs)
            with torch._C.DisableTorchFunction():
                replayer.finish(named_tensors(outputs))
            yield replayer

    def _buffers(self) -> State:
        root = self._subject.root
        trained = trained_of(root)
        return {
            name: _to_numpy(tensor)
            for name, tensor in state_of(root).items()
            if name not in trained
        }

    def _gradients(self, replayer: Replayer, asked: Asked) -> tuple[dict[ValueId, Array], State]:
        trained = trained_of(self._subject.root)
        leaves = {
            value: replayer.leaves[value]
            for value in asked.keep
            if replayer.leaves[value].requires_grad
        }
        sources = [*leaves.values(), *trained.values()]
        sums = {
            value: replayer.computed[value]
            for value in asked.cotangents or {}
            if replayer.computed[value].requires_grad
        }
        cotangents = [_like((asked.cotangents or {})[value], t) for value, t in sums.items()]
        found: Sequence[Tensor | None] = [None] * len(sources)
        if sums and sources:
            found = torch.autograd.grad(list(sums.values()), sources, cotangents, allow_unused=True)
        gradients = {
            value: _to_numpy(gradient)
            for value, gradient in zip(leaves, found, strict=False)
            if gradient is not None
        }
        parameter_gradients = {
            name: _to_numpy(torch.zeros_like(tensor) if gradient is None else gradient)
            for (name, tensor), gradient in zip(trained.items(), found[len(leaves) :], strict=True)
        }
        return gradients, parameter_gradients

    def _require_known(self, asked: Asked) -> None:
        values = [str(value) for value in sorted(asked.values - set(self.trace.shapes))]
        dropouts = {each.name for each in self.trace.operations if each.kind == "dropout"}
        names = [repr(name) for name in asked.uniforms if name not in dropouts]
        if values or names:
            message = (
                "torch: expected values and dropouts of the trace; it has no "
                f"{describe_list([*values, *names])}."
            )
            raise CaptureError(message)

    def _fed(self, inputs: Sequence[Array]) -> Arguments:
        expected = len(self.trace.inputs)
        if len(inputs) != expected:
            message = f"torch: expected {expected} inputs; got {len(inputs)}."
            raise CaptureError(message)
        given = iter(inputs)
        device = device_of(self._subject.root)

        def fed(traced: Tensor) -> Tensor:
            tensor = torch.from_numpy(np.array(next(given), copy=True)).to(device)
            tensor = tensor.to(traced.dtype) if traced.is_floating_point() else tensor
            return formatted(tensor, self._subject.memory_format)

        arguments: Arguments = replace_tensors(self._subject.arguments, fed)
        return arguments


def _half_notes(program: TorchProgram) -> tuple[str, ...]:
    """Return a sentence on the operations of 16 bits, which are so in every precision of a run."""
    halves = ("float16", "bfloat16")
    names = [
        operation.name
        for operation in program.trace.operations
        if any(program.trace.dtypes[value] in halves for value in operation.outputs)
    ]
    if not names or program.dtype in halves:
        return ()
    return (f"{describe_list(names)}: computed in 16 bits, in runs of every precision.",)


def _record(subject: Subject, *, dtype: torch.dtype) -> Recording:
    """Record the model in evaluation mode, and check that following it changes nothing.

    Raises:
        CaptureError: If the model cannot be called, or returns something else when followed.
    """
    with torch.no_grad():
        args, kwargs = replace_tensors(subject.arguments, Tensor.clone)
        recorder = Recorder(state_of(subject.root), tensors_of((args, kwargs)))
        with prepared(subject.root, training=False, dtype=dtype):
            with recorder.follow(subject.root):
                followed = named_tensors(call_model(subject.call, args, kwargs))
            with torch._C.DisableTorchFunction():
                recording = recorder.recording(followed)
        args, kwargs = replace_tensors(subject.arguments, Tensor.clone)
        with prepared(subject.root, training=False, dtype=dtype):
            plain = named_tensors(call_model(subject.call, args, kwargs))
    if not recorder.drops:
        _require_same(followed, plain)
    return recording


def _require_same(followed: Mapping[str, Tensor], plain: Mapping[str, Tensor]) -> None:
    different = [
        f"output {name!r}" if name else "its output"
        for name in {**followed, **plain}
        if name not in followed
        or name not in plain
        or not np.array_equal(
            _to_numpy(followed[name]),
            _to_numpy(plain[name]),
            equal_nan=plain[name].is_floating_point(),
        )
    ]
    if different or not plain:
        message = (
            f"torch: expected the model to return the same tensors whenever it is called; "
            f"{describe_list(different) or 'it returns none'} differs between two calls."
        )
        raise CaptureError(message)


def _as_tensors(structure: Structure) -> Structure:
    if isinstance(structure, np.ndarray):
        return torch.from_numpy(np.array(structure, copy=True))
    if isinstance(structure, dict):
        return {key: _as_tensors(item) for key, item in structure.items()}
    if type(structure) in (list, tuple):
        return type(structure)(map(_as_tensors, structure))
    return structure.detach().clone() if isinstance(structure, Tensor) else structure


def _compute_dtype(root: nn.Module, inputs: Sequence[Tensor]) -> torch.dtype:
    floats = [t for t in (*root.parameters(), *inputs) if t.is_floating_point()]
    return floats[0].dtype if floats else torch.get_default_dtype()


def _like(array: Array, tensor: Tensor) -> Tensor:
    return torch.from_numpy(np.array(array, copy=True)).to(tensor)


def _to_numpy(tensor: Tensor) -> Array:
    plain = tensor.detach().cpu()
    if plain.dtype == torch.bfloat16:
        plain = plain.float()  # NumPy has no such type
    return np.array(plain.contiguous().numpy(), copy=True)


def _name_of(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
