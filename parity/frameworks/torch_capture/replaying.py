"""Runs a recorded model again, with values kept, replaced and given cotangents."""

import dataclasses
from collections import defaultdict, deque
from collections.abc import Collection, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from parity.errors import CaptureError, describe_list
from parity.frameworks.program import Array, ValueId
from parity.frameworks.torch_capture.calls import Call
from parity.frameworks.torch_capture.following import Followed, Follower
from parity.frameworks.torch_capture.recorded import STRANGE, Key, RecordedCall, Recording, Token


@dataclasses.dataclass(frozen=True, kw_only=True)
class Asked:
    """What a run is asked for; `Program.run` says what each means."""

    keep: Collection[ValueId] = ()
    replaced: Mapping[ValueId, Array] = dataclasses.field(default_factory=dict)
    uniforms: Mapping[str, Array] = dataclasses.field(default_factory=dict)
    cotangents: Mapping[ValueId, Array] | None = None

    @property
    def values(self) -> set[ValueId]:
        """The values that a run has to stop at."""
        return {*self.keep, *self.replaced, *(self.cotangents or {})}


class Replayer(Follower):
    """Follows a further run of a recorded model."""

    def __init__(
        self,
        state: Mapping[str, Tensor],
        recording: Recording,
        asked: Asked,
        *,
        training: bool,
        widening: tuple[torch.dtype, torch.dtype] | None,
    ) -> None:
        """Follow a model with this state, whose calls are those of `recording`."""
        super().__init__(state, widening=widening)
        self._asked = asked
        self._stops = asked.values
        self._recording = recording
        self._training = training
        self._waiting: dict[Key, deque[RecordedCall]] = defaultdict(deque)
        for call in recording.calls:
            self._waiting[call.key].append(call)
        self._made: set[str] = set()
        self._strange: str = ""
        self.computed: dict[ValueId, Tensor] = {}
        self.leaves: dict[ValueId, Tensor] = {}
        self.dtypes: dict[ValueId, torch.dtype] = {}

    def feed(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """Return the inputs as the model gets them."""
        fed = []
        for value, tensor in zip(self._recording.trace.inputs, inputs, strict=True):
            published = self._publish(value, tensor)
            self._followed[id(published)] = Followed(published, value, published)
            fed.append(published)
        return fed

    def finish(self, outputs: Mapping[str, Tensor]) -> None:
        """Check that the run made the traced operations.

        Raises:
            CaptureError: If it did not.
        """
        for tensor in outputs.values():
            self.present(tensor)
        values = {name: self._output_value(name, tensor) for name, tensor in outputs.items()}
        missing = [
            operation.name
            for operation in self._recording.trace.operations
            if operation.kind not in ("parameter", "constant") and operation.name not in self._made
        ]
        if not missing and values == dict(self._recording.trace.outputs):
            return
        mode = "in training" if self._training else "in evaluation"
        other = f" It first makes {self._strange} instead." if self._strange else ""
        message = (
            f"torch: expected the operations of the trace; this run, {mode}, does not make "
            f"{describe_list(missing) or 'the same outputs'}.{other} What a model does must not "
            "depend on the values of its inputs, and be the same in training and evaluation."
        )
        raise CaptureError(message)

    def _output_value(self, name: str, tensor: Tensor) -> ValueId:
        value = self.value_of(tensor)
        if value is not None:
            return value
        expected = self._recording.trace.outputs.get(name, STRANGE)
        self._publish(expected, tensor)
        return expected

    def _match(self, call: Call, tokens: list[Token]) -> RecordedCall:
        waiting = self._waiting.get((self._places[-1].path, call.native, tuple(tokens)))
        if not waiting:
            return RecordedCall(place=self._places[-1], native=call.native, tokens=tuple(tokens))
        found = waiting.popleft()
        if found.name:
            self._made.add(found.name)
        for tensor, value, token in zip(call.tensors, found.arguments, tokens, strict=True):
            if value is not None and isinstance(token, str) and id(tensor) not in self._followed:
                present = self._publish(value, self._widened(tensor, value))
                self._followed[id(tensor)] = Followed(tensor, value, present)
        return found

    def _values(
        self,
        call: Call,
        handle: RecordedCall,
        outputs: list[Tensor],
        changed: list[Tensor],
    ) -> list[ValueId]:
        if len(handle.outputs) != len(outputs):
            where = self._places[-1].path or "its body"
            self._strange = self._strange or f"{call.native} in {where}"
            for followed in self._aliases(changed):
                followed.value = STRANGE
            return [STRANGE] * len(outputs)
        for followed in self._aliases(changed):
            value = handle.aliases.get(followed.value)
            if value is not None:
                followed.value = value
                followed.present = self._publish(value, followed.present)
        return list(handle.outputs)

    def _publish(self, value: ValueId, tensor: Tensor) -> Tensor:
        """Keep a value and return what goes on in its place.

        A tensor that the model changes later gets the content in place: torch then carries it to
        its aliases, and the gradient with it.
        """
        self.dtypes[value] = tensor.dtype
        if value not in self._stops or value in self.computed:
            return tensor
        with torch.set_grad_enabled(self._asked.cotangents is not None):
            is_fragile = value in self._recording.fragile
            # Another tensor than the call's own, which the call may have used within.
            computed = tensor.clone() if is_fragile else tensor.view_as(tensor)
            onward = self._onward(value, computed)
            return tensor.copy_(onward) if is_fragile else onward

    def _onward(self, value: ValueId, computed: Tensor) -> Tensor:
        """Return the replacement, or what was computed, ready for a gradient."""
        self.computed[value] = computed
        self.leaves[value] = computed
        array = self._asked.replaced.get(value)
        wants_gradient = self._asked.cotangents is not None and computed.is_floating_point()
        if array is None and (not wants_gradient or computed.requires_grad):
            return computed
        leaf = torch.empty_like(computed, requires_grad=False)
        leaf.copy_(computed.detach() if array is None else _replacement(value, array, computed))
        self.leaves[value] = leaf.requires_grad_(wants_gradient)
        return leaf

    def _drop(self, call: Call, handle: RecordedCall) -> Tensor:
        tensor = call.tensors[0]
        numbers = self._asked.uniforms.get(handle.name)
        settings = call.bind("input p training inplace").__dict__
        is_on = self._training and settings.get("train", settings["training"]) is not False
        if numbers is None or not is_on:
            return tensor.view_as(tensor)
        if tuple(numbers.shape) != tuple(tensor.shape):
            message = (
                f"{handle.name}: expected numbers of shape {tuple(tensor.shape)}; "
                f"got {tuple(numbers.shape)}."
            )
            raise CaptureError(message)
        attributes = handle.described.attributes
        index = tuple(
            slice(0, 1) if axis in attributes["shared_axes"] else slice(None)
            for axis in range(tensor.dim())
        )
        kept = torch.from_numpy(np.array(numbers[index])).to(tensor.device) >= attributes["rate"]
        scale = 1 - attributes["rate"]
        dropped = torch.where(kept, tensor / scale if scale else tensor, 0.0).to(tensor.dtype)
        return tensor.copy_(dropped) if settings["inplace"] else dropped

    def _widened(self, tensor: Tensor, value: ValueId) -> Tensor:
        is_narrow = self._widening is not None and tensor.dtype == self._widening[0]
        if not is_narrow or value in self._recording.fragile or self._is_state(tensor):
            return tensor
        return tensor.to(self._widening[1])  # type: ignore[index]


def _replacement(value: ValueId, array: Array, computed: Tensor) -> Tensor:
    if tuple(array.shape) != tuple(computed.shape):
        message = (
            f"torch: expected an array of shape {tuple(computed.shape)} in the place of value "
            f"{value}; got {tuple(array.shape)}."
        )
        raise CaptureError(message)
    return torch.from_numpy(np.array(array, copy=True))
