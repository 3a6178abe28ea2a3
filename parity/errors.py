"""Exceptions of the toolkit, and the grammar of their messages.

A message says, in this order: where; what was expected; what came; what to do. All offenders of one
kind are collected before one error is raised. Imports nothing but the standard library.
"""

import difflib
from collections.abc import Iterable, Sequence


class ParityError(Exception):
    """Base of every error that a caller can cause.

    Commands print it in one line and exit with code 2.
    """


class SpecError(ParityError, ValueError):
    """A model, convention, optimizer or schedule spec that names nothing that can be built."""


class RecipeError(ParityError, ValueError):
    """A recipe that is unknown, incomplete, or holds a wrong key or value."""


class ConversionError(ParityError, ValueError):
    """A checkpoint that cannot be read, or does not fit the model it is converted for."""


class DataError(ParityError, ValueError):
    """A data set that is missing, truncated or not in its published format."""


class RunError(ParityError, ValueError):
    """A run folder that cannot be created, resumed or read."""


class CaptureError(ParityError, ValueError):
    """A model that cannot be followed, built or run as asked."""


class FitError(ParityError, ValueError):
    """Measurements to which a curve cannot be fitted."""


class MissingFrameworkError(ParityError, ImportError):
    """A framework that a command needs is not installed."""


class DivergenceError(ParityError, AssertionError):
    """A failed check; `finding` holds what was measured."""

    def __init__(self, message: str, finding: object = None) -> None:
        super().__init__(message)
        self.finding = finding


def describe_nearest(name: str, known: Iterable[str]) -> str:
    """Return `" Nearest: x."` for the known name closest to `name`, or all names if none is close.

    >>> describe_nearest("best_sdg", ["best_sgd", "adam"])
    ' Nearest: best_sgd.'
    """
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if close:
        return f" Nearest: {close[0]}."
    return f" Known: {', '.join(names)}." if names else ""


def describe_list(names: Sequence[str], *, limit: int = 10) -> str:
    """Return the names joined by commas, cut after `limit` with a count of the rest.

    >>> describe_list(["a", "b", "c"], limit=2)
    'a, b and 1 more'
    """
    if len(names) <= limit:
        return ", ".join(names)
    return f"{', '.join(names[:limit])} and {len(names) - limit} more"
