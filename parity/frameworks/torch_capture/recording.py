"""Records the calls that a model makes, and names them as the operations of a trace."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from parity.frameworks.program import Operation, Trace, ValueId
from parity.frameworks.torch_capture.calls import Call
from parity.frameworks.torch_capture.described import Described
from parity.frameworks.torch_capture.following import Followed, Follower
from parity.frameworks.torch_capture.operations import describe_call
from parity.frameworks.torch_capture.recorded import CONSTANT, RecordedCall, Recording, Token

_SOURCES = ("parameter", "constant")


class Recorder(Follower):
    """Follows the first run of a model."""

    def __init__(self, state: Mapping[str, Tensor], inputs: Sequence[Tensor]) -> None:
        """Follow a model with this state on these inputs."""
        super().__init__(state, widening=None)
        self._recorded: list[RecordedCall] = []
        self._shapes: list[tuple[int, ...]] = []
        self._dtypes: list[str] = []
        self._stored: defaultdict[int, set[ValueId]] = defaultdict(set)
        self._fragile: set[ValueId] = set()
        self._inputs = tuple(self._new_value(tensor) for tensor in inputs)
        for tensor, value in zip(inputs, self._inputs, strict=True):
            self._followed[id(tensor)] = Followed(tensor, value, tensor)

    def recording(self, outputs: Mapping[str, Tensor]) -> Recording:
        """Return what was recorded, for a model that returned `outputs`."""
        values = {name: self._operand_value(tensor) for name, tensor in outputs.items()}
        live = _live_calls(self._recorded, set(values.values()))
        _name_calls(live)
        known = [*self._inputs, *(value for call in live for value in call.outputs)]
        known += [value for call in live for value in call.aliases.values()]
        trace = Trace(
            operations=tuple(map(_operation, live)),
            shapes={value: self._shapes[value] for value in sorted(known)},
            dtypes={value: self._dtypes[value] for value in sorted(known)},
            inputs=self._inputs,
            outputs=values,
            notes=tuple(self.notes),
        )
        return Recording(calls=tuple(self._recorded), trace=trace, fragile=frozenset(self._fragile))

    def _match(self, call: Call, tokens: list[Token]) -> RecordedCall:
        return RecordedCall(place=self._places[-1], native=call.native, tokens=tuple(tokens))

    def _values(
        self, call: Call, handle: RecordedCall, outputs: list[Tensor], changed: list[Tensor]
    ) -> list[ValueId]:
        described = describe_call(call, outputs)
        slots = {
            slot: tensor
            for slot, tensor in described.weights.items()
            if self._is_state(tensor) and id(tensor) not in self._followed
        }
        weights = {id(tensor) for tensor in slots.values()}
        arguments = call.tensors
        ignored = {*weights, id(call.kwargs.get("out"))}
        values = [None if id(t) in ignored else self._operand_value(t) for t in arguments]
        by_tensor = {id(t): v for t, v in zip(arguments, values, strict=True) if v is not None}
        operands = [id(tensor) for tensor in described.operands]
        further = [value for tensor, value in by_tensor.items() if tensor not in operands]
        handle.described = described
        handle.weights = {slot: self._names[id(tensor)] for slot, tensor in slots.items()}
        handle.arguments = tuple(values)
        handle.inputs = (*(by_tensor[tensor] for tensor in operands), *further)
        self._recorded.append(handle)
        for tensor in changed:
            self._fragile |= self._stored[_store(tensor)]
        handle.outputs = tuple(self._new_value(tensor) for tensor in outputs)
        self._renew_aliases(handle, changed)
        return list(handle.outputs)

    def _renew_aliases(self, handle: RecordedCall, changed: list[Tensor]) -> None:
        aliases = [
            followed
            for followed in self._aliases(changed)
            if any(_overlap(followed.tensor, tensor) for tensor in changed)
        ]
        for followed in aliases:
            if followed.value not in handle.aliases:
                handle.aliases[followed.value] = self._new_value(followed.tensor)
            followed.value = handle.aliases[followed.value]

    def _publish(self, value: ValueId, tensor: Tensor) -> Tensor:
        del value
        return tensor

    def _drop(self, call: Call, handle: RecordedCall) -> Tensor:
        del handle
        tensor = call.tensors[0]
        settings = call.bind("input p training").__dict__
        if settings.get("train", settings["training"]) is not False:
            self.note(f"{call.name} drops in evaluation too; runs in evaluation keep everything.")
            self.drops = True
        return tensor.view_as(tensor)

    def _operand_value(self, tensor: Tensor) -> ValueId:
        """Return the value of an operand; an array of the state, or a constant, becomes one."""
        value = self.value_of(tensor)
        if value is not None:
            return value
        token = self._token(tensor)
        weights = {} if token == CONSTANT else {"value": self._names[id(tensor)]}
        kind = "parameter" if weights else "constant"
        value = self._new_value(tensor)
        self._followed[id(tensor)] = Followed(tensor, value, tensor)
        self._recorded.append(
            RecordedCall(
                place=self._places[-1],
                native="torch.Tensor",
                tokens=(token,),
                described=Described(kind=kind),
                weights=weights,
                outputs=(value,),
            )
        )
        return value

    def _new_value(self, tensor: Tensor) -> ValueId:
        self._shapes.append(tuple(tensor.shape))
        self._dtypes.append(str(tensor.dtype).removeprefix("torch."))
        value = len(self._shapes) - 1
        self._stored[_store(tensor)].add(value)
        return value


def _store(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def _overlap(left: Tensor, right: Tensor) -> bool:
    """Return whether two tensors of one memory share an element of it."""
    if left.dtype != right.dtype:
        return True
    count = left.untyped_storage().nbytes() // left.element_size()
    marks = torch.zeros(count, dtype=torch.bool)
    marks.as_strided(left.shape, left.stride(), left.storage_offset()).fill_(1)
    return bool(marks.as_strided(right.shape, right.stride(), right.storage_offset()).any())


def _live_calls(calls: Sequence[RecordedCall], wanted: set[ValueId]) -> list[RecordedCall]:
    """Return the calls that values depend on, without the aliases that none does."""
    live = []
    for call in reversed(calls):
        used = {old: new for old, new in call.aliases.items() if new in wanted}
        if not used and not wanted & set(call.outputs):
            continue
        wanted |= {*call.inputs, *used}
        call.aliases = used if used else {}
        live.append(call)
    return live[::-1]


def _name_calls(calls: Sequence[RecordedCall]) -> None:
    last = {call.place.number: call for call in calls if call.described.kind not in _SOURCES}
    counts: Counter[str] = Counter()
    for call in calls:
        place = call.place
        is_layer = place.is_layer and bool(place.path) and last.get(place.number) is call
        base = place.path if is_layer else f"{place.path}/{_kind(call)}"
        counts[base] += 1
        call.name = base if counts[base] == 1 else f"{base}#{counts[base]}"


def _kind(call: RecordedCall) -> str:
    # What changes other values too is not the operation that its function would be.
    return call.native.rpartition(".")[2] if call.aliases else call.described.kind


def _operation(call: RecordedCall) -> Operation:
    described = call.described
    return Operation(
        name=call.name,
        kind=_kind(call),
        native=call.native,
        inputs=(*call.inputs, *call.aliases),
        outputs=(*call.outputs, *call.aliases.values()),
        weights=call.weights,
        layouts={s: axes for s, axes in described.layouts.items() if s in call.weights},
        attributes=described.attributes,
    )
