"""`parity differences`: the register of what PyTorch and Keras compute differently."""

from collections.abc import Sequence
from typing import Annotated

import typer
from rich.console import Console

from parity import runtime
from parity.cli import options
from parity.errors import DivergenceError, SpecError, describe_nearest
from parity.report.differences import (
    describe_difference,
    render_differences_table,
    render_markdown,
)
from parity.spec.differences import Difference, find_difference, load_differences


def differences(
    name: Annotated[str | None, typer.Argument(metavar="[ID]", help="One difference.")] = None,
    *,
    layer: Annotated[
        str | None, typer.Option("--layer", help="Those of a layer kind: batch_norm, optimizer.")
    ] = None,
    run: Annotated[
        bool, typer.Option("--run", help="Run the snippets and show the gaps they leave.")
    ] = False,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print the whole register as Markdown.")
    ] = False,
    keras_backend: options.KerasBackendOption = None,
) -> None:
    """List the known differences of PyTorch and Keras, show one with its code, or run them."""
    register = load_differences()
    if markdown:
        typer.echo(render_markdown(register), nl=False)
        return
    rows = [find_difference(name, register)] if name else _of_layer(register, layer)
    if run:
        _run(rows, keras_backend)
    elif name:
        typer.echo(describe_difference(rows[0]))
    else:
        console = Console()
        console.print(render_differences_table(rows))
        typer.echo("parity differences ID shows one with code that runs; --run runs it here.")


def _of_layer(register: Sequence[Difference], layer: str | None) -> list[Difference]:
    layers = list(dict.fromkeys(row.layer for row in register))
    if layer is not None and layer not in layers:
        message = f"--layer {layer!r} not found.{describe_nearest(layer, layers)}"
        raise SpecError(message)
    return [row for row in register if layer in (None, row.layer)]


def _run(rows: Sequence[Difference], keras_backend: str | None) -> None:
    """Show the gaps of each row, and fail at the end if one is not what the register says."""
    backend = runtime.select_keras_backend(keras_backend)
    from parity.frameworks.demonstration import demonstrate, describe_change

    changed = []
    for row in rows:
        if backend not in row.backends:
            typer.echo(f"{row.id}: not on {backend}")
            continue
        shown = demonstrate(row)
        default = "differ" if shown.default is None else f"gap {shown.default:.2g}"
        settled = "" if shown.settled is None else f"; settled {shown.settled:.1g}"
        typer.echo(f"{row.id}: by default {default}{settled}")
        change = describe_change(row, shown)
        if change is not None:
            changed.append(change)
    if changed:
        raise DivergenceError(" ".join(changed))
