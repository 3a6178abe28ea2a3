"""How numbers are written, in the terminal and on the page alike.

A missing number is a dash, never a zero.
"""

import sys

MISSING = "\N{EN DASH}"
NOT_FINITE = "not finite"
_SMALL_RATIO, _LARGE_RATIO = 0.001, 1000


def format_percent(share: float | None) -> str:
    """Return a share in [0, 1] as percent with two decimals.

    >>> format_percent(0.98889)
    '98.89 %'
    """
    return MISSING if share is None else f"{100 * share:.2f} %"


def format_points(share: float | None) -> str:
    """Return a difference of shares in percentage points with two decimals.

    >>> format_points(0.00128)
    '0.13'
    """
    return MISSING if share is None else f"{100 * share:.2f}"


def format_gap(gap: float | None) -> str:
    """Return a gap or bound with two digits; exactly zero is written `0`.

    A record holds the largest float where a number is not finite, which JSON cannot write.

    >>> format_gap(2.5e-4), format_gap(0.0)
    ('2.5e-04', '0')
    """
    if gap is None:
        return MISSING
    if not is_finite(gap):
        return NOT_FINITE
    return "0" if gap == 0 else f"{gap:.1e}"


def format_ratio(ratio: float | None) -> str:
    """Return a ratio with three decimals, or with two digits where those would not do.

    >>> format_ratio(0.31), format_ratio(2.5e9), format_ratio(3.4e-4)
    ('0.310', '2.5e+09', '3.4e-04')
    """
    if ratio is None:
        return MISSING
    if not is_finite(ratio):
        return NOT_FINITE
    if ratio == 0:
        return "0"
    return f"{ratio:.3f}" if _SMALL_RATIO <= abs(ratio) < _LARGE_RATIO else f"{ratio:.1e}"


def is_finite(number: float) -> bool:
    """Return whether a recorded number is one, not the largest float that stands for infinity.

    >>> is_finite(1.0), is_finite(float("inf"))
    (True, False)
    """
    return abs(number) < sys.float_info.max


def format_growth(growth: float | None) -> str:
    """Return a factor a step with three decimals.

    >>> format_growth(1.0123)
    '1.012'
    """
    return MISSING if growth is None else f"{growth:.3f}"


def format_seconds(seconds: float | None) -> str:
    """Return seconds with one decimal.

    >>> format_seconds(7.123)
    '7.1'
    """
    return MISSING if seconds is None else f"{seconds:.1f}"


def format_count(count: int, noun: str) -> str:
    """Return a count with its noun, in the plural where it is not one.

    >>> format_count(1, "seed"), format_count(1437, "step")
    ('1 seed', '1,437 steps')
    """
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def format_digest(digest: str | None) -> str:
    """Return the first eight characters of a digest.

    >>> format_digest("0123456789abcdef")
    '01234567'
    """
    return MISSING if digest is None else digest[:8]
