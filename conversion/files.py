"""Reading the start of a file for an error message, and writing a file whole or not at all."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from parity.errors import ConversionError

_SHOWN_BYTES = 8


def describe_content(path: Path) -> str:
    """Return the size of a file and how it starts, for "expected ...; got ..." messages."""
    with path.open("rb") as file:
        start = file.read(_SHOWN_BYTES)
    size = path.stat().st_size
    return f"got {size} bytes starting with {start!r}" if size else "got an empty file"


def starts_with(path: Path, *signatures: bytes) -> bool:
    """Return whether the file begins with one of the signatures."""
    with path.open("rb") as file:
        return file.read(max(map(len, signatures))).startswith(signatures)


@contextmanager
def partial_file(target: Path, content: bytes) -> Iterator[Path]:
    """Yield a finished file beside `target` that becomes `target` when the block ends.

    On any error in the block, or in writing, nothing of it remains and `target` is as it was.

    Raises:
        ConversionError: If the system refuses to write.
    """
    # Format readers go by the suffix, so the partial file keeps that of the target.
    partial = target.with_name(f".{secrets.token_hex(4)}.partial.{target.name}")
    try:
        _write_synced(partial, content, target=target)
        yield partial
        try:
            partial.replace(target)
        except OSError as error:
            raise ConversionError(describe_refusal(target, error)) from error
    finally:
        partial.unlink(missing_ok=True)


def _write_synced(path: Path, content: bytes, *, target: Path) -> None:
    try:
        with path.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise ConversionError(describe_refusal(target, error)) from error


def describe_refusal(path: Path, error: OSError) -> str:
    """Return why a file could not be written."""
    return f"{path}: could not be written: {error.strerror or error}. Nothing was written."
