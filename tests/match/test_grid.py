"""The grid of an ablation: what is written on the command line, and the recipes that it means."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parity.errors import RecipeError
from parity.match.grid import build_cells, parse_epochs, parse_vary, split_values
from parity.spec.recipe import load_recipe

RECIPE = load_recipe("best_sgd", data="digits")


@given(
    st.lists(
        st.sampled_from(["none", "0.1", "[1, 2]", "'a,b'", '"x,]\\","', "{k='m,', n=[1, {z=2}]}"]),
        min_size=1,
        max_size=6,
    )
)
def test_joined_values_are_split_again(values):
    assert split_values(" , ".join(values)) == tuple(values)


@pytest.mark.parametrize("text", ["[1,2", "1]", "{a=1", "'x", '"x,y', "[1,2},3]]"])
def test_brackets_and_quotes_without_partner_are_refused(text):
    with pytest.raises(RecipeError, match="every bracket and quote closed"):
        split_values(text)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("augment.flip", "expected KEY=V1,V2"),
        ("=none,random", "expected KEY=V1,V2"),
        ("augment.flip=none", "'none' alone"),
        ("augment.flip=", "an empty one"),
        ("augment.flip=none,,random", "an empty one"),
        ("augment.flip=none,random,none", "none more than once"),
    ],
)
def test_values_that_make_no_ablation_are_refused(text, reason):
    with pytest.raises(RecipeError, match=reason):
        parse_vary(text)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("1,x", "could not convert"),
        ("", "could not convert"),
        ("0.5,2", "each must be >= 1 and finite; got 0.5"),
        ("nan,2", "got nan"),
        ("inf", "got inf"),
        ("2,4,2.0", "got 2 more than once"),
    ],
)
def test_epochs_that_make_no_curve_are_refused(text, reason):
    with pytest.raises(RecipeError, match=reason):
        parse_epochs(text)


def test_cells_are_every_value_for_every_number_of_epochs():
    cells = build_cells(RECIPE, key="optimizer.lr", values=["0.1", "0.2"], epochs=[1.5, 2])

    found = [(cell.recipe.epochs, cell.recipe.optimizer.lr, cell.length) for cell in cells]
    assert found == [(1.5, 0.1, 0), (1.5, 0.2, 0), (2, 0.1, 1), (2, 0.2, 1)]
    assert [cell.name for cell in cells][:2] == ["epochs1.5-value0-0.1", "epochs1.5-value1-0.2"]


def test_a_whole_table_is_a_value():
    values = ["{kind='none'}", "{kind='value', limit=1.0}"]

    cells = build_cells(RECIPE, key="clipping", values=values)

    assert [cell.recipe.clipping.kind for cell in cells] == ["none", "value"]
    assert {cell.recipe.epochs for cell in cells} == {RECIPE.epochs}


def test_epochs_themselves_can_be_varied():
    cells = build_cells(RECIPE, key="epochs", values=["2", "3"])

    assert [(cell.recipe.epochs, cell.length) for cell in cells] == [(2, 0), (3, 0)]


@pytest.mark.parametrize(
    ("key", "values", "epochs", "reason"),
    [
        ("augment.flop", ["none", "random"], [], "'augment.flop' not found. Nearest: augment.flip"),
        ("augment.flip", ["none", "rnd"], [], "--vary augment.flip: .*'rnd'"),
        ("optimizer.lr", ["0.1", "1e-1"], [], "'0.1' and '1e-1' give the same one"),
        ("augment.flip", ["none", "'none'"], [], "give the same one"),
        ("epochs", ["2", "3"], [1, 2], "no --epochs beside it"),
    ],
)
def test_values_that_give_no_two_recipes_are_refused(key, values, epochs, reason):
    with pytest.raises(RecipeError, match=reason):
        build_cells(RECIPE, key=key, values=values, epochs=epochs)
