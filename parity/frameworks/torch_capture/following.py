"""Follows the tensors of one run of a model: which value each of them is, in which layer.

Tensors are told apart by identity. Calls are really made as the model makes them, in place where it
does, so that aliases, versions and gradients are torch's own; an in-place call gives the tensors
that it changes new values. `Recorder` and `Replayer` say what a followed call is.
"""

import abc
import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from parity.errors import CaptureError
from parity.frameworks.program import ValueId
from parity.frameworks.torch_capture.calls import Call, function_call, widen
from parity.frameworks.torch_capture.modules import (
    dropout_within,
    followed_modules,
    reading_autograd_functions,
)
from parity.frameworks.torch_capture.recorded import CONSTANT, Place, RecordedCall, Token
from parity.frameworks.torch_capture.structures import Structure, replace_tensors, tensors_of


@dataclasses.dataclass
class Followed:
    """A tensor of the model, and what it is.

    Attributes:
        tensor: The model's own, held so that its identity is not given to another.
        value: The value that it has now.
        present: What calls get for it.
        is_due: Whether the value still has to be handed to `_publish`.
    """

    tensor: Tensor
    value: ValueId
    present: Tensor
    is_due: bool = False


class Follower(TorchFunctionMode, abc.ABC):  # type: ignore[misc]  # torch is untyped here
    """What recording and replaying have in common."""

    def __init__(
        self, state: Mapping[str, Tensor], *, widening: tuple[torch.dtype, torch.dtype] | None
    ) -> None:
        """Follow the tensors of a model with this state.

        Args:
            state: Parameters and buffers by name.
            widening: A dtype, and the wider one that takes its place; None to leave all as it is.
        """
        super().__init__()
        self._names = {id(tensor): name for name, tensor in state.items()}
        self._cast: list[Tensor] = []  # of arrays of the state, held for their identity
        self._widening = widening
        self._narrow = None if widening is None else widening[0]
        self._followed: dict[int, Followed] = {}
        self._places = [Place(path="", number=0)]
        self._calls = 0
        self._is_paused = False
        self.notes: dict[str, None] = {}
        self.drops = False

    @contextlib.contextmanager
    def follow(self, root: nn.Module) -> Iterator[None]:
        """Follow what is called inside the context, by the layers of `root`."""
        with followed_modules(root, self), reading_autograd_functions(self), self:
            yield

    @contextlib.contextmanager
    def inside(self, path: str, *, is_layer: bool) -> Iterator[None]:
        """Take what is called as part of a layer."""
        self._calls += 1
        self._places.append(Place(path=path, number=self._calls, is_layer=is_layer))
        try:
            yield
        finally:
            self._places.pop()

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Structure:
        """Make a call of the model; torch calls this for each of its functions."""
        del types
        if self._is_paused:
            return func(*args, **(kwargs or {}))
        return self.make(function_call(func, args, kwargs or {}))

    def make(self, call: Call) -> Structure:
        """Make a call, and follow it if it uses values that are followed."""
        if self._widening is not None:
            call = widen(call, *self._widening)
        if call.is_drawn:
            self.note(f"{call.name} draws numbers; runs of one precision draw the same ones.")
        known = [t for t in call.tensors if id(t) in self._followed or self._is_state(t)]
        known += list(call.module.parameters()) if call.module is not None else []
        if not known:
            return call.run()
        if call.is_fresh:
            return self._prepared(call).run()
        return self._follow(call)

    def take(self, call: Call, result: Structure) -> Structure:
        """Follow a call that is already made; what is replaced goes on at its next use."""
        tokens = [self._token(tensor) for tensor in call.tensors]
        handle = self._match(call, tokens)
        if any(self.present(tensor) is not tensor for tensor in call.tensors):
            message = (
                f"{self._places[-1].path or 'the model'}: expected a call of {call.native} on what "
                "other functions of torch return; its argument comes from another function with a "
                f"backward of its own and cannot be replaced. Call it as {call.native}.apply."
            )
            raise CaptureError(message)
        self._settle(call, handle, result, [], is_due=True)
        return result

    def resolve(self, result: Structure) -> Structure:
        """Return what goes on for the tensors of a call that was taken."""
        return replace_tensors(result, self.present)

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Follow nothing inside the context."""
        before, self._is_paused = self._is_paused, True
        try:
            yield
        finally:
            self._is_paused = before

    def note(self, sentence: str) -> None:
        """Keep a sentence about the present layer."""
        path = self._places[-1].path
        self.notes[f"{path}: {sentence}" if path else sentence] = None

    def value_of(self, tensor: Tensor) -> ValueId | None:
        """Return the value that a tensor of the model has, None if it is not followed."""
        followed = self._followed.get(id(tensor))
        return None if followed is None else followed.value

    def present(self, tensor: Tensor) -> Tensor:
        """Return what goes on for a tensor of the model."""
        followed = self._followed.get(id(tensor))
        if followed is None:
            return tensor
        if followed.is_due:
            followed.is_due = False
            followed.present = self._publish(followed.value, followed.present)
            own = followed.present
            self._followed.setdefault(id(own), Followed(own, followed.value, own))
        return followed.present

    def _follow(self, call: Call) -> Structure:
        tensors = call.tensors
        tokens = [self._token(tensor) for tensor in tensors]
        handle = self._match(call, tokens)
        prepared = self._prepared(call)
        versions = [_version(tensor) for tensor in prepared.tensors]
        result = self._execute(prepared, handle)
        changed = {
            id(after): before
            for before, after, version in zip(tensors, prepared.tensors, versions, strict=True)
            if _version(after) != version or (call.changes_in_place and after is result)
        }
        changed = _targets(call, changed)
        if not tensors_of(result) and not changed:
            if call.is_read and tensors:
                self.note(
                    f"Python reads values by {call.name}; what it does with them is not followed."
                )
            return result
        # A cast that a run of another precision has no need of is an operation all the same.
        if not changed and not handle.outputs and call.hands_on(result, narrow=self._narrow):
            return self._hand_on(call.tensors[0], result)
        same = {id(tensor) for tensor in prepared.tensors} - set(changed)
        # A dropout that drops nothing returns its argument: two values need two tensors.
        result = replace_tensors(result, lambda t: t.view_as(t) if id(t) in same else t)
        return self._settle(call, handle, result, list(changed.values()))

    def _settle(
        self,
        call: Call,
        handle: RecordedCall,
        result: Structure,
        changed: list[Tensor],
        *,
        is_due: bool = False,
    ) -> Structure:
        """Give what a call returned and changed its values."""
        returned = tensors_of(result)
        held = {id(tensor) for tensor in changed if not self._is_slot(call, tensor)}
        outputs = returned + [
            tensor
            for tensor in changed
            if id(tensor) in held and not any(tensor is other for other in returned)
        ]
        values = self._values(call, handle, outputs, [t for t in changed if id(t) in held])
        onward: dict[int, Tensor] = {}
        for tensor, value in zip(outputs, values, strict=True):
            if is_due:
                self._followed[id(tensor)] = Followed(tensor, value, tensor, is_due=True)
                continue
            published = self._publish(value, tensor)
            # The model holds what it changes in place: its further calls get the other one.
            own = tensor if id(tensor) in held else published
            self._followed[id(own)] = Followed(own, value, published)
            onward[id(tensor)] = own
        return replace_tensors(result, lambda t: onward.get(id(t), t))

    def _hand_on(self, source: Tensor, result: Tensor) -> Tensor:
        followed = self._followed.get(id(source))
        if followed is not None:
            if id(result) not in self._followed:
                self._followed[id(result)] = Followed(result, followed.value, result)
        elif id(source) in self._names and id(result) not in self._names:
            self._names[id(result)] = self._names[id(source)]
            self._cast.append(result)
        return result

    def _prepared(self, call: Call) -> Call:
        return call.with_tensors(self.present)

    def _execute(self, call: Call, handle: RecordedCall) -> Structure:
        if call.is_dropout:
            return self._drop(call, handle)
        without = call.without_drops()
        within = 0.0 if call.module is None else dropout_within(call.module)
        if without is not None or within:
            self.note(f"{call.name} takes no numbers of what to drop; it drops nothing here.")
        return _out_of_place(without or call).run()

    def _token(self, tensor: Tensor) -> Token:
        followed = self._followed.get(id(tensor))
        if followed is not None:
            return followed.value
        name = self._names.get(id(tensor))
        if name is not None:
            return f"state {name}"
        if isinstance(tensor, nn.Parameter):
            where = self._places[-1].path or "the model"
            message = (
                f"{where}: expected parameters that belong to the model; a call uses one of shape "
                f"{tuple(tensor.shape)} that none of its layers holds. Make it an attribute of an "
                "nn.Module, and its layers attributes or an nn.ModuleList."
            )
            raise CaptureError(message)
        return CONSTANT

    def _is_state(self, tensor: Tensor) -> bool:
        return id(tensor) in self._names

    def _is_slot(self, call: Call, tensor: Tensor) -> bool:
        # Running statistics change in their layer's own call, and are read by no other.
        return self._is_state(tensor) and call.name in ("batch_norm", "instance_norm")

    def _aliases(self, changed: Sequence[Tensor]) -> list[Followed]:
        """Return what shares memory with tensors that a call changed, those left out."""
        stores = {tensor.untyped_storage()._cdata for tensor in changed}
        return [
            followed
            for followed in self._followed.values()
            if followed.present.untyped_storage()._cdata in stores
            and not any(followed.present is tensor for tensor in changed)
        ]

    @abc.abstractmethod
    def _match(self, call: Call, tokens: list[Token]) -> RecordedCall:
        """See the classes that record and that replay."""

    @abc.abstractmethod
    def _values(
        self, call: Call, handle: RecordedCall, outputs: list[Tensor], changed: list[Tensor]
    ) -> list[ValueId]:
        """See the classes that record and that replay."""

    @abc.abstractmethod
    def _publish(self, value: ValueId, tensor: Tensor) -> Tensor:
        """See the classes that record and that replay."""

    @abc.abstractmethod
    def _drop(self, call: Call, handle: RecordedCall) -> Tensor:
        """See the classes that record and that replay."""


def _out_of_place(call: Call) -> Call:
    """Return the call without `out`, through which no gradient could pass, but with its effect."""
    out = call.kwargs.get("out")
    if not isinstance(out, Tensor):
        return call
    kwargs = {name: argument for name, argument in call.kwargs.items() if name != "out"}
    plain = dataclasses.replace(call, kwargs=kwargs)
    return dataclasses.replace(call, function=lambda *_, **__: out.copy_(plain.run()))


def _targets(call: Call, changed: dict[int, Tensor]) -> dict[int, Tensor]:
    """Return what a call changes itself: views of one memory count their versions together."""
    targets: dict[int, tuple[int, Tensor]] = {}
    for identity, tensor in changed.items():
        store = tensor.untyped_storage()._cdata
        if store not in targets or tensor is call.kwargs.get("out"):
            targets[store] = (identity, tensor)
    return dict(targets.values())


def _version(tensor: Tensor) -> int:
    return 0 if tensor.is_inference() else tensor._version
