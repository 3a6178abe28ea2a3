"""`parity ablate`: train a recipe under several values of one key over seeds, and compare."""

import functools
import itertools
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from parity import runtime
from parity.cli import options
from parity.cli.lockstep import FILE_WIDTH
from parity.cli.progress import training_bar
from parity.cli.train import PUBLISHED_DATA, make_settings
from parity.data.batches import BatchStream
from parity.data.table import load_dataset
from parity.errors import ParityError, RecipeError
from parity.lockstep.loop import model_spec, rate_at
from parity.lockstep.training import RunSettings
from parity.match.ablation import ABLATION_FILE, Ablation, OpenStream, Trained, holds_ablation
from parity.match.ablation import run_ablation as run
from parity.match.grid import Cell, build_cells, parse_epochs, parse_vary
from parity.report.ablations import describe_notes, render_ablation_tables, render_speedup_table
from parity.report.numbers import format_count, format_percent
from parity.spec.recipe import ResolvedRecipe


def ablate(
    *,
    recipe: options.RecipeOption,
    vary: Annotated[
        str,
        typer.Option(
            "--vary", metavar="KEY=V1,V2,...", help="Recipe key, as --set takes it, and its values."
        ),
    ],
    framework: Annotated[str, typer.Option("--framework", help="torch or keras.")],
    data: options.DataOption = "digits",
    data_dir: options.DataDirOption = None,
    download: options.DownloadOption = False,
    model: options.ModelOption = None,
    epochs: Annotated[
        str | None,
        typer.Option("--epochs", metavar="E1,E2,...", help="Train for each. [default: recipe's]"),
    ] = None,
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="Trainings of each setting.")] = 3,
    baseline: Annotated[
        str | None,
        typer.Option("--baseline", help="Value to compare the others with. [default: the first]"),
    ] = None,
    overrides: options.SetOption = None,
    dtype: options.DtypeOption = "float32",
    keras_backend: options.KerasBackendOption = None,
    device: options.DeviceOption = "cpu",
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder of all runs. [default: under runs/]")
    ] = None,
) -> None:
    """Train a recipe under several values of one key over seeds, and compare seed by seed.

    Started again with the same arguments, it goes on where it stopped.
    """
    key, values = parse_vary(vary)
    lengths = () if epochs is None else parse_epochs(epochs)
    reference = _find_baseline(baseline, values)
    options.check_framework(framework)
    _refuse_twice(key, model=model, overrides=overrides, has_epochs=bool(lengths))
    base = options.resolve(recipe, data=data, model=model, epochs=None, overrides=overrides)
    cells = build_cells(base, key=key, values=values, epochs=lengths)
    open_stream = _stream_opener(data, folder=data_dir, download=download)
    ablation = Ablation(
        recipe=base,
        key=key,
        values=values,
        epochs=lengths,
        seeds=seeds,
        baseline=reference,
        cells=cells,
        settings=tuple(
            _settings(cell, open_stream, framework, dtype, device, keras_backend) for cell in cells
        ),
    )
    folder = out or _default_folder(ablation)
    _announce(ablation, folder)
    try:
        with runtime.without_retracing_advice():
            record = run(
                ablation,
                folder=folder,
                open_stream=open_stream,
                watch=training_bar,
                on_trained=lambda trained: typer.echo(_describe_trained(trained, key)),
            )
    except KeyboardInterrupt:
        typer.echo("go on with the same command", err=True)
        raise
    show_record(record)
    typer.echo(f"record: {folder / ABLATION_FILE}")


def _find_baseline(name: str | None, values: tuple[str, ...]) -> str:
    if name is not None and name not in values:
        message = f"--baseline must be one of {', '.join(values)}; got {name!r}."
        raise ParityError(message)
    return name or values[0]


def _refuse_twice(
    key: str, *, model: str | None, overrides: list[str] | None, has_epochs: bool
) -> None:
    """Refuse options that set what is varied."""
    given = {change.partition("=")[0].strip(): "--set" for change in overrides or []}
    given |= {"model": "--model"} if model is not None else {}
    if has_epochs and "epochs" in given:
        message = "--set epochs: expected once; got --epochs too. Leave one of the two out."
        raise RecipeError(message)
    if key in given:
        message = f"--vary {key}: expected no {given[key]} of it beside; leave one of the two out."
        raise RecipeError(message)


def _stream_opener(data: str, *, folder: Path | None, download: bool) -> OpenStream:
    """Return what opens the batches of a recipe, reading the data set once a resolution."""

    @functools.cache
    def load(resolution: int) -> Any:  # noqa: ANN401  # functools keeps no type
        return load_dataset(data, folder=folder, resolution=resolution, download=download)

    def open_stream(recipe: ResolvedRecipe, seed: int) -> BatchStream:
        return BatchStream(load(recipe.resolution), recipe, seed=seed)

    return open_stream


def _settings(
    cell: Cell,
    open_stream: OpenStream,
    framework: str,
    dtype: str,
    device: str,
    keras_backend: str | None,
) -> RunSettings:
    """Return a cell's settings; what no run could begin with is refused here."""
    stream = open_stream(cell.recipe, 0)
    model_spec(cell.recipe, stream)
    rate_at(cell.recipe, stream, step=0)
    settings = make_settings(
        framework,
        recipe=cell.recipe,
        stream=stream,
        dtype=dtype,
        device=device,
        keras_backend=keras_backend,
    )
    runtime.require_device(framework, device)
    return settings


def _default_folder(ablation: Ablation) -> Path:
    """Return the first folder under `runs/` that is unused, or holds this ablation."""
    first = ablation.settings[0]
    label = "torch" if first.keras_backend is None else f"keras-{first.keras_backend}"
    name = f"ablate-{ablation.recipe.name}-{ablation.recipe.data}-{label}-{ablation.key}"
    identity = ablation.identity()
    folders = (
        Path("runs") / (name if count == 1 else f"{name}-{count}") for count in itertools.count(1)
    )
    return next(
        folder for folder in folders if not folder.exists() or holds_ablation(folder, identity)
    )


def _announce(ablation: Ablation, folder: Path) -> None:
    recipe, trials = ablation.recipe, ablation.trials()
    epochs = ", ".join(f"{number:g}" for number in ablation.epochs or [recipe.epochs])
    typer.echo(
        f"{recipe.name} on {recipe.data}: {ablation.key} = {', '.join(ablation.values)}; "
        f"{epochs} epochs; {format_count(ablation.seeds, 'seed')}: "
        f"{format_count(len(trials), 'training')} -> {folder}"
    )
    if recipe.data != PUBLISHED_DATA:
        typer.echo(f"(the published setting of {recipe.name} is --data {PUBLISHED_DATA})")


def _describe_trained(trained: Trained, key: str) -> str:
    cell, accuracy = trained.trial.cell, trained.result["test_accuracy"]
    epochs = f"{cell.recipe.epochs:g} {'epoch' if cell.recipe.epochs == 1 else 'epochs'}"
    return (
        f"[{trained.index}/{trained.count}] seed {trained.trial.settings.seed}, {epochs}, "
        f"{key}={cell.value}: {format_percent(accuracy)}"
        f"{', trained before' if trained.found else ''}"
    )


def show_record(record: dict[str, Any]) -> None:
    """Print an ablation's tables and notes."""
    console = Console()
    if not console.is_terminal:
        console.width = FILE_WIDTH
    for table in (*render_ablation_tables(record), render_speedup_table(record)):
        if table is not None:
            console.print(table)
    for note in describe_notes(record):
        console.print(f"note: {note}", markup=False, highlight=False)
