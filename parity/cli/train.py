"""`parity train`: train one twin under a recipe."""

from pathlib import Path
from typing import Annotated, Any

import typer

from parity import runtime
from parity.cli import options
from parity.cli.progress import training_bar
from parity.errors import ParityError, RunError, describe_list
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

PUBLISHED_DATA = "cifar10"


def train(
    framework: Annotated[str | None, typer.Option("--framework", help="torch or keras.")] = None,
    recipe: Annotated[
        str | None, typer.Option("--recipe", help="Recipe name, or path of a .toml file.")
    ] = None,
    data: options.DataOption = "digits",
    data_dir: options.DataDirOption = None,
    download: options.DownloadOption = False,  # noqa: FBT002  # typer reads a flag's default here
    model: options.ModelOption = None,
    epochs: options.EpochsOption = None,
    seed: options.SeedOption = 0,
    out: Annotated[
        Path | None, typer.Option("--out", help="Run folder. [default: under runs/]")
    ] = None,
    overrides: options.SetOption = None,
    dtype: options.DtypeOption = "float32",
    keras_backend: options.KerasBackendOption = None,
    device: options.DeviceOption = "cpu",
    resume: Annotated[
        Path | None, typer.Option("--resume", help="Go on with the run in this folder.")
    ] = None,
    resolved: Annotated[
        bool, typer.Option("--resolved", help="Print the resolved recipe as TOML and stop.")
    ] = False,
) -> None:
    """Train one twin under a recipe; a run folder holds metrics, checkpoint and weights."""
    if resume is not None:
        asked = {"framework": framework, "keras_backend": keras_backend}
        wanted = (
            options.resolve(recipe, data=data, model=model, epochs=epochs, overrides=overrides)
            if recipe
            else None
        )
        run = _resume(resume, asked=asked, recipe=wanted, data_dir=data_dir, download=download)
    else:
        if recipe is None or (framework is None and not resolved):
            message = "train: expected --framework torch|keras and --recipe NAME, or --resume DIR."
            raise ParityError(message)
        wanted = options.resolve(recipe, data=data, model=model, epochs=epochs, overrides=overrides)
        if resolved:
            typer.echo(render_toml(wanted.to_table()), nl=False)
            return
        settings = make_settings(
            str(framework), seed=seed, dtype=dtype, device=device, keras_backend=keras_backend
        )
        stream = options.open_stream(wanted, seed=seed, folder=data_dir, download=download)
        folder = out or default_folder(wanted, settings)
        run = start_run(wanted, settings, stream=stream, folder=folder)
    carry_out(run)


def make_settings(
    framework: str, *, seed: int, dtype: str, device: str, keras_backend: str | None
) -> RunSettings:
    """Return a run's settings, with what is left open decided: Keras's backend and torch's memory format."""
    if dtype not in runtime.DTYPES:
        message = f"--dtype must be one of {', '.join(runtime.DTYPES)}; got {dtype!r}."
        raise ParityError(message)
    is_keras = framework == "keras"
    if framework == "torch" and keras_backend is not None:
        message = (
            f"--keras-backend {keras_backend!r} needs --framework keras; got --framework torch."
        )
        raise ParityError(message)
    return RunSettings(
        seed=seed,
        framework=framework,
        dtype=dtype,
        device=device,
        keras_backend=runtime.select_keras_backend(keras_backend) if is_keras else None,
        memory_format=None
        if is_keras
        else "channels_last"
        if dtype == "float32"
        else "channels_first",
    )


def default_folder(recipe: ResolvedRecipe, settings: RunSettings) -> Path:
    """Return the first unused folder under `runs/` that says what the run is."""
    framework = (
        settings.framework if settings.keras_backend is None else f"keras-{settings.keras_backend}"
    )
    name = f"{recipe.name}-{recipe.data}-{framework}-seed{settings.seed}"
    folder, count = Path("runs") / name, 1
    while folder.exists():
        count += 1
        folder = Path("runs") / f"{name}-{count}"
    return folder


def carry_out(run: TrainingRun) -> dict[str, Any]:
    """Train to the end with a progress bar, then say what came of it."""
    settings, recipe = run.settings, run.recipe
    typer.echo(
        f"{recipe.name} on {recipe.data}: {recipe.model}, {recipe.epochs} epochs, {run.net.label} {settings.dtype}, "
        f"seed {settings.seed} -> {run.folder}"
    )
    if recipe.data != PUBLISHED_DATA and recipe.name in ("best_sgd", "best_adam"):
        typer.echo(
            f"The published setting of {recipe.name} is ResNet-18 with --data {PUBLISHED_DATA}."
        )
    try:
        with training_bar(run.net.label) as show:
            result = run.train(on_progress=show)
    except KeyboardInterrupt:
        typer.echo(
            f"interrupted; go on with: python -m parity.train --resume {run.folder}", err=True
        )
        raise
    typer.echo(
        f"test accuracy {result['test_accuracy']:.2%}, loss {result['test_loss']:.4f}, "
        f"{result['steps']} steps in {result['seconds']:.1f} s"
    )
    target = "weights.pt" if settings.framework == "keras" else "model.weights.h5"
    typer.echo(
        f"convert: python -m conversion {run.weights_path} {run.folder / target} --run {run.folder}"
    )
    return result


def _resume(
    folder: Path,
    *,
    asked: dict[str, str | None],
    recipe: ResolvedRecipe | None,
    data_dir: Path | None,
    download: bool,
) -> TrainingRun:
    stored, settings = read_identity(folder)
    changes = describe_changes(stored.to_table(), recipe.to_table()) if recipe else []
    for name, value in asked.items():
        if value is not None:
            changes += describe_changes(getattr(settings, name), value, where=name)
    if changes:
        message = f"--resume {folder}: the stored run is another one; {describe_list(changes)}. Leave these options out."
        raise RunError(message)
    if settings.framework == "keras":
        runtime.select_keras_backend(settings.keras_backend)
    stream = options.open_stream(stored, seed=settings.seed, folder=data_dir, download=download)
    return resume_run(folder, stream=stream)
