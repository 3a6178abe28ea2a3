"""`parity train`: train one twin under a recipe."""

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from parity import runtime
from parity.cli import options
from parity.cli.progress import training_bar
from parity.data.batches import BatchStream
from parity.errors import ParityError, RunError, describe_list
from parity.frameworks.build import default_memory_format
from parity.lockstep.loop import model_spec
from parity.lockstep.training import (
    RunSettings,
    TrainingRun,
    describe_changes,
    read_identity,
    resume_run,
    start_run,
)
from parity.report.text import render_toml
from parity.spec.recipe import ResolvedRecipe

DEFAULT_DATA = "digits"
PUBLISHED_DATA = "cifar10"


def train(
    *,
    framework: Annotated[str | None, typer.Option("--framework", help="torch or keras.")] = None,
    recipe: Annotated[
        str | None, typer.Option("--recipe", help="Recipe name, or path of a .toml file.")
    ] = None,
    data: Annotated[
        str | None,
        typer.Option("--data", help="Data set; `parity list data` shows them. [default: digits]"),
    ] = None,
    data_dir: options.DataDirOption = None,
    download: options.DownloadOption = False,
    model: options.ModelOption = None,
    epochs: options.EpochsOption = None,
    seed: Annotated[
        int | None,
        typer.Option("--seed", min=0, help="Of weights, batch order, augmentation. [default: 0]"),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Run folder. [default: under runs/]")
    ] = None,
    overrides: options.SetOption = None,
    dtype: options.TrainingDtypeOption = None,
    compiled: options.CompileOption = None,
    keras_backend: options.KerasBackendOption = None,
    device: Annotated[
        str | None, typer.Option("--device", help="cpu, cuda, cuda:1, mps. [default: cpu]")
    ] = None,
    resume: Annotated[
        Path | None, typer.Option("--resume", help="Go on with the run in this folder.")
    ] = None,
    resolved: Annotated[
        bool, typer.Option("--resolved", help="Print the resolved recipe as TOML and stop.")
    ] = False,
) -> None:
    """Train one twin under a recipe; a run folder holds metrics, checkpoint and weights."""
    changes: dict[str, Any] = {"model": model, "epochs": epochs, "overrides": overrides}
    asked = {
        "framework": framework,
        "seed": seed,
        "dtype": dtype,
        "compiled": compiled,
        "device": device,
        "keras_backend": keras_backend,
    }
    if resume is not None:
        run = _resume(
            resume, out, recipe=recipe, data=data, data_dir=data_dir, download=download,
            changes=changes, asked=asked,
        )  # fmt: skip
        if resolved:
            typer.echo(render_toml(run.recipe.to_table()), nl=False)
            return
        carry_out(run)
        return
    if recipe is None:
        message = "train: expected --framework torch|keras and --recipe NAME, or --resume DIR."
        raise ParityError(message)
    wanted = options.resolve(recipe, data=_unless_none(data, DEFAULT_DATA), **changes)
    if resolved:
        typer.echo(render_toml(wanted.to_table()), nl=False)
        return
    options.check_framework(framework)
    stream = options.open_stream(wanted, seed=seed or 0, folder=data_dir, download=download)
    settings = make_settings(
        str(framework),
        recipe=wanted,
        stream=stream,
        dtype=_unless_none(dtype, "float32"),
        compiled=bool(compiled),
        device=_unless_none(device, "cpu"),
        keras_backend=keras_backend,
    )
    folder = out or default_folder(wanted, settings)
    carry_out(start_run(wanted, settings, stream=stream, folder=folder))


def _unless_none(value: str | None, default: str) -> str:
    return default if value is None else value


def make_settings(
    framework: str,
    *,
    recipe: ResolvedRecipe,
    stream: BatchStream,
    dtype: str = "float32",
    compiled: bool = False,
    device: str = "cpu",
    keras_backend: str | None = None,
) -> RunSettings:
    """Return a run's settings, with Keras's backend and torch's memory format decided."""
    options.check_dtype(dtype)
    if framework == "torch":
        if keras_backend is not None:
            message = f"--keras-backend {keras_backend!r} goes with --framework keras; got torch."
            raise ParityError(message)
        runtime.require_framework("torch", extra="torch")
        memory_format = default_memory_format(model_spec(recipe, stream), dtype, device=device)
        backend = None
    else:
        memory_format, backend = None, runtime.select_keras_backend(keras_backend)
    return RunSettings(
        seed=stream.seed,
        framework=framework,
        dtype=dtype,
        compiled=compiled,
        device=device,
        keras_backend=backend,
        memory_format=memory_format,
    )


def default_folder(recipe: ResolvedRecipe, settings: RunSettings) -> Path:
    """Return the first unused folder under `runs/` that says what the run is."""
    backend = settings.keras_backend
    framework = settings.framework if backend is None else f"keras-{backend}"
    name = f"{recipe.name}-{recipe.data}-{framework}-seed{settings.seed}"
    return options.unused_folder(Path("runs") / name)


def describe_start(run: TrainingRun) -> list[str]:
    """Return the lines that say what is about to be trained."""
    settings, recipe = run.settings, run.recipe
    how = f"{settings.dtype}, compiled" if settings.compiled else settings.dtype
    task = f"{recipe.name} on {recipe.data}: {recipe.model}, {recipe.epochs} epochs"
    lines = [f"{task}, {run.net.label} {how}, seed {settings.seed} -> {run.folder}"]
    if run.step:
        lines.append(f"going on after step {run.step} of {run.steps}")
    if settings.compiled and settings.keras_backend == "jax":
        lines.append("(Keras on jax is compiled in any case: --compile changes nothing)")
    if recipe.data != PUBLISHED_DATA:
        lines.append(f"(the published setting of {recipe.name} is --data {PUBLISHED_DATA})")
    return lines


def carry_out(run: TrainingRun) -> dict[str, Any]:
    """Train to the end with a progress bar, then say what came of it."""
    settings = run.settings
    typer.echo("\n".join(describe_start(run)))
    try:
        with training_bar(run.net.label) as show:
            result = run.train(on_progress=show)
    except KeyboardInterrupt:
        go_on = shlex.join(["python", "-m", "parity.train", "--resume", str(run.folder)])
        typer.echo(f"go on with: {go_on}", err=True)
        raise
    plain = result.get("test_accuracy_plain")
    without = "" if plain is None else f" ({plain:.2%} without test-time augmentation)"
    typer.echo(
        f"test accuracy {result['test_accuracy']:.2%}{without}, loss {result['test_loss']:.4f}, "
        f"{result['steps']} steps in {result['seconds']:.1f} s"
    )
    target = run.folder / ("weights.pt" if settings.framework == "keras" else "model.weights.h5")
    paths = [str(run.weights_path), str(target), "--run", str(run.folder)]
    typer.echo(f"convert: {shlex.join(['python', '-m', 'conversion', *paths])}")
    return result


def _resume(
    folder: Path,
    out: Path | None,
    *,
    recipe: str | None,
    data: str | None,
    data_dir: Path | None,
    download: bool,
    changes: dict[str, Any],
    asked: dict[str, Any],
) -> TrainingRun:
    """Reopen a stored run, unless the options ask for another one."""
    if out is not None:
        message = f"--out {out}: expected no --out beside --resume; a run stays in its folder."
        raise RunError(message)
    stored, settings = read_identity(folder)
    departures = _departures(
        stored, settings, recipe=recipe, data=data, changes=changes, asked=asked
    )
    if departures:
        message = (
            f"--resume {folder}: the stored run is another one: {describe_list(departures)}. "
            "Leave these options out to go on with it."
        )
        raise RunError(message)
    options.check_dtype(settings.dtype)
    if settings.framework == "keras":
        runtime.select_keras_backend(settings.keras_backend)
    stream = options.open_stream(stored, seed=settings.seed, folder=data_dir, download=download)
    return resume_run(folder, stream=stream)


def _departures(
    stored: ResolvedRecipe,
    settings: RunSettings,
    *,
    recipe: str | None,
    data: str | None,
    changes: dict[str, Any],
    asked: dict[str, Any],
) -> list[str]:
    """Return where the options of a resumed run differ from what is stored."""
    departures = []
    if recipe is not None or data is not None or any(changes.values()):
        wanted = options.resolve(recipe or stored.name, data=data or stored.data, **changes)
        departures += describe_changes(stored.to_table(), wanted.to_table())
    for name, value in asked.items():
        if value is not None:
            departures += describe_changes(getattr(settings, name), value, where=name)
    return departures
