"""`parity compare`: any two models, layer by layer."""

import json
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console

from parity.compare.models import compare_models
from parity.compare.verdicts import EXIT_CODES
from parity.errors import CaptureError
from parity.frameworks.loading import load_model
from parity.frameworks.program import Array
from parity.report.comparisons import comparison_record, describe_finding, render_comparison
from parity.rng import stream

# Columns of a table that goes to a file or a pipe, which have no width of their own.
FILE_WIDTH = 120


def compare(
    *,
    reference: Annotated[
        str, typer.Argument(help="The model taken as right: module:callable or a .keras file.")
    ],
    candidate: Annotated[str, typer.Argument(help="The model in question.")],
    shape: Annotated[
        list[str] | None,
        typer.Option(
            "--input", metavar="8,3,32,32", help="Shape of an input of normal numbers; repeatable."
        ),
    ] = None,
    inputs: Annotated[
        Path | None,
        typer.Option(
            "--inputs", help="A .npz of the reference's inputs, in the order of its arrays."
        ),
    ] = None,
    candidate_inputs: Annotated[
        Path | None,
        typer.Option("--candidate-inputs", help="A .npz of the same as the candidate takes them."),
    ] = None,
    weights: Annotated[
        str,
        typer.Option("--weights", help="transfer the reference's, or compare as-is."),
    ] = "transfer",
    phases: Annotated[
        list[str] | None,
        typer.Option("--phase", help="forward or train; repeatable. Default: forward."),
    ] = None,
    pinned: Annotated[
        list[str] | None,
        typer.Option(
            "--map", metavar="A=B", help="An operation of the reference and its counterpart."
        ),
    ] = None,
    measures_statistics: Annotated[
        bool,
        typer.Option(
            "--measure-statistics", help="Give all batch norms the statistics of the inputs."
        ),
    ] = False,
    measures_power: Annotated[
        bool,
        typer.Option("--power/--no-power", help="Inject faults after a pass: would they be seen?"),
    ] = True,
    out: Annotated[Path | None, typer.Option("--out", help="Write the finding as JSON.")] = None,
) -> int:
    """Compare two models layer by layer and name the first that parts."""
    if weights not in ("transfer", "as-is"):
        message = f"--weights: expected transfer or as-is; got {weights!r}."
        raise CaptureError(message)
    arrays = _read_inputs(inputs) if inputs else _draw_inputs(shape)
    finding = compare_models(
        load_model(reference),
        load_model(candidate),
        arrays,
        candidate_inputs=_read_inputs(candidate_inputs) if candidate_inputs else None,
        weights="as-is" if weights == "as-is" else "transfer",
        phases=phases,
        pinned=_parse_pins(pinned or []),
        measures_statistics=measures_statistics,
        measures_power=measures_power,
    )
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=FILE_WIDTH)
    console.print(render_comparison(finding))
    console.print(describe_finding(finding), markup=False, soft_wrap=True)
    if out is not None:
        out.write_text(json.dumps(comparison_record(finding), indent=1) + "\n", encoding="utf-8")
    return EXIT_CODES[finding.verdict]


def _draw_inputs(shapes: list[str] | None) -> list[Array]:
    if not shapes:
        message = "inputs: expected --input with a shape such as 8,3,32,32, or --inputs file.npz."
        raise CaptureError(message)
    return [
        stream(place, "compare inputs").standard_normal(_parse_shape(text)).astype(np.float32)
        for place, text in enumerate(shapes)
    ]


def _parse_shape(text: str) -> tuple[int, ...]:
    words = text.split(",")
    if not all(word.strip().isdigit() and int(word) > 0 for word in words):
        message = f"--input: expected positive lengths such as 8,3,32,32; got {text!r}."
        raise CaptureError(message)
    return tuple(int(word) for word in words)


def _read_inputs(path: Path) -> list[Array]:
    if not path.is_file():
        message = f"inputs {path}: no such file."
        raise CaptureError(message)
    try:
        with np.load(path, allow_pickle=False) as archive:
            return [archive[name] for name in archive.files]
    except (OSError, ValueError, AttributeError) as error:
        message = f"inputs {path}: expected a .npz of plain arrays: {error}"
        raise CaptureError(message) from error


def _parse_pins(pins: list[str]) -> dict[str, str]:
    parsed = {}
    for pin in pins:
        ours, separator, theirs = pin.partition("=")
        if not separator or not ours or not theirs:
            message = f"--map: expected REFERENCE=CANDIDATE; got {pin!r}."
            raise CaptureError(message)
        parsed[ours] = theirs
    return parsed
