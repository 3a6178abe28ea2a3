"""What a call on symbols did: the calls that its outputs need, and what they are made with."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from parity.frameworks.keras_capture.calls import (
    Call,
    Layer,
    Nest,
    Ref,
    Variable,
    flatten,
    replace_leaves,
)
from parity.frameworks.program import ValueId


@dataclass(frozen=True, kw_only=True)
class LeafRecord:
    """A layer that is called as it is.

    Attributes:
        path: Where it stands in the model.
        layer: The user's own.
        split: Whether its activation is an operation of its own.
        opaque: Whether its `call` could not be followed.
        arguments: What it was called with first, by place and by name: symbols among them.
        names: Of variables below it -> in the state, where that is not below the path.
    """

    path: str
    layer: Layer
    arguments: tuple[Nest, dict[str, Nest]]
    split: bool = False
    opaque: bool = False
    names: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Recording:
    """What a call on symbols did.

    Attributes:
        calls: In their order.
        leaves: Layers that are called, by path.
        variables: Variables that functions are given, by name in the state.
        inputs: The values given.
        outputs: The nest that was returned, with a `Ref` for each tensor.
        notes: See `Trace.notes`.
    """

    calls: tuple[Call, ...]
    leaves: Mapping[str, LeafRecord]
    variables: Mapping[str, Variable]
    inputs: tuple[ValueId, ...]
    outputs: Nest
    notes: tuple[str, ...]


def pruned(recording: Recording) -> Recording:
    """Return a recording without calls that take part in no output, its values counted anew."""
    needed = {ref.value for ref in flatten(recording.outputs)}
    kept = []
    for call in reversed(recording.calls):
        if needed.intersection(call.outputs):
            needed.update(call.inputs)
            kept.append(call)
    kept.reverse()
    order = [*recording.inputs, *(value for call in kept for value in call.outputs)]
    places = {value: place for place, value in enumerate(order)}

    def moved(leaf: Nest) -> Nest:
        return Ref(places[leaf.value]) if isinstance(leaf, Ref) else leaf

    calls = tuple(
        replace(
            call,
            outputs=tuple(places[value] for value in call.outputs),
            arguments=replace_leaves(call.arguments, moved),
            keywords=replace_leaves(call.keywords, moved),
        )
        for call in kept
    )
    used = {call.leaf for call in calls}
    read = {call.variable for call in calls}
    return replace(
        recording,
        calls=calls,
        leaves={path: leaf for path, leaf in recording.leaves.items() if path in used},
        variables={name: one for name, one in recording.variables.items() if name in read},
        inputs=tuple(places[value] for value in recording.inputs),
        outputs=replace_leaves(recording.outputs, moved),
    )


def describe_difference(outside: Recording, inside: Recording) -> str | None:
    """Return how the calls in training differ from those outside, or None."""
    pairs = list(zip(outside.calls, inside.calls, strict=False))
    for call, other in pairs:
        if _signature(call) != _signature(other):
            return (
                f"{call.name} is not called alike in training, where {other.name} "
                f"({other.native}) stands in its place."
            )
    if len(outside.calls) == len(inside.calls):
        return None
    longer = max((outside.calls, inside.calls), key=len)
    where = "in" if longer is inside.calls else "outside"
    return f"{longer[len(pairs)].name} is called only {where} training."


def _signature(call: Call) -> tuple[Nest, ...]:
    return call.name, call.native, call.outputs, call.arguments, call.keywords, call.description
