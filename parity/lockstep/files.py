"""Files of a run folder: a kill leaves the old file or the new one, never half of one."""

import json
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from parity.errors import RunError

RUN_FILE = "run.json"
METRICS_FILE = "metrics.jsonl"
LOCKSTEP_FILE = "lockstep.json"


def create_folder(folder: Path) -> None:
    """Create a run folder and its parents.

    Raises:
        RunError: If it cannot be created, or exists and holds something.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        held = sorted(path.name for path in folder.iterdir())
    except OSError as error:
        message = (
            f"output folder {str(folder)!r} cannot be created: {error.strerror}. "
            "Choose another with --out."
        )
        raise RunError(message) from error
    if held:
        message = (
            f"output folder {str(folder)!r}: expected a new or empty folder; "
            f"got one that holds {held[0]!r}. "
            f"Choose another with --out, or go on with --resume {folder}."
        )
        raise RunError(message)


def replace_file(path: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a temporary file beside `path`, then put it in its place.

    Raises:
        RunError: If the file cannot be written; `path` is as it was.
    """
    temporary: Path | None = None
    try:
        # Keras tells formats by the file's ending, so the temporary name keeps it.
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=".partial-", suffix=f"-{path.name}")
        os.close(handle)
        temporary = Path(name)
        write(temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        message = (
            f"{path}: cannot be written: {error.strerror or error}. "
            "Free some space or choose another --out."
        )
        raise RunError(message) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file; unlike the frameworks' own writers, a full disk is an `OSError`."""
    path.write_bytes(content)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file in one piece."""
    write_text(path, json.dumps(content, indent=2) + "\n")


def write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write JSON lines in one piece."""
    write_text(path, "".join(json.dumps(row) + "\n" for row in rows))


def write_text(path: Path, text: str) -> None:
    """Write a text file in one piece."""

    def write(temporary: Path) -> None:
        temporary.write_text(text, encoding="utf-8")

    replace_file(path, write)
