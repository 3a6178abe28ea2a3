"""`parity report`: one HTML page of runs and locksteps."""

from pathlib import Path
from typing import Annotated

import typer

from parity.cli import options
from parity.errors import RunError
from parity.lockstep.files import LOCKSTEP_FILE, RUN_FILE
from parity.report.html import write_report
from parity.report.locksteps import LockstepRecord, read_lockstep
from parity.report.records import RunRecord, read_run

_PAGE = b"<!doctype html>"


def report(
    folders: Annotated[list[Path], typer.Argument(help="Run folders and lockstep folders.")],
    out: Annotated[Path, typer.Option("--out", help="The page to write.")] = Path("report.html"),
) -> None:
    """Write one self-contained HTML page of training runs and locksteps."""
    _check_page(out)
    runs, locksteps = read_folders(folders)
    write_report(out, runs=runs, lockstep=locksteps, command=options.command_line())
    typer.echo(f"report: {out}")


def _check_page(path: Path) -> None:
    """Refuse to write over anything but an earlier page."""
    if path.suffix not in (".html", ".htm"):
        message = f"--out {str(path)!r}: expected a name that ends in .html."
        raise RunError(message)
    if path.is_file() and not path.read_bytes()[:100].lstrip().lower().startswith(_PAGE):
        message = f"--out {str(path)!r}: expected a new file or an earlier page; got another file."
        raise RunError(message)


def read_folders(folders: list[Path]) -> tuple[list[RunRecord], list[LockstepRecord]]:
    """Return what each folder holds.

    Raises:
        RunError: If a folder holds neither a run nor a lockstep.
    """
    runs, locksteps, foreign = [], [], []
    for folder in folders:
        if (folder / LOCKSTEP_FILE).is_file():
            locksteps.append(read_lockstep(folder / LOCKSTEP_FILE))
        elif (folder / RUN_FILE).is_file():
            runs.append(read_run(folder))
        else:
            foreign.append(str(folder))
    if foreign:
        message = f"{', '.join(foreign)}: expected {RUN_FILE} or {LOCKSTEP_FILE}; found neither."
        raise RunError(message)
    return runs, locksteps
