"""The command line: `parity <command>`, one module a command, one small function each.

Exit codes are in `parity.exits`. Loads no framework until a command runs.
"""

import sys
from collections.abc import Sequence

import typer

from parity.cli import (
    ablate,
    compare,
    demo,
    differences,
    environment,
    listing,
    lockstep,
    report,
    train,
)
from parity.exits import run_app

app = typer.Typer(
    name="parity",
    help="Prove that a PyTorch model and a Keras model are the same model.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("train")(train.train)
app.command("ablate")(ablate.ablate)
app.command("compare")(compare.compare)
app.command("lockstep")(lockstep.lockstep)
app.command("demo")(demo.demo)
app.command("report")(report.report)
app.command("differences")(differences.differences)
app.command("list")(listing.list_names)
app.command("env")(environment.environment)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and exit with its code; an error a user can cause is one line."""
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code."""
    return run_app(app, arguments, prog_name="parity")
