"""Random pairs are one function, drawn alike for a seed; a seeded fault changes what it says."""

import pytest

from parity.testing.assertions import assert_identical
from parity.testing.pairs import FAMILIES, clean_gap, draw_pair
from parity.testing.pairs.outcomes import float32_kinds

SEEDS = range(25)


@pytest.mark.parametrize("family", FAMILIES)
def test_pair_is_the_same_for_a_seed(family):
    first, second = draw_pair(7, family=family), draw_pair(7, family=family)

    assert (first.reference.nodes, first.reference_side) == (
        second.reference.nodes,
        second.reference_side,
    )
    assert_identical(first.inputs()["torch"], second.inputs()["torch"])
    for name, array in first.reference.weights.items():
        assert_identical(array, second.reference.weights[name], where=name)


@pytest.mark.parametrize("seed", SEEDS)
def test_sides_of_a_clean_pair_are_one_function(seed):
    pair = draw_pair(seed)

    assert clean_gap(pair) <= (5e-8 if float32_kinds(pair.reference) else 1e-10)


@pytest.mark.backend
@pytest.mark.parametrize("family", FAMILIES)
def test_sides_of_each_family_are_one_function(family):
    pair = draw_pair(3, family=family)

    assert clean_gap(pair) <= (5e-8 if float32_kinds(pair.reference) else 1e-10)
