"""Checks on states and masks that every net makes before it takes them. Imports no framework."""

from collections.abc import Iterable, Mapping

from parity.errors import SpecError, describe_list
from parity.frameworks.net import Array


def describe_state_problems(
    state: Mapping[str, Array], expected: Mapping[str, tuple[int, ...]]
) -> str | None:
    """Return what keeps `state` from filling arrays of the expected names and shapes, or None.

    >>> import numpy as np
    >>> describe_state_problems({"a": np.zeros(2)}, {"a": (3,), "b": (1,)})
    '1 slots missing (b), 1 of another shape (a: expected (3,), got (2,)).'
    """
    missing = [name for name in expected if name not in state]
    unexpected = [name for name in state if name not in expected]
    misshapen = [
        f"{name}: expected {shape}, got {state[name].shape}"
        for name, shape in expected.items()
        if name in state and state[name].shape != shape
    ]
    kinds = (
        (missing, "slots missing"),
        (unexpected, "unexpected"),
        (misshapen, "of another shape"),
    )
    parts = [f"{len(names)} {kind} ({describe_list(names)})" for names, kind in kinds if names]
    return f"{', '.join(parts)}." if parts else None


def require_masks(masks: Iterable[str], expected: Iterable[str], *, where: str) -> None:
    """Raise unless masks are given for the layers that drop something, and for no others.

    Raises:
        SpecError: If one is missing or names no such layer; all are listed.
    """
    given, wanted = set(masks), set(expected)
    kinds = ((sorted(wanted - given), "missing"), (sorted(given - wanted), "unexpected"))
    parts = [f"{len(names)} {kind} ({describe_list(names)})" for names, kind in kinds if names]
    if parts:
        message = (
            f"{where}: expected a mask for each layer that drops something; {', '.join(parts)}. "
            "parity.masks.draw_masks draws them from the model's spec."
        )
        raise SpecError(message)
