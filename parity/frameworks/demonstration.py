"""Running the snippet of a difference: the gap by default, and once settled."""

import contextlib
import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from parity import runtime
from parity.errors import SpecError
from parity.spec.differences import Difference

_SIZE_TOLERANCE = 0.05


@dataclass(frozen=True, kw_only=True)
class Demonstration:
    """What a snippet showed; gaps are relative to torch's largest value.

    Attributes:
        default: Gap of the two at their defaults; None where they are not numbers of one shape.
        differs: Whether the two differ at their defaults at all.
        settled: Gap once settled; None for a row that nothing settles.
    """

    default: float | None
    differs: bool
    settled: float | None


def demonstrate(row: Difference) -> Demonstration:
    """Run a row's code in float64, with whichever Keras backend the process has.

    Raises:
        SpecError: If the snippet leaves no pair `default`, or no pair `settled` though something
            settles the row, or if what it settles to are not numbers of one shape.
    """
    runtime.require_framework("torch", extra="torch")
    runtime.select_keras_backend(None)
    importlib.import_module("keras")  # the context sets what is loaded
    names: dict[str, Any] = {}
    with runtime.precision("float64"), _restored_torch():
        exec(compile(row.code, f"<{row.id}>", "exec"), names)  # code of ours
    default = _pair(names, "default", row)
    is_settled = row.settled_by != "documentation"
    settled = _gap(*_pair(names, "settled", row)) if is_settled else None
    if is_settled and settled is None:
        message = f"difference {row.id}: what it settles to must be numbers of one shape."
        raise SpecError(message)
    gap = _gap(*default)
    differs = gap > 0.0 if gap is not None else not _are_equal(*default)
    return Demonstration(default=gap, differs=differs, settled=settled)


def describe_change(row: Difference, shown: Demonstration) -> str | None:
    """Return what a row says that the installed versions no longer do, or None if all holds.

    The size may be off by a twentieth: backends round differently.
    """
    if not shown.differs:
        return f"{row.id}: the difference has vanished: by default the two agree now."
    if row.size is not None and (shown.default is None or not _is_near(shown.default, row.size)):
        return f"{row.id}: expected a gap of {row.size:.2g} by default; got {shown.default}."
    if shown.settled is not None and not shown.settled <= row.bound:
        return (
            f"{row.id}: expected to be settled within {row.bound:.1g}; got {shown.settled:.2g}. "
            f"Settled by: {row.settlement}"
        )
    return None


def _is_near(gap: float, size: float) -> bool:
    return abs(gap - size) <= _SIZE_TOLERANCE * size


@contextlib.contextmanager
def _restored_torch() -> Iterator[None]:
    """Put torch's default dtype back: the preamble sets it for the snippet."""
    torch = importlib.import_module("torch")
    before = torch.get_default_dtype()
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _pair(names: dict[str, Any], name: str, row: Difference) -> tuple[Any, Any]:
    pair = names.get(name)
    if not isinstance(pair, tuple) or len(pair) != 2:
        message = f"difference {row.id}: its snippet must leave a pair `{name}`; got {pair!r:.60}."
        raise SpecError(message)
    return pair


def _gap(torch_value: Any, keras_value: Any) -> float | None:  # noqa: ANN401  # whatever a snippet makes
    """Return the largest difference over torch's largest value."""
    left, right = np.asarray(torch_value), np.asarray(keras_value)
    if left.shape != right.shape or left.dtype.kind not in "fiub" or right.dtype.kind not in "fiub":
        return None
    scale = float(np.abs(left).max(initial=0.0)) or 1.0
    return (
        float(np.abs(left.astype(np.float64) - right.astype(np.float64)).max(initial=0.0)) / scale
    )


def _are_equal(torch_value: Any, keras_value: Any) -> bool:  # noqa: ANN401  # whatever a snippet makes
    return bool(np.array_equal(np.asarray(torch_value), np.asarray(keras_value)))
