"""The command `python -m conversion`: one conversion and its report.

Exit codes are in `parity.exits`; 1 says that verification found a difference.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from conversion.convert import convert_checkpoint
from conversion.models import run_spec
from conversion.report import render_report
from parity.exits import run_app
from parity.spec.models import MODELS

# Columns of the report where no terminal says how many there are.
_WIDTH_IN_FILES = 160

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.command()
def convert(
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="Checkpoint to read.")],
    target: Annotated[Path, typer.Argument(metavar="TARGET", help="Checkpoint to write.")],
    *,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help=f"Model, with options as name:width=32. One of {', '.join(MODELS)}.",
        ),
    ] = None,
    run: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Run folder that records the model.")
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Conventions that the file does not state: torch, keras."
        ),
    ] = None,
    classes: Annotated[
        int | None, typer.Option(min=1, help="Number of classes the file must have.")
    ] = None,
    input_size: Annotated[
        int | None, typer.Option(min=1, help="Image side in pixels; 32 or 224 by the stem.")
    ] = None,
    no_verify: Annotated[
        bool, typer.Option("--no-verify", help="Skip reading back and comparing.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing target.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Leave out the table of layers.")] = False,
) -> None:
    """Convert a checkpoint between PyTorch and Keras, value for value, and verify the result.

    The formats follow from the names: .pt .pth .safetensors .weights.h5 .keras
    """
    if (model is None) == (run is None):
        message = "give either --model NAME or --run DIR."
        raise typer.BadParameter(message)
    if run and preset:
        message = "--preset goes with --model: a run records its conventions."
        raise typer.BadParameter(message)
    report = convert_checkpoint(
        source,
        target,
        model=model,
        spec=run_spec(run) if run else None,
        preset=preset,
        input_size=input_size,
        classes=classes,
        verify=not no_verify,
        overwrite=force,
    )
    width = None if sys.stdout.isatty() else _WIDTH_IN_FILES
    render_report(report, console=Console(width=width), with_layers=not quiet)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    given = sys.argv[1:] if arguments is None else arguments
    return run_app(app, given, prog_name="python -m conversion")
