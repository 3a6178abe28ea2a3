"""`parity list`: what can be named on the command line."""

import dataclasses
import functools
import typing
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import typer

from parity.data.table import DATASETS
from parity.errors import ParityError, describe_nearest
from parity.spec.augment import Augment
from parity.spec.evaluation import Evaluation
from parity.spec.losses import LOSSES
from parity.spec.models import MODELS, model_options
from parity.spec.optimizers import AVERAGINGS, CLIPPINGS, OPTIMIZER_FORMS
from parity.spec.recipe import RECIPE_FOLDER, ResolvedRecipe, read_toml, recipe_names
from parity.spec.schedules import SCHEDULES

_KINDS: dict[str, Mapping[str, Any]] = {
    "optimizers": OPTIMIZER_FORMS,
    "clippings": CLIPPINGS,
    "averagings": AVERAGINGS,
    "losses": LOSSES,
    "schedules": SCHEDULES,
}


def list_names(
    what: Annotated[
        str,
        typer.Argument(
            help="recipes, data or models; or the kinds of a recipe's tables, with their keys: "
            "optimizers, clippings, averagings, losses or schedules; or augmentations, the keys "
            "that decide what is done to images."
        ),
    ] = "recipes",
) -> None:
    """List recipes, data sets, models, augmentations, or the kinds of a recipe's tables."""
    tables: dict[str, Callable[[], list[tuple[str, str]]]] = {
        "recipes": _recipes,
        "data": _data,
        "models": _models,
        "augmentations": _augmentations,
        **{name: functools.partial(_kinds, kinds) for name, kinds in _KINDS.items()},
    }
    if what not in tables:
        message = f"list: {what!r} not found.{describe_nearest(what, tables)}"
        raise ParityError(message)
    rows = tables[what]()
    width = max(len(name) for name, _ in rows)
    for name, description in rows:
        typer.echo(f"{name:<{width}}  {description}")


def _kinds(kinds: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return each kind with the other keys of its table."""
    return [
        (kind, ", ".join(field.name for field in dataclasses.fields(cls) if field.name != "kind"))
        for kind, cls in kinds.items()
    ]


def _augmentations() -> list[tuple[str, str]]:
    """Return the recipe keys that decide what is done to images, with the values of each."""
    owners = [("augment.", Augment, field.name) for field in dataclasses.fields(Augment)]
    keys = [("", ResolvedRecipe, "sampling"), *owners, ("evaluation.", Evaluation, "tta_level")]
    rows = []
    for prefix, cls, name in keys:
        choices = typing.get_args(typing.get_type_hints(cls)[name])
        rows.append((f"{prefix}{name}", ", ".join(map(str, choices)) or "pixels; 0 is off"))
    return rows


def _recipes() -> list[tuple[str, str]]:
    return [
        (name, read_toml(RECIPE_FOLDER / f"{name}.toml")["description"]) for name in recipe_names()
    ]


def _data() -> list[tuple[str, str]]:
    return [(name, row.description) for name, row in DATASETS.items()]


def _models() -> list[tuple[str, str]]:
    return [(name, f"options: :{','.join(model_options(name))}") for name in MODELS]
