"""`parity list`: what can be named on the command line."""

from typing import Annotated

import typer

from parity.data.table import DATASETS
from parity.errors import ParityError, describe_nearest
from parity.spec.models import MODELS
from parity.spec.recipe import RECIPE_FOLDER, read_toml, recipe_names


def list_names(
    what: Annotated[str, typer.Argument(help="recipes, data or models.")] = "recipes",
) -> None:
    """List recipes, data sets or models."""
    tables = {"recipes": _recipes, "data": _data, "models": _models}
    if what not in tables:
        message = f"list: {what!r} not found.{describe_nearest(what, tables)}"
        raise ParityError(message)
    rows = tables[what]()
    width = max(len(name) for name, _ in rows)
    for name, description in rows:
        typer.echo(f"{name:<{width}}  {description}")


def _recipes() -> list[tuple[str, str]]:
    return [
        (name, read_toml(RECIPE_FOLDER / f"{name}.toml")["description"]) for name in recipe_names()
    ]


def _data() -> list[tuple[str, str]]:
    return [(name, row.description) for name, row in DATASETS.items()]


def _models() -> list[tuple[str, str]]:
    options = "options: :width=CHANNELS,stem=cifar|imagenet,stochastic_depth=RATE,dropout=RATE"
    return [(name, options) for name in MODELS]
