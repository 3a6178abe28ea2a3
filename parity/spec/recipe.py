"""Recipes: complete, strict TOML files that define a training, and overrides of their values.

A recipe names every key; a table `[data.NAME]` replaces what depends on the data set. Resolving a
recipe for one data set gives a `ResolvedRecipe`, which is what runs, is stored, hashed and
compared.
"""

import dataclasses
import hashlib
import json
import math
import re
import tomllib
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from parity.errors import RecipeError, SpecError, describe_nearest
from parity.spec.augment import Augment, Sampling
from parity.spec.conventions import PRESETS, Conventions
from parity.spec.evaluation import Evaluation
from parity.spec.losses import LOSSES, LossSpec
from parity.spec.optimizers import (
    AVERAGINGS,
    CLIPPINGS,
    OPTIMIZER_FORMS,
    AveragingSpec,
    ClippingSpec,
    Group,
    OptimizerForm,
    SgdKilostep,
    Update,
)
from parity.spec.schedules import SCHEDULES
from parity.spec.tables import build_table, require_keys, require_known, require_table
from parity.spec.warmup import Schedule, describe_choice

RECIPE_FOLDER = Path(__file__).parent.parent / "recipes"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ResolvedRecipe:
    """A training procedure for one data set: only seed and framework are left to decide.

    Attributes:
        name: Of the recipe file.
        data: Name of the data set.
        model: Model name with options, as `parity.spec.models.resnet_spec` reads it.
        resolution: Side of the square images in pixels, or 0 for the data set's own.
        epochs: Passes over the training images; a fraction ends the last one early, and a whole
            number is an int.
        batch_size: Images a step.
        drop_last: Whether a last, smaller batch of an epoch is dropped.
        sampling: Whether an epoch shows each image once, in a new order (`reshuffled`), or draws as
            many images, each uniformly from all (`with_replacement`).
        conventions: Where the frameworks disagree.
        augment: Random crop, flip and cutout.
        loss: Loss and label smoothing.
        optimizer: Update rule with all its forms; what trains is `update.rule`.
        groups: Parameters whose rates differ from the rule's.
        clipping: What is done to gradients first.
        averaging: Average of the weights that is kept, and whether it is what is scored.
        schedule: Learning-rate factor over time.
        evaluation: When and how the test set is scored.
    """

    name: str
    data: str
    model: str
    resolution: int
    epochs: int | float
    batch_size: int
    drop_last: bool
    sampling: Sampling
    conventions: Conventions
    augment: Augment
    loss: LossSpec
    optimizer: OptimizerForm
    groups: tuple[Group, ...]
    clipping: ClippingSpec
    averaging: AveragingSpec
    schedule: Schedule
    evaluation: Evaluation

    def __post_init__(self) -> None:
        problems = _describe_wrong_epochs(self.epochs)
        if self.batch_size < 1:
            problems.append(f"batch_size must be >= 1; got {self.batch_size!r}.")
        if self.resolution < 0:
            problems.append(f"resolution must be >= 0; got {self.resolution!r}.")
        problems += describe_choice("sampling", self.sampling, typing.get_args(Sampling))
        if problems:
            raise SpecError(" ".join(problems))

    @property
    def update(self) -> Update:
        """Everything between a batch's gradients and the next weights."""
        rule = self.optimizer
        return Update(
            rule=rule.rule(batch_size=self.batch_size) if isinstance(rule, SgdKilostep) else rule,
            groups=self.groups,
            clipping=self.clipping,
            averaging=self.averaging,
        )

    def to_table(self) -> dict[str, Any]:
        """Return the recipe as nested plain tables, in the order of the fields."""
        table: dict[str, Any] = _with_lists(dataclasses.asdict(self))
        return table

    def digest(self) -> str:
        """Return the SHA-256 of the resolved tables as JSON text."""
        return hashlib.sha256(json.dumps(self.to_table()).encode()).hexdigest()


def _describe_wrong_epochs(epochs: float) -> list[str]:
    if not 1 <= epochs < math.inf:
        return [f"epochs must be >= 1 and finite; got {epochs!r}."]
    # One recipe has one form, and so one digest.
    if isinstance(epochs, float) and epochs.is_integer():
        return [f"epochs must be an int where it is whole; got {epochs!r}. Write {int(epochs)}."]
    return []


# Keys that a [data.NAME] table may replace: those that depend on the images.
DATA_KEYS = ("model", "resolution", "epochs", "batch_size", "augment", "schedule", "evaluation")
_HEADER = ("name", "description", "source")
_TOP = ("model", "resolution", "epochs", "batch_size", "drop_last", "sampling", "groups")
_TABLES = (
    "conventions",
    "augment",
    "loss",
    "optimizer",
    "clipping",
    "averaging",
    "schedule",
    "evaluation",
)


# Key of a table -> what its `kind` may name.
_KINDS: dict[str, Mapping[str, Any]] = {
    "loss": LOSSES,
    "optimizer": OPTIMIZER_FORMS,
    "clipping": CLIPPINGS,
    "averaging": AVERAGINGS,
    "schedule": SCHEDULES,
}

_NAME = r"[A-Za-z0-9_][A-Za-z0-9_.-]*"


def recipe_names() -> tuple[str, ...]:
    """Return the names of the recipes that ship with the toolkit."""
    return tuple(sorted(path.stem for path in RECIPE_FOLDER.glob("*.toml")))


def load_recipe(name: str, *, data: str, overrides: Sequence[str] = ()) -> ResolvedRecipe:
    """Read a recipe by name or `.toml` path; apply its table for `data`, then the overrides.

    An override is `key=value`, such as `optimizer.lr=0.05`.

    Raises:
        RecipeError: If the recipe is not found, is no TOML, or has a missing, unknown or wrong key
            or value; all problems of a kind are listed.
    """
    path = Path(name) if name.endswith(".toml") else RECIPE_FOLDER / f"{name}.toml"
    if not path.is_file():
        message = (
            f"recipe {name!r} not found.{describe_nearest(name, recipe_names())} "
            "List them with `python -m parity list recipes`."
        )
        raise RecipeError(message)
    return resolve_recipe(read_toml(path), where=path.name, data=data, overrides=overrides)


def read_toml(path: Path) -> dict[str, Any]:
    """Return the tables of a TOML file.

    Raises:
        RecipeError: If the file is not valid TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        message = f"{path}: expected TOML; {error}."
        raise RecipeError(message) from error


def resolve_recipe(
    table: Mapping[str, Any], *, where: str, data: str, overrides: Sequence[str] = ()
) -> ResolvedRecipe:
    """Return what trains on `data` under this recipe; `where` names the file in messages.

    Raises:
        RecipeError: If a key is missing or unknown, or a value has the wrong type or range.
    """
    require_keys(table, (*_HEADER, *_TOP, *_TABLES, "data"), where=where, prefix="")
    if not isinstance(table["name"], str) or not re.fullmatch(_NAME, table["name"]):
        message = (
            f"{where}: name must be of letters, digits, '.', '_' and '-', since folders are named "
            f"after it; got {table['name']!r}."
        )
        raise RecipeError(message)
    per_data = require_table(table["data"], where=where, key="data")
    for name, changes in per_data.items():
        require_known(changes, DATA_KEYS, where=where, prefix=f"data.{name}.")
    top = {"name": table["name"], "data": data} | {key: table[key] for key in (*_TOP, *_TABLES)}
    # The top level must be complete by itself: a data table may not supply what it lacks.
    build_recipe(top, where=where)
    merged = _merged(top, per_data.get(data, {}))
    for override in overrides:
        merged = _with_override(merged, override)
    return build_recipe(merged, where=where)


def build_recipe(table: Mapping[str, Any], *, where: str) -> ResolvedRecipe:
    """Return the recipe of a fully merged table, such as a stored run's.

    Raises:
        RecipeError: If a key is missing or unknown, or a value has the wrong type or range.
    """
    values = dict(table)
    for key, kinds in _KINDS.items():
        values[key] = _build_kind(kinds, values.get(key), where=where, key=key)
    values["groups"] = _build_groups(values.get("groups"), where=where)
    simple = {
        "conventions": Conventions,
        "augment": Augment,
        "evaluation": Evaluation,
    }
    for key, cls in simple.items():
        part = require_table(values.get(key), where=where, key=key)
        values[key] = build_table(cls, part, where=where, prefix=f"{key}.")
    recipe: ResolvedRecipe = build_table(ResolvedRecipe, values, where=where, prefix="")
    return recipe


def _build_kind(kinds: Mapping[str, Any], value: object, *, where: str, key: str) -> Any:  # noqa: ANN401
    """Return the spec that a table with a `kind` describes."""
    part = require_table(value, where=where, key=key)
    kind = part.get("kind")
    if not isinstance(kind, str) or kind not in kinds:
        message = f"{where}: {key}.kind must be one of {', '.join(kinds)}; got {kind!r}."
        raise RecipeError(message)
    if "others" in part:  # the rule of the arrays that are not Muon's
        others = _build_kind(kinds, part["others"], where=where, key=f"{key}.others")
        part = {**part, "others": others}
    return build_table(kinds[kind], part, where=where, prefix=f"{key}.")


def _build_groups(value: object, *, where: str) -> tuple[Group, ...]:
    if not isinstance(value, list | tuple):
        message = f"{where}: groups must be a list of tables, [] for none; got {value!r}."
        raise RecipeError(message)
    return tuple(
        build_table(
            Group,
            require_table(table, where=where, key=f"groups[{index}]"),
            where=where,
            prefix=f"groups[{index}].",
        )
        for index, table in enumerate(value)
    )


def apply_overrides(recipe: ResolvedRecipe, overrides: Sequence[str]) -> ResolvedRecipe:
    """Return a recipe with `key=value` overrides applied.

    Raises:
        RecipeError: If a key is unknown, or a value has the wrong type or range.
    """
    table = recipe.to_table()
    for override in overrides:
        table = _with_override(table, override)
    return build_recipe(table, where=recipe.name)


def _merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in changes.items():
        nested = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = _merged(merged[key], value) if nested else value
    return merged


def _with_override(table: Mapping[str, Any], override: str) -> dict[str, Any]:
    key, separator, text = override.partition("=")
    if not separator:
        message = f"--set {override!r}: expected key=value, such as optimizer.lr=0.05."
        raise RecipeError(message)
    key = key.strip()
    if key == "preset":
        return _with_preset(table, text.strip())
    owner: Any = table
    *parents, leaf = key.split(".")
    for parent in parents:
        owner = owner.get(parent) if isinstance(owner, Mapping) else None
    if key in ("name", "data") or not isinstance(owner, Mapping) or leaf not in owner:
        known = [*_leaf_keys(table), "preset"]
        hint = _describe_other_kinds(table, key) or describe_nearest(key, known)
        message = f"--set {override!r}: key {key!r} not found.{hint}"
        raise RecipeError(message)
    change: Any = _parse_value(text.strip())
    if isinstance(owner[leaf], Mapping):
        return _with_table(table, override, key, change)
    for part in reversed(key.split(".")):
        change = {part: change}
    return _merged(table, change)


def _describe_other_kinds(table: Mapping[str, Any], key: str) -> str:
    """Return which kinds of a table have a key that its own kind lacks; empty if none has."""
    owner, _, leaf = key.partition(".")
    holders = [
        kind
        for kind, cls in _KINDS.get(owner, {}).items()
        if leaf in {field.name for field in dataclasses.fields(cls)}
    ]
    if not holders:
        return ""
    return (
        f" {owner}.kind is {table[owner]['kind']!r}; {leaf} is a key of {', '.join(holders)}. "
        f"Replace the whole table: {owner}={{kind={holders[0]!r}, ...}}."
    )


def _with_table(table: Mapping[str, Any], override: str, key: str, value: object) -> dict[str, Any]:
    """Return the recipe with a whole table in place of its own, which has another kind's keys."""
    if isinstance(value, str) and value.startswith("{"):
        message = (
            f"--set {override!r}: {key} is a table; expected TOML such as "
            f"{key}={{kind='...', ...}}; got {value!r}. Quote every string inside, and the whole "
            "for the shell."
        )
        raise RecipeError(message)
    if key not in _KINDS or not isinstance(value, Mapping):
        first = next(iter(_leaf_keys(table.get(key, {}), f"{key}.")), f"{key}.KEY")
        whole = f", or all of them: {key}={{kind='...', ...}}" if key in _KINDS else ""
        message = (
            f"--set {override!r}: {key} is a table. Set one of its keys, such as {first}{whole}."
        )
        raise RecipeError(message)
    return {**table, key: value}


def _with_preset(table: Mapping[str, Any], name: str) -> dict[str, Any]:
    name = name.strip("'\"")
    if name not in PRESETS:
        message = (
            f"--set preset={name}: preset {name!r} not found.{describe_nearest(name, PRESETS)}"
        )
        raise RecipeError(message)
    preset = PRESETS[name]
    known = preset.optimizer_forms(table["optimizer"].get("kind"))
    forms = {key: value for key, value in known.items() if key in table["optimizer"]}
    return _merged(
        table, {"conventions": dataclasses.asdict(preset.conventions), "optimizer": forms}
    )


def _with_lists(value: Any) -> Any:  # noqa: ANN401  # a nest of tables and values
    if isinstance(value, Mapping):
        return {key: _with_lists(part) for key, part in value.items()}
    return list(value) if isinstance(value, tuple) else value


def _leaf_keys(table: Mapping[str, Any], prefix: str = "") -> list[str]:
    keys = []
    for key, value in table.items():
        keys += (
            _leaf_keys(value, f"{prefix}{key}.")
            if isinstance(value, Mapping)
            else [f"{prefix}{key}"]
        )
    return [key for key in keys if key not in ("name", "data")]


def _parse_value(text: str) -> Any:  # noqa: ANN401  # a TOML value has no narrower type
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text  # a bare word is a string, as a shell user types it; the field's type decides
