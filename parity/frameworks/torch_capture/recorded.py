"""What is kept of a model's calls, for the runs after the first."""

import dataclasses

from parity.frameworks.program import Trace, ValueId
from parity.frameworks.torch_capture.described import Described

# What a value is that the trace does not know.
STRANGE: ValueId = -1
CONSTANT = "constant"

# A value that is known, `state NAME`, or `CONSTANT` for any other tensor.
Token = ValueId | str
Key = tuple[str, str, tuple[Token, ...]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Place:
    """One call of a layer, the root's included.

    Attributes:
        path: Of the layer.
        number: Tells calls apart.
        is_layer: Whether the layer is one of torch's own, without layers inside.
    """

    path: str
    number: int
    is_layer: bool = False


@dataclasses.dataclass(kw_only=True)
class RecordedCall:
    """One followed call.

    Attributes:
        place: The call of the layer that it is part of.
        native: Full name of the function.
        tokens: What its tensors are, before the call.
        described: What it computes.
        arguments: The value of each tensor among its arguments, None of a weight.
        weights: Slot -> name in the state.
        inputs: Its operands.
        outputs: The values that it returns, then those of what it changes in place.
        aliases: Value of a tensor in the same memory -> the value that it has afterwards.
        name: Of its operation; empty where it takes part in no output.
    """

    place: Place
    native: str
    tokens: tuple[Token, ...]
    described: Described = dataclasses.field(default_factory=lambda: Described(kind=""))
    arguments: tuple[ValueId | None, ...] = ()
    weights: dict[str, str] = dataclasses.field(default_factory=dict)
    inputs: tuple[ValueId, ...] = ()
    outputs: tuple[ValueId, ...] = ()
    aliases: dict[ValueId, ValueId] = dataclasses.field(default_factory=dict)
    name: str = ""

    @property
    def key(self) -> Key:
        """What a later run knows the call by."""
        return self.place.path, self.native, self.tokens


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recording:
    """A model's calls on one set of inputs.

    Attributes:
        calls: In their order, those that take part in no output included.
        trace: The operations among them.
        fragile: Values whose memory a later call changes in place.
    """

    calls: tuple[RecordedCall, ...]
    trace: Trace
    fragile: frozenset[ValueId]
