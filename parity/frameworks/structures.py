"""Outputs by name, and the nest of tuples and dicts that they were named after."""

from collections.abc import Mapping
from typing import Any


def nest_outputs(named: Mapping[str, Any]) -> Any:  # noqa: ANN401  # one value, a tuple or a dict
    """Return what a model returned, from its values by the names that `Trace.outputs` gives them.

    >>> nest_outputs({"": 1})
    1
    >>> nest_outputs({"0": 1, "1.a": 2, "1.b": 3})
    (1, {'a': 2, 'b': 3})
    """
    if set(named) == {""}:
        return named[""]
    groups: dict[str, dict[str, Any]] = {}
    for name, value in named.items():
        head, _, rest = name.partition(".")
        groups.setdefault(head, {})[rest] = value
    nested = {head: nest_outputs(group) for head, group in groups.items()}
    if all(head.isdigit() for head in nested):
        return tuple(nested[head] for head in sorted(nested, key=int))
    return nested
