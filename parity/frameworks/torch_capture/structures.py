"""Tensors inside tuples, lists, dicts and dataclasses, in one order everywhere."""

import copy
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import Tensor

# Tensors, in any nest of containers and other values.
Structure = Any


def tensors_of(structure: Structure) -> list[Tensor]:
    """Return the tensors in a structure, in its order; one that is there twice counts twice."""
    return [tensor for _, tensor in _walk(structure, ())]


def named_tensors(structure: Structure) -> dict[str, Tensor]:
    """Return the tensors by their place: `""` for a single one, `0.mean` where nested."""
    return {".".join(place): tensor for place, tensor in _walk(structure, ())}


def replace_tensors(structure: Structure, function: Callable[[Tensor], Tensor]) -> Structure:
    """Return the structure with `function` of each tensor in its place.

    What holds no tensor that changes is returned itself; nothing is changed in place.
    """
    if isinstance(structure, Tensor):
        return function(structure)
    items = dict(_items(structure))
    changed = {key: replace_tensors(item, function) for key, item in items.items()}
    if all(changed[key] is item for key, item in items.items()):
        return structure
    return _rebuilt(structure, changed)


def _walk(structure: Structure, place: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Tensor]]:
    if isinstance(structure, Tensor):
        yield place, structure
        return
    for key, item in _items(structure):
        yield from _walk(item, (*place, str(key)))


def _items(structure: Structure) -> Iterator[tuple[Any, Any]]:
    if isinstance(structure, list | tuple):
        yield from enumerate(structure)
    elif isinstance(structure, Mapping):
        yield from structure.items()
    elif dataclasses.is_dataclass(structure) and not isinstance(structure, type):
        for field in dataclasses.fields(structure):
            yield field.name, getattr(structure, field.name)


def _rebuilt(structure: Structure, items: dict[Any, Any]) -> Structure:
    kind = type(structure)
    if hasattr(kind, "_make"):
        return kind._make(items.values())
    if isinstance(structure, list | tuple):
        return kind(list(items.values()))
    twin = copy.copy(structure)
    for key, item in items.items():
        if isinstance(structure, Mapping):
            twin[key] = item
        else:
            object.__setattr__(twin, key, item)
    return twin
