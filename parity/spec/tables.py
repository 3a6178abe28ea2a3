"""Strict tables: from TOML to specs, every key named, every type as it is written.

Messages begin with `where`, the file, and name keys by their full path, `prefix` included.
"""

import dataclasses
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from parity.errors import RecipeError, SpecError, describe_nearest


def require_table(value: object, *, where: str, key: str) -> Mapping[str, Any]:
    """Return a value that is a table.

    Raises:
        RecipeError: If it is anything else.
    """
    if not isinstance(value, Mapping):
        message = f"{where}: {key} must be a table; got {value!r}."
        raise RecipeError(message)
    return value


def require_keys(
    table: Mapping[str, Any], expected: Sequence[str], *, where: str, prefix: str
) -> None:
    """Check that a table has the expected keys and no other.

    Raises:
        RecipeError: If a key is missing or unknown; all of a kind are listed.
    """
    missing = [f"{prefix}{key}" for key in expected if key not in table]
    if missing:
        keys = "key" if len(missing) == 1 else "keys"
        message = (
            f"{where}: {len(missing)} {keys} missing ({', '.join(missing)}). "
            "A recipe names every key."
        )
        raise RecipeError(message)
    require_known(table, expected, where=where, prefix=prefix)


def require_known(
    table: Mapping[str, Any], known: Sequence[str], *, where: str, prefix: str
) -> None:
    """Check that a table has known keys only.

    Raises:
        RecipeError: If a key is unknown; all are listed, each with the nearest known one.
    """
    require_table(table, where=where, key=prefix.rstrip("."))
    unknown = [key for key in table if key not in known]
    if unknown:
        hints = "".join(f" {prefix}{key}:{describe_nearest(key, known)}" for key in unknown)
        message = f"{where}: {len(unknown)} unknown key{'s' * (len(unknown) > 1)}.{hints}"
        raise RecipeError(message)


def build_table(cls: type, table: Mapping[str, Any], *, where: str, prefix: str) -> Any:  # noqa: ANN401  # of cls
    """Return the spec of class `cls` that a table of exactly its fields describes.

    Raises:
        RecipeError: If a key is missing or unknown, or a value has the wrong type or range.
    """
    hints = typing.get_type_hints(cls)
    fields = [field.name for field in dataclasses.fields(cls)]
    require_keys(table, fields, where=where, prefix=prefix)
    problems = [
        problem
        for field in fields
        if (problem := describe_wrong_type(f"{prefix}{field}", table[field], hints[field]))
    ]
    if problems:
        message = f"{where}: " + " ".join(problems)
        raise RecipeError(message)
    try:
        return cls(
            **{key: tuple(part) if type(part) is list else part for key, part in table.items()}
        )
    except SpecError as error:
        message = f"{where}: {error}"
        raise RecipeError(message) from error


def describe_wrong_type(key: str, value: object, hint: Any) -> str | None:  # noqa: ANN401
    """Return what is wrong with a value's type, or None; an int is no float and no bool.

    >>> describe_wrong_type("optimizer.momentum", 0, float)
    'optimizer.momentum must be a float; got 0 (int). Write 0.0.'
    """
    if typing.get_origin(hint) is Literal:
        choices = typing.get_args(hint)
        if any(value == choice and type(value) is type(choice) for choice in choices):
            return None
        allowed = ", ".join(map(repr, choices))
        return f"{key} must be one of {allowed}; got {value!r} ({type(value).__name__})."
    if typing.get_origin(hint) is tuple:
        return _describe_wrong_list(key, value, typing.get_args(hint)[0])
    choices = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    if any(dataclasses.is_dataclass(choice) for choice in choices) or type(value) in choices:
        return None  # nested specs are built, and so checked, on their own
    fix = f" Write {float(value)!r}." if hint is float and type(value) is int else ""
    wanted = " or ".join(f"{'an' if one is int else 'a'} {one.__name__}" for one in choices)
    return f"{key} must be {wanted}; got {value!r} ({type(value).__name__}).{fix}"


def _describe_wrong_list(key: str, value: object, hint: type) -> str | None:
    if dataclasses.is_dataclass(hint):
        return None  # built, and so checked, on their own
    if type(value) is list and all(type(part) is hint for part in value):
        return None
    return f"{key} must be a list of {hint.__name__}; got {value!r} ({type(value).__name__})."
