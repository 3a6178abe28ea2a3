"""`parity lockstep`: train both twins on the same batches and compare every step."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress

from parity.cli import options
from parity.compare.verdicts import EXIT_CODES
from parity.errors import ParityError
from parity.lockstep.comparison import run_lockstep
from parity.lockstep.files import LOCKSTEP_FILE, new_folder, write_json
from parity.lockstep.pair import LockstepSettings
from parity.report.html import write_report
from parity.report.locksteps import parse_lockstep
from parity.report.text import describe_verdict, render_lockstep_table

REPORT_FILE = "report.html"
# Columns of a table that goes to a file or a pipe, which have no width of their own.
FILE_WIDTH = 120


def lockstep(
    *,
    recipe: options.RecipeOption,
    steps: Annotated[int, typer.Option("--steps", min=1, help="Training steps.")] = 200,
    data: options.DataOption = "digits",
    data_dir: options.DataDirOption = None,
    download: options.DownloadOption = False,
    model: options.ModelOption = None,
    seed: options.SeedOption = 0,
    overrides: options.SetOption = None,
    dtype: options.DtypeOption = "float64",
    reference: Annotated[str, typer.Option("--reference", help="torch or keras.")] = "torch",
    candidate: Annotated[
        str | None, typer.Option("--candidate", help="torch or keras; the other one if left out.")
    ] = None,
    keras_backend: options.KerasBackendOption = None,
    compiled: Annotated[
        bool,
        typer.Option("--compile", help="Compile the candidate: torch.compile, or XLA in Keras."),
    ] = False,
    device: options.DeviceOption = "cpu",
    every: Annotated[int, typer.Option("--every", min=1, help="Steps between comparisons.")] = 1,
    resync: Annotated[
        bool,
        typer.Option(
            "--resync/--free",
            help="Give the candidate the reference's state after each comparison.",
        ),
    ] = True,
    inject: Annotated[
        str | None,
        typer.Option(
            "--inject", metavar="FIELD=VALUE", help="Give the candidate a wrong convention."
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder for the record and the HTML report.")
    ] = None,
) -> int:
    """Train two nets on the same batches, compare every step and name the first divergence."""
    settings = LockstepSettings(
        steps=steps,
        every=every,
        mode="resync" if resync else "free",
        dtype=dtype,
        seed=seed,
        reference=reference,
        candidate=candidate or ("torch" if reference == "keras" else "keras"),
        keras_backend=keras_backend,
        compiled=compiled,
        device=device,
    )
    if every > 1 and not resync:
        message = (
            f"--every {every} goes with --resync; free-running nets are compared at every step."
        )
        raise ParityError(message)
    options.require_frameworks(settings.reference, settings.candidate, keras_backend=keras_backend)
    resolved = options.resolve(recipe, data=data, model=model, epochs=None, overrides=overrides)
    stream = options.open_stream(resolved, seed=seed, folder=data_dir, download=download)
    with contextlib.nullcontext() if out is None else new_folder(out):
        with step_bar(steps) as show:
            record = run_lockstep(resolved, settings, stream=stream, inject=inject, on_step=show)
        show_record(record)
        if out is not None:
            _save(record, out)
    return EXIT_CODES[record["verdict"]]


def _save(record: dict[str, Any], folder: Path) -> None:
    write_json(folder / LOCKSTEP_FILE, record)
    page = folder / REPORT_FILE
    write_report(
        page,
        runs=[],
        lockstep=[parse_lockstep(record, where=str(folder))],
        command=options.command_line(),
    )
    typer.echo(f"report: {page}")


def show_record(record: dict[str, Any]) -> None:
    """Print a lockstep's table, notes and verdict."""
    console = Console()
    if not console.is_terminal:
        console.width = FILE_WIDTH
    if record["summary"]:
        console.print(render_lockstep_table(record))
    for note in record["notes"]:
        console.print(f"note: {note}", markup=False, highlight=False)
    console.print(describe_verdict(record), markup=False, highlight=False)


@contextlib.contextmanager
def step_bar(steps: int) -> Iterator[Callable[[int], None]]:
    """Yield a function that shows how many steps are done, on a terminal."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda _step: None
        return
    with Progress(console=console, transient=True) as bar:
        task = bar.add_task("lockstep", total=steps)
        yield lambda step: bar.update(task, completed=step)
