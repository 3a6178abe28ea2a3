"""Stored recipes against shipped ones, and against each other."""

import pytest

from parity.report.recipes import recipe_overrides, title_recipes
from parity.spec.recipe import load_recipe

GROUP = "{members='bias', lr_factor=1.0, decay_factor=1.0, trained_epochs=inf, schedule='shared'}"


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("optimizer.lr=0.05",),
        ("optimizer.nesterov=true", "augment.crop_px=2"),
        ('conventions.conv_init="glorot_uniform"',),
        (f"groups=[{GROUP}]",),
    ],
    ids=["none", "float", "bool-and-int", "string", "list-of-tables"],
)
def test_overrides_make_the_shipped_recipe_the_stored_one(overrides):
    stored = load_recipe("best_sgd", data="digits", overrides=overrides)

    found = recipe_overrides(stored.to_table())

    assert len(found) == len(overrides)
    assert load_recipe("best_sgd", data="digits", overrides=found) == stored


def test_recipe_that_does_not_ship_has_no_overrides():
    assert recipe_overrides({"name": "own", "data": "digits", "epochs": 1}) == []


def test_recipes_of_one_name_are_told_apart_by_what_differs():
    recipes = [
        {"name": "best_sgd", "data": "digits", "model": "resnet8", "optimizer": {"lr": rate}}
        for rate in (0.1, 0.05)
    ]

    assert title_recipes(recipes) == [
        "best_sgd on digits, resnet8 (optimizer.lr = 0.1)",
        "best_sgd on digits, resnet8 (optimizer.lr = 0.05)",
    ]
