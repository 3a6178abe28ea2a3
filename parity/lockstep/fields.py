"""Tables of run records, read from their JSON files and checked: which keys, of which types.

All offenders of one kind are collected before one error is raised.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from parity.errors import RunError, describe_list

FORMAT = 1

# What follows the name of a compiled net in the record of a lockstep.
COMPILED = "-compiled"

Types = tuple[type, ...]
Fields = Mapping[str, Types]

NUMBER: Types = (int, float)
OPTIONAL_NUMBER: Types = (int, float, type(None))
OPTIONAL_TEXT: Types = (str, type(None))

FRAMEWORKS = ("torch", "keras")
STATUSES = ("running", "interrupted", "finished")
_RUN: Fields = {"format": (int,), "identity": (dict,), "status": (str,)}
_FINISHED: Fields = {"stream_digest": (str,), "parameters": (int,), "result": (dict,)}
IDENTITY: Fields = {
    "recipe": (dict,),
    "seed": (int,),
    "framework": (str,),
    "keras_backend": OPTIONAL_TEXT,
    "dtype": (str,),
    "compiled": (bool,),
    "threads": (int, type(None)),
    "memory_format": OPTIONAL_TEXT,
    "device": (str,),
    "versions": (dict,),
    "cpu": (str,),
}
_RESULT: Fields = {
    "test_accuracy": NUMBER,
    "test_accuracy_plain": OPTIONAL_NUMBER,
    "test_loss": NUMBER,
    "seconds": NUMBER,
    "steps": (int,),
}


def read_table(path: Path) -> Mapping[str, Any]:
    """Return the JSON object that a file holds.

    Raises:
        RunError: If the file is missing or damaged.
    """
    try:
        table = json.loads(path.read_bytes())
    except OSError as error:
        message = (
            f"{path}: expected the record of a run; {error.strerror or error}. "
            f"Is {str(path.parent)!r} a run folder?"
        )
        raise RunError(message) from error
    except ValueError as error:
        message = f"{path}: expected JSON; {error}. The file is damaged: repeat the run."
        raise RunError(message) from error
    return require_table(table, where=str(path))


def read_run_table(path: Path) -> Mapping[str, Any]:
    """Return what a run's `run.json` holds.

    Raises:
        RunError: If the file is missing or damaged, or has a missing key or a wrong type or value.
    """
    table, where = read_table(path), str(path)
    require_fields(table, _RUN, where=where)
    require_format(table, where=where)
    require_choice(table, "status", STATUSES, where=where)
    if table["status"] == "finished":
        require_fields(table, _FINISHED, where=where)
        result = {"test_accuracy_plain": None, **require_table(table["result"], where=where)}
        require_fields(result, _RESULT, where=where, prefix="result.")
    identity = table["identity"]
    require_fields(identity, IDENTITY, where=where, prefix="identity.")
    require_choice(identity, "framework", FRAMEWORKS, where=f"{where}: identity")
    return table


def require_table(table: object, *, where: str) -> Mapping[str, Any]:
    """Return `table` if it is a JSON object.

    Raises:
        RunError: If it is not.
    """
    if not isinstance(table, dict):
        message = f"{where}: expected a JSON object; got {type(table).__name__}."
        raise RunError(message)
    return table


def require_format(table: Mapping[str, Any], *, where: str) -> None:
    """Check the format number of a record.

    Raises:
        RunError: If another version of the toolkit wrote it.
    """
    if table["format"] != FORMAT:
        message = (
            f"{where}: format must be {FORMAT}; got {table['format']!r}. "
            "Read it with the version of the toolkit that wrote it."
        )
        raise RunError(message)


def require_choice(
    table: Mapping[str, Any], key: str, choices: Sequence[str], *, where: str
) -> None:
    """Check that a value is one of `choices`.

    Raises:
        RunError: If it is not.
    """
    if table[key] not in choices:
        message = f"{where}: {key} must be one of {', '.join(choices)}; got {table[key]!r}."
        raise RunError(message)


def require_fields(table: object, fields: Fields, *, where: str, prefix: str = "") -> None:
    """Check that every field is there with its type; `prefix` is where the table sits.

    Raises:
        RunError: If keys are missing, or else if values have the wrong type; all are listed.
    """
    values = require_table(table, where=f"{where}: {prefix.rstrip('.')}" if prefix else where)
    missing = [f"{prefix}{key}" for key in fields if key not in values]
    if missing:
        message = f"{where}: {len(missing)} keys missing ({describe_list(missing)})."
        raise RunError(message)
    wrong = [
        f"{prefix}{key} must be {_describe_types(types)}; got {values[key]!r:.60}."
        for key, types in fields.items()
        if not isinstance(values[key], types)
        or (isinstance(values[key], bool) and bool not in types)
    ]
    if wrong:
        message = f"{where}: " + " ".join(wrong)
        raise RunError(message)


_TYPE_NAMES = {
    int: "an integer",
    float: "a float",
    bool: "true or false",
    str: "a string",
    dict: "a table",
    list: "a list",
    type(None): "null",
}


def _describe_types(types: Types) -> str:
    return " or ".join(_TYPE_NAMES[kind] for kind in types)
