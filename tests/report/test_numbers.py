"""How numbers are written."""

import math
import sys

import pytest

from parity.report.numbers import (
    MISSING,
    format_count,
    format_digest,
    format_gap,
    format_growth,
    format_percent,
    format_points,
    format_ratio,
    format_seconds,
)


@pytest.mark.parametrize(
    ("write", "number", "expected"),
    [
        (format_percent, 0.988888, "98.89 %"),
        (format_percent, 1.0, "100.00 %"),
        (format_points, 0.00128, "0.13"),
        (format_gap, 2.5e-4, "2.5e-04"),
        (format_gap, 0.0, "0"),
        (format_gap, math.nan, "not finite"),
        (format_gap, sys.float_info.max, "not finite"),
        (format_growth, 1.01234, "1.012"),
        (format_ratio, 0.31, "0.310"),
        (format_ratio, 999.9994, "999.999"),
        (format_ratio, 2.5e9, "2.5e+09"),
        (format_ratio, 3.4e-4, "3.4e-04"),
        (format_ratio, 0.0, "0"),
        (format_ratio, math.inf, "not finite"),
        (format_ratio, sys.float_info.max, "not finite"),
        (format_seconds, 7.123, "7.1"),
        (format_digest, "0123456789abcdef", "01234567"),
    ],
)
def test_number_is_written_with_fixed_digits(write, number, expected):
    assert write(number) == expected


@pytest.mark.parametrize(
    "write",
    [format_percent, format_points, format_gap, format_ratio, format_seconds, format_digest],
)
def test_missing_number_is_written_as_a_dash(write):
    assert write(None) == MISSING


@pytest.mark.parametrize(("count", "expected"), [(1, "1 run"), (0, "0 runs"), (1437, "1,437 runs")])
def test_count_is_written_with_its_noun(count, expected):
    assert format_count(count, "run") == expected
