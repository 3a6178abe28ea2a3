"""Files of a run folder: a kill leaves the old file or the new one, never half of one."""

import contextlib
import json
import os
import shlex
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from parity.errors import RunError

if sys.platform != "win32":
    import fcntl

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
        is_run = RUN_FILE in held
        resume = f", or go on with: parity train --resume {shlex.quote(str(folder))}"
        message = (
            f"output folder {str(folder)!r}: expected a new or empty folder; "
            f"got one that holds {held[0]!r}. "
            f"Choose another with --out{resume if is_run else ''}."
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
        temporary.chmod(0o666 & ~_umask())  # mkstemp's files are private
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


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def lock_folder(folder: Path) -> int:
    """Keep other processes out of a run folder for as long as this one lives; return the handle.

    Raises:
        RunError: If another process trains there.
    """
    handle = os.open(folder, os.O_RDONLY)
    if sys.platform != "win32":
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(handle)
            message = (
                f"{folder}: another process trains in this folder. "
                "Wait until it ends, or choose another --out."
            )
            raise RunError(message) from error
    return handle


@contextlib.contextmanager
def new_folder(folder: Path) -> Iterator[None]:
    """Create an output folder; where nothing has been written on the way out, take it away again.

    Raises:
        RunError: If it cannot be created, or exists and holds something.
    """
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    create_folder(folder)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            for path in made or [folder]:
                path.rmdir()  # refuses a folder that holds anything


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
