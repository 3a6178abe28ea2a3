"""Stored recipes as reports need them: flat, titled, and against the shipped one of their name."""

from collections.abc import Mapping, Sequence
from typing import Any

from parity.errors import RecipeError, describe_list
from parity.spec.recipe import load_recipe


def title_recipes(recipes: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return name, data and model of each recipe; where those agree, the settings that differ.

    >>> title_recipes([{"name": "best_sgd", "data": "digits", "model": "resnet8"}])
    ['best_sgd on digits, resnet8']
    """
    plain = [f"{item.get('name')} on {item.get('data')}, {item.get('model')}" for item in recipes]
    titles = []
    for title, recipe in zip(plain, recipes, strict=True):
        peers = [
            flatten_table(peer) for name, peer in zip(plain, recipes, strict=True) if name == title
        ]
        varying = [
            f"{key} = {value}"
            for key, value in flatten_table(recipe).items()
            if any(peer.get(key) != value for peer in peers)
        ]
        titles.append(f"{title} ({describe_list(varying, limit=4)})" if varying else title)
    return titles


def recipe_overrides(recipe: Mapping[str, Any]) -> list[str]:
    """Return `key=value` for each setting that differs from the shipped recipe of that name.

    A recipe that does not ship has nothing to differ from and gives none.
    """
    try:
        shipped = load_recipe(str(recipe.get("name")), data=str(recipe.get("data"))).to_table()
    except RecipeError:
        return []
    known = flatten_table(shipped)
    return [
        f"{key}={_toml_word(value)}"
        for key, value in flatten_table(recipe).items()
        if key not in known or known[key] != value
    ]


def flatten_table(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested tables as one, its keys joined by dots.

    >>> flatten_table({"epochs": 2, "augment": {"flip": "none"}})
    {'epochs': 2, 'augment.flip': 'none'}
    """
    flat: dict[str, Any] = {}
    for key, value in table.items():
        nested = isinstance(value, Mapping)
        flat |= flatten_table(value, f"{prefix}{key}.") if nested else {f"{prefix}{key}": value}
    return flat


def _toml_word(value: object) -> str:
    """Return a value as `--set` reads it: a string of its own needs no quotes.

    >>> _toml_word([{"members": "bias", "trained_epochs": float("inf")}])
    "[{members='bias', trained_epochs=inf}]"
    """
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}={_toml_part(part)}" for key, part in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_toml_part, value)) + "]"
    return str(value)


def _toml_part(value: object) -> str:
    return f"'{value}'" if isinstance(value, str) else _toml_word(value)
