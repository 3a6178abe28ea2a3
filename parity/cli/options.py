"""Options that several commands share, and what they turn into."""

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from parity import runtime
from parity.data.batches import BatchStream
from parity.data.table import DATASETS, load_dataset
from parity.errors import ParityError, RecipeError, describe_nearest
from parity.frameworks.build import FRAMEWORKS
from parity.spec.recipe import ResolvedRecipe, load_recipe, read_toml

RecipeOption = Annotated[
    str, typer.Option("--recipe", help="Recipe name, or path of a .toml file.")
]
DataOption = Annotated[str, typer.Option("--data", help="Data set; `parity list data` shows them.")]
DataDirOption = Annotated[
    Path | None, typer.Option("--data-dir", help="Folder that holds the data set's files.")
]
DownloadOption = Annotated[
    bool, typer.Option("--download", help="Fetch the data set's files if they are missing.")
]
ModelOption = Annotated[
    str | None,
    typer.Option("--model", help="Model instead of the recipe's: resnet20, resnet8:width=32."),
]
EpochsOption = Annotated[
    float | None,
    typer.Option("--epochs", help="Epochs instead of the recipe's: 10, or 9.9."),
]
SeedOption = Annotated[
    int, typer.Option("--seed", min=0, help="Of weights, batch order and augmentation.")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Override a recipe key: --set optimizer.lr=0.05."
    ),
]
DtypeOption = Annotated[str, typer.Option("--dtype", help="float32 or float64.")]
TrainingDtypeOption = Annotated[
    str | None,
    typer.Option(
        "--dtype",
        help="float32, float64, mixed_bfloat16 or mixed_float16. Mixed precision is for GPUs: "
        "most processors emulate it, 20 to 180 times slower. [default: float32]",
    ),
]
CompileOption = Annotated[
    bool | None,
    typer.Option(
        "--compile/--no-compile",
        help="Compile the net: torch.compile, or XLA in Keras. [default: no-compile]",
    ),
]
KerasBackendOption = Annotated[
    str | None,
    typer.Option("--keras-backend", help="tensorflow, jax or torch. [default: tensorflow]"),
]
DeviceOption = Annotated[
    str, typer.Option("--device", help="Device of the nets: cpu, cuda, cuda:1, mps.")
]


def resolve(
    recipe: str,
    *,
    data: str,
    model: str | None,
    epochs: float | None,
    overrides: list[str] | None,
) -> ResolvedRecipe:
    """Return the recipe that the options ask for; `--model` and `--epochs` are overrides too."""
    changes = list(overrides or [])
    if model is not None:
        changes.append(f'model="{model}"')
    if epochs is not None:
        changes.append(f"epochs={int(epochs) if float(epochs).is_integer() else epochs}")
    keys = [change.partition("=")[0].strip() for change in changes]
    twice = sorted({key for key in keys if keys.count(key) > 1})
    if twice:
        message = f"--set {', '.join(twice)}: expected once; given more than once, or as an option."
        raise RecipeError(message)
    resolved = load_recipe(recipe, data=data, overrides=changes)
    if recipe.endswith(".toml"):
        unknown = [name for name in read_toml(Path(recipe))["data"] if name not in DATASETS]
        if unknown:
            hint = describe_nearest(unknown[0], DATASETS)
            message = f"{recipe}: data.{unknown[0]}: data set {unknown[0]!r} not found.{hint}"
            raise RecipeError(message)
    return resolved


def open_stream(
    recipe: ResolvedRecipe, *, seed: int, folder: Path | None, download: bool
) -> BatchStream:
    """Return the batch stream of a recipe's data set."""
    dataset = load_dataset(
        recipe.data, folder=folder, resolution=recipe.resolution, download=download
    )
    return BatchStream(dataset, recipe, seed=seed)


def require_frameworks(*frameworks: str, keras_backend: str | None) -> None:
    """Check that frameworks are installed, before anything takes long."""
    for framework in frameworks:
        if framework == "torch":
            runtime.require_framework("torch", extra="torch")
        elif framework == "keras":
            runtime.require_keras(keras_backend)
        else:
            message = f"framework {framework!r} not found.{describe_nearest(framework, FRAMEWORKS)}"
            raise ParityError(message)


def command_line() -> str:
    """Return the command that this process was started with, for the record."""
    return shlex.join(["parity", *sys.argv[1:]])


def check_framework(framework: str | None) -> None:
    """Refuse a framework that no twin has."""
    if framework not in FRAMEWORKS:
        hint = describe_nearest(framework, FRAMEWORKS) if framework else ""
        message = f"--framework must be torch or keras; got {framework!r}.{hint}"
        raise ParityError(message)


def check_dtype(dtype: str) -> None:
    """Refuse a precision that no net is trained in."""
    if dtype not in runtime.TRAINING_DTYPES:
        message = f"--dtype must be one of {', '.join(runtime.TRAINING_DTYPES)}; got {dtype!r}."
        raise ParityError(message)


def unused_folder(folder: Path) -> Path:
    """Return the folder, numbered if it is taken."""
    candidate, count = folder, 1
    while candidate.exists():
        count += 1
        candidate = folder.with_name(f"{folder.name}-{count}")
    return candidate
