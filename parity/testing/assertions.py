"""The numeric assertions: a failure says where, how many, which is worst and what was allowed.

Text is made by pure `describe_` functions; every failure is a `DivergenceError` that carries its
finding. Arrays are taken from anything `numpy.asarray` reads. Imports numpy and `parity.errors`
only.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from parity.errors import DivergenceError, describe_list

Array = NDArray[Any]
Kind = Literal["shape", "dtype", "not finite", "value", "bits"]


@dataclass(frozen=True, kw_only=True)
class ArrayDifference:
    """How two arrays differ.

    Attributes:
        where: What was compared, such as `stages.0.bn.running_var`.
        kind: What is different: the `shape`; the `dtype`; an element that is `not finite` on one
            side or not the same on both; a `value` beyond its allowance; or the `bits` of an
            element.
        actual: The worst element's value; the shape or dtype where that differs.
        expected: Likewise.
        index: Of the worst element: for values the one furthest beyond its allowance, otherwise the
            first.
        gap: `|actual - expected|` at the worst element; not-a-number where there is none.
        allowance: What was allowed there, `atol + rtol * |expected|`.
        atol: Absolute tolerance asked for.
        rtol: Relative tolerance asked for.
        out: How many elements differ.
        size: How many elements there are.
    """

    where: str
    kind: Kind
    actual: object
    expected: object
    index: tuple[int, ...] = ()
    gap: float = math.nan
    allowance: float = 0.0
    atol: float = 0.0
    rtol: float = 0.0
    out: int = 0
    size: int = 0

    @property
    def share(self) -> float:
        """Share of the elements that differ."""
        return self.out / self.size if self.size else 1.0


@dataclass(frozen=True, kw_only=True)
class StateDifference:
    """How two states differ.

    Attributes:
        where: What was compared.
        missing: Names expected and not there.
        unexpected: Names there and not expected.
        differences: One for each array that both have and that differs, in the expected order.
    """

    where: str
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    differences: tuple[ArrayDifference, ...]


def assert_close(
    actual: ArrayLike, expected: ArrayLike, *, atol: float, rtol: float, where: str = ""
) -> None:
    """Check `|actual - expected| <= atol + rtol * |expected|` for every element, in float64.

    Shapes must agree, nothing is broadcast; dtypes may differ. An element that is infinite or
    not-a-number passes only if it is the same on both sides.

    Raises:
        DivergenceError: If an element is out; carries an `ArrayDifference`.
        ValueError: If a tolerance is negative, infinite or not-a-number.
    """
    difference = compare_close(actual, expected, atol=atol, rtol=rtol, where=where)
    if difference is not None:
        raise DivergenceError(describe_difference(difference), difference)


def assert_identical(actual: ArrayLike, expected: ArrayLike, *, where: str = "") -> None:
    """Check that two arrays have the same shape, dtype and bits, so that 0.0 is not -0.0.

    Raises:
        DivergenceError: If they do not; carries an `ArrayDifference`.
    """
    difference = compare_bits(actual, expected, where=where)
    if difference is not None:
        raise DivergenceError(describe_difference(difference), difference)


def assert_states_close(
    actual: Mapping[str, ArrayLike],
    expected: Mapping[str, ArrayLike],
    *,
    atol: float,
    rtol: float,
    where: str = "",
) -> None:
    """Check that two states have the same names, and each array as `assert_close` does.

    Raises:
        DivergenceError: If anything differs; lists all of it and carries a `StateDifference`.
        ValueError: If a tolerance is negative, infinite or not-a-number.
    """
    _require_tolerances(atol=atol, rtol=rtol)
    compared = [
        compare_close(actual[name], expected[name], atol=atol, rtol=rtol, where=name)
        for name in expected
        if name in actual
    ]
    finding = StateDifference(
        where=where,
        missing=tuple(name for name in expected if name not in actual),
        unexpected=tuple(name for name in actual if name not in expected),
        differences=tuple(difference for difference in compared if difference is not None),
    )
    if finding.missing or finding.unexpected or finding.differences:
        raise DivergenceError(describe_state_difference(finding), finding)


def relative_gap(actual: ArrayLike, expected: ArrayLike) -> float:
    """Return `max |actual - expected| / max |expected|`, in float64.

    Infinite where `expected` is all zeros and `actual` is not, and where an element that is
    infinite or not-a-number is not the same on both sides.

    >>> relative_gap([1.0, 2.5], [1.0, 2.0])
    0.25

    Raises:
        DivergenceError: If the shapes differ.
    """
    difference = compare_close(actual, expected, atol=0.0, rtol=0.0)
    if difference is None:
        return 0.0
    if difference.kind not in ("value", "not finite"):
        raise DivergenceError(describe_difference(difference), difference)
    if difference.kind == "not finite":
        return math.inf
    reference = _widened(expected)
    scale = float(np.abs(reference[np.isfinite(reference)]).max(initial=0.0))
    return difference.gap / scale if scale else math.inf


def compare_close(
    actual: ArrayLike, expected: ArrayLike, *, atol: float, rtol: float, where: str = ""
) -> ArrayDifference | None:
    """Return how two arrays differ as `assert_close` defines it, or None if they do not."""
    _require_tolerances(atol=atol, rtol=rtol)
    left, right = np.asarray(actual), np.asarray(expected)
    structural = _compare_shapes(left, right, where=where)
    structural = structural or _compare_kinds(left, right, where=where)
    if structural is not None or left.size == 0:
        return structural
    strange = _compare_non_finite(_widened(left), _widened(right), where=where)
    return strange or _compare_values(left, right, atol=atol, rtol=rtol, where=where)


def compare_bits(
    actual: ArrayLike, expected: ArrayLike, *, where: str = ""
) -> ArrayDifference | None:
    """Return how two arrays differ as `assert_identical` defines it, or None if they do not."""
    left, right = np.asarray(actual), np.asarray(expected)
    structural = _compare_shapes(left, right, where=where)
    if structural is not None:
        return structural
    if left.dtype != right.dtype or left.dtype.hasobject:
        return ArrayDifference(
            where=where, kind="dtype", actual=str(left.dtype), expected=str(right.dtype)
        )
    different = (_as_bytes(left) != _as_bytes(right)).any(axis=-1)
    if not different.any():
        return None
    index = _index_of(different)
    return ArrayDifference(
        where=where,
        kind="bits",
        index=index,
        actual=left[index].item(),
        expected=right[index].item(),
        out=int(different.sum()),
        size=left.size,
    )


def describe_difference(difference: ArrayDifference) -> str:
    """Return the message of a failed `assert_close` or `assert_identical`.

    >>> difference = ArrayDifference(
    ...     where="bn1.weight", kind="value", actual=1.0391, expected=1.0, index=(17,),
    ...     gap=0.0391, atol=1e-6, rtol=1e-5, out=64, size=64)
    >>> print(describe_difference(difference))
    bn1.weight: 64 of 64 elements differ, worst 0.0391 at [17], allowed 1e-06 + 1e-05·|expected|.
    """
    where, actual, expected = difference.where or "arrays", difference.actual, difference.expected
    if difference.kind in ("shape", "dtype"):
        return f"{where}: expected {difference.kind} {expected}; got {actual}."
    place = f" at {list(difference.index)}" if difference.index else ""
    share = f"{where}: {difference.out} of {difference.size} elements"
    if difference.kind == "not finite":
        share = f"{share} differ in NaN or infinity"
        return f"{share}, first{place}: expected {expected!r}; got {actual!r}."
    if difference.kind == "bits":
        return f"{share} differ in their bits, first{place}: expected {expected!r}; got {actual!r}."
    allowed = f"allowed {difference.atol:g} + {difference.rtol:g}·|expected|"
    return f"{share} differ, worst {difference.gap:.3g}{place}, {allowed}."


def describe_state_difference(finding: StateDifference, *, limit: int = 10) -> str:
    """Return the message of a failed `assert_states_close`: names, then `limit` arrays a line."""
    where = finding.where or "states"
    counts = []
    if finding.missing:
        counts.append(f"{len(finding.missing)} missing ({describe_list(finding.missing)})")
    if finding.unexpected:
        counts.append(f"{len(finding.unexpected)} unexpected ({describe_list(finding.unexpected)})")
    if finding.differences:
        counts.append(f"{len(finding.differences)} differ")
    lines = [f"{where}: {', '.join(counts)}."]
    lines += [f"  {describe_difference(difference)}" for difference in finding.differences[:limit]]
    if len(finding.differences) > limit:
        lines.append(f"  and {len(finding.differences) - limit} more.")
    return "\n".join(lines)


def _require_tolerances(*, atol: float, rtol: float) -> None:
    # An infinite or not-a-number tolerance would let everything pass.
    if not (0.0 <= atol < math.inf and 0.0 <= rtol < math.inf):
        message = f"atol and rtol must be finite and >= 0; got {atol!r} and {rtol!r}."
        raise ValueError(message)


def _compare_shapes(left: Array, right: Array, *, where: str) -> ArrayDifference | None:
    if left.shape == right.shape:
        return None
    return ArrayDifference(where=where, kind="shape", actual=left.shape, expected=right.shape)


def _compare_kinds(left: Array, right: Array, *, where: str) -> ArrayDifference | None:
    if left.dtype.kind in "biuf" and right.dtype.kind in "biuf":
        return None
    return ArrayDifference(
        where=where, kind="dtype", actual=str(left.dtype), expected=f"numbers against {right.dtype}"
    )


def _compare_non_finite(
    left: NDArray[np.float64], right: NDArray[np.float64], *, where: str
) -> ArrayDifference | None:
    same = (left == right) | (np.isnan(left) & np.isnan(right))
    out = ~same & ~(np.isfinite(left) & np.isfinite(right))
    if not out.any():
        return None
    index = _index_of(out)
    return ArrayDifference(
        where=where,
        kind="not finite",
        actual=float(left[index]),
        expected=float(right[index]),
        index=index,
        out=int(out.sum()),
        size=left.size,
    )


def _compare_values(
    left: Array, right: Array, *, atol: float, rtol: float, where: str
) -> ArrayDifference | None:
    gaps, expected = _gaps(left, right), _widened(right)
    finite = np.isfinite(expected)
    allowances = atol + rtol * np.abs(np.where(finite, expected, 0.0))
    out = finite & (gaps > allowances)
    if not out.any():
        return None
    excess = np.where(out, gaps - allowances, -np.inf)
    index = _index_of(excess == excess.max())
    return ArrayDifference(
        where=where,
        kind="value",
        actual=float(left[index]),
        expected=float(right[index]),
        index=index,
        gap=float(gaps[index]),
        allowance=float(allowances[index]),
        atol=atol,
        rtol=rtol,
        out=int(out.sum()),
        size=left.size,
    )


def _widened(array: ArrayLike) -> NDArray[np.float64]:
    return np.asarray(array, dtype=np.float64)


def _gaps(left: Array, right: Array) -> NDArray[np.float64]:
    """Return `|left - right|`; whole numbers are subtracted exactly, as float64 ends at 2^53."""
    if left.dtype.kind in "biu" and right.dtype.kind in "biu":
        return _widened(np.abs(left.astype(object) - right.astype(object)))
    with np.errstate(over="ignore", invalid="ignore"):
        return np.abs(_widened(left) - _widened(right))


def _as_bytes(array: Array) -> NDArray[np.uint8]:
    contiguous = np.ascontiguousarray(array).reshape(array.shape)
    raw = np.frombuffer(contiguous.tobytes(), dtype=np.uint8)
    return raw.reshape(*array.shape, array.dtype.itemsize)


def _index_of(mask: NDArray[np.bool_]) -> tuple[int, ...]:
    return tuple(int(i) for i in np.unravel_index(int(mask.argmax()), mask.shape))
