"""Options that several commands share, and what they turn into."""

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from parity import runtime
from parity.data.batches import BatchStream
from parity.data.table import load_dataset
from parity.errors import ParityError
from parity.spec.recipe import ResolvedRecipe, load_recipe

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
    int | None, typer.Option("--epochs", help="Epochs instead of the recipe's.")
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
KerasBackendOption = Annotated[
    str | None,
    typer.Option("--keras-backend", help="tensorflow, jax or torch. [default: tensorflow]"),
]
DeviceOption = Annotated[
    str, typer.Option("--device", help="Device of the nets: cpu, cuda, cuda:1, mps.")
]


def resolve(
    recipe: str, *, data: str, model: str | None, epochs: int | None, overrides: list[str] | None
) -> ResolvedRecipe:
    """Return the recipe that the options ask for; `--model` and `--epochs` are overrides too."""
    changes = list(overrides or [])
    if model is not None:
        changes.append(f'model="{model}"')
    if epochs is not None:
        changes.append(f"epochs={epochs}")
    return load_recipe(recipe, data=data, overrides=changes)


def open_stream(
    recipe: ResolvedRecipe, *, seed: int, folder: Path | None, download: bool
) -> BatchStream:
    """Return the batch stream of a recipe's data set."""
    dataset = load_dataset(
        recipe.data, folder=folder, resolution=recipe.resolution, download=download
    )
    return BatchStream(dataset, recipe, seed=seed)


def command_line() -> str:
    """Return the command that this process was started with, for the record."""
    return shlex.join(["parity", *sys.argv[1:]])


def check_dtype(dtype: str) -> None:
    """Refuse a precision that no net has."""
    if dtype not in runtime.DTYPES:
        message = f"--dtype must be one of {', '.join(runtime.DTYPES)}; got {dtype!r}."
        raise ParityError(message)


def unused_folder(folder: Path) -> Path:
    """Return the folder, numbered if it is taken."""
    candidate, count = folder, 1
    while candidate.exists():
        count += 1
        candidate = folder.with_name(f"{folder.name}-{count}")
    return candidate
