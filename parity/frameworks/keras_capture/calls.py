"""What a recorded call is: an operation, what it is given, and the values that it makes.

Arguments keep Keras's own nesting; in place of each tensor stands a `Ref`.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from parity.frameworks.program import Array, ValueId

# Keras has no types of its own: these names say what is meant.
Tensor = Any  # of the backend, or a symbol
Layer = Any  # keras.Layer
Model = Any  # keras.Layer, or a function of tensors
Function = Any  # keras.Operation that is no layer
Variable = Any  # keras.Variable
Nest = Any  # lists, tuples and dicts of anything, or a single thing
Attribute = Any  # what a kind is told


@dataclass(frozen=True)
class Ref:
    """The place of a value among the arguments of a call."""

    value: ValueId


@dataclass(frozen=True, kw_only=True)
class Description:
    """What a call computes, in the words of `parity.frameworks.kinds`.

    Attributes:
        kind: The word, or the name that Keras has for it.
        attributes: What the kind is told.
        slots: Variable path below the layer -> slot.
        layouts: Slot -> axes.
    """

    kind: str
    attributes: Mapping[str, Any] = field(default_factory=dict)
    slots: Mapping[str, str] = field(default_factory=dict)
    layouts: Mapping[str, str] = field(default_factory=dict)


# A layer and the shapes of its operands and of its output -> what it computes.
Describe = Callable[[Layer, list[tuple[int, ...]], tuple[int, ...]], Description]


@dataclass(frozen=True, kw_only=True)
class Call:
    """One recorded call.

    Attributes:
        name: As in `Operation.name`.
        description: What it computes.
        native: What Keras calls it.
        outputs: The values that it makes, in the order of the flattened result.
        arguments: Positional ones, with a `Ref` for each tensor.
        keywords: Those by name, likewise; `training` is not among them.
        operation: A function of Keras's, or a layer that the recorder was told to call as it is.
        leaf: Path of the layer that is called, where `operation` is one.
        array: The fixed array of a kind `constant`.
        variable: Name in the state of a kind `parameter`.
        training: Whether the layer was told that it trains; None if it takes no such argument.
    """

    name: str
    description: Description
    native: str
    outputs: tuple[ValueId, ...]
    arguments: tuple[Any, ...] = ()
    keywords: Mapping[str, Any] = field(default_factory=dict)
    operation: Function = None
    leaf: str | None = None
    array: Array | None = None
    variable: str | None = None
    training: bool | None = None

    @property
    def inputs(self) -> tuple[ValueId, ...]:
        """The values that it is given, in the order of its arguments."""
        nest = (*self.arguments, *self.keywords.values())
        return tuple(ref.value for ref in flatten(nest) if isinstance(ref, Ref))


def flatten(nest: Nest) -> Iterator[Any]:
    """Yield what lists, tuples and dicts hold, in their own order."""
    if isinstance(nest, dict):
        nest = tuple(nest.values())
    if isinstance(nest, list | tuple):
        for part in nest:
            yield from flatten(part)
    else:
        yield nest


def replace_leaves(nest: Nest, function: Callable[[Any], Any]) -> Nest:
    """Return a nest with a function's results in place of what it holds."""
    if isinstance(nest, dict):
        return {key: replace_leaves(part, function) for key, part in nest.items()}
    if isinstance(nest, tuple) and hasattr(nest, "_fields"):
        return type(nest)(*(replace_leaves(part, function) for part in nest))
    if isinstance(nest, list | tuple):
        return type(nest)(replace_leaves(part, function) for part in nest)
    return function(nest)


def named_leaves(nest: Nest, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield what a nest holds by keys and places joined by dots; a single thing has no name."""
    if isinstance(nest, dict):
        parts = [(str(key), part) for key, part in nest.items()]
    elif isinstance(nest, list | tuple):
        parts = [(str(place), part) for place, part in enumerate(nest)]
    else:
        yield prefix, nest
        return
    for key, part in parts:
        yield from named_leaves(part, f"{prefix}.{key}" if prefix else key)
