"""Random pairs are one function, drawn alike for a seed; a seeded fault changes what it says."""

import dataclasses
import functools
import importlib

import numpy as np
import pytest

from parity.errors import SpecError
from parity.rng import stream
from parity.testing.assertions import assert_close, assert_identical
from parity.testing.pairs import (
    FAMILIES,
    FAULTS,
    clean_bound,
    clean_gap,
    draw_pair,
    measure_effects,
    seed_fault,
)
from parity.testing.pairs.edits import insert_after, remove
from parity.testing.pairs.faults import SMALLEST_EFFECT, fault_candidates, phase_of
from parity.testing.pairs.node_faults import NODE_FAULTS

SEEDS = range(1, 13)
# Some of each phase; `reset_before` and `hard_gates` can only be seeded in Keras.
KERAS_FAULTS = (
    "heads_interleaved",
    "stride_offset",
    "attention_scale",
    "statistics_frozen",
    "dropout_missing",
    "statistics_decay",
    "shortcut_detached",
)


def of_sides(pair, candidate_side):
    reference = {"torch": "keras", "keras": "torch"}[candidate_side]
    return dataclasses.replace(pair, reference_side=reference)


@functools.cache
def pairs():
    """Return pairs enough for every kind of fault, none of which is built yet."""
    return [draw_pair(seed) for seed in range(200)]


def faulty_pair(kind, side):
    """Return the first pair that takes a kind of fault and shows it."""
    for pair in pairs():
        placed = of_sides(pair, side)
        if next(fault_candidates(placed, kind, stream(0, "test")), None) is not None:
            try:
                return seed_fault(placed, kind)
            except SpecError:
                continue
    message = f"no pair shows {kind}"
    raise LookupError(message)


def side_of(kind):
    sides = NODE_FAULTS[kind].sides if kind in NODE_FAULTS else ("torch",)
    return sides[0]


@pytest.mark.parametrize("family", FAMILIES)
def test_pair_is_the_same_for_a_seed(family):
    first, second = draw_pair(7, family=family), draw_pair(7, family=family)

    assert first.reference.nodes == second.reference.nodes
    assert first.reference_side == second.reference_side
    assert_identical(first.inputs()["torch"], second.inputs()["torch"])
    for name, array in first.reference.weights.items():
        assert_identical(array, second.reference.weights[name], where=name)


def test_weights_of_a_pair_are_float32_values():
    for pair in pairs()[:30]:
        for name, array in pair.reference.weights.items():
            assert_identical(array.astype(np.float32).astype(np.float64), array, where=name)


@pytest.mark.parametrize("seed", SEEDS)
def test_sides_of_a_clean_pair_are_one_function(seed):
    pair = draw_pair(seed)

    assert clean_gap(pair) <= clean_bound(pair.reference)


# On jax each shape of each function is compiled: networks of images would take minutes.
@pytest.mark.backend
@pytest.mark.parametrize(("family", "seed"), [("mlp", 3), ("sequence", 2)])
def test_sides_of_a_family_are_one_function_on_each_backend(family, seed):
    pair = draw_pair(seed, family=family)

    assert clean_gap(pair) <= clean_bound(pair.reference)


def test_sides_that_hold_other_weights_are_not_one_function():
    pair = draw_pair(1)
    name = next(name for name in pair.reference.weights if name.endswith(".weight"))
    other = pair.candidate.with_weights({name: pair.candidate.weights[name] * 1.001})

    assert clean_gap(dataclasses.replace(pair, candidate=other)) > 1e-5


def test_shares_of_the_families_are_alike():
    families = [pair.family for pair in pairs()]

    assert {name: families.count(name) >= 12 for name in FAMILIES} == dict.fromkeys(FAMILIES, True)


@pytest.mark.parametrize("kind", FAULTS)
def test_fault_shows_where_it_says_and_not_before(kind):
    faulty = faulty_pair(kind, side_of(kind))

    effects = measure_effects(faulty)

    assert faulty.fault.kind == kind
    assert effects.of(phase_of(kind)) >= SMALLEST_EFFECT
    assert effects.before(phase_of(kind)) <= 1e-12


@pytest.mark.parametrize("kind", KERAS_FAULTS)
def test_fault_in_keras_shows_where_it_says_and_not_before(kind):
    faulty = faulty_pair(kind, "keras")

    effects = measure_effects(faulty)

    assert effects.of(phase_of(kind)) >= SMALLEST_EFFECT
    assert effects.before(phase_of(kind)) <= 1e-12


@pytest.mark.parametrize("seed", range(4))
def test_fault_of_a_seed_is_one_that_acts(seed):
    faulty = seed_fault(of_sides(pairs()[seed], "torch"), seed)

    assert faulty.fault.effect >= SMALLEST_EFFECT
    assert faulty.reference is pairs()[seed].reference
    assert faulty.weights_mode == "as-is" or faulty.fault.phase != "weights"


def test_fault_that_a_pair_has_no_place_for_is_refused():
    perceptron = draw_pair(0, family="mlp")

    with pytest.raises(SpecError, match="expected a layer in which 'gates_swapped' does something"):
        seed_fault(perceptron, "gates_swapped")


def test_unknown_fault_is_refused_with_the_nearest():
    with pytest.raises(SpecError, match="Nearest: gates_swapped"):
        seed_fault(draw_pair(0, family="mlp"), "gate_swapped")


def test_layer_names_are_those_of_the_built_models():
    pair = draw_pair(1, family="mlp")
    torch, keras = pair.build("torch"), pair.build("keras")

    for name in (node.name for node in pair.reference.nodes if node.kind == "dense"):
        paths = pair.layer_names[name]
        units = len(pair.reference.weights[f"{name}.weight"])
        assert torch.get_submodule(paths["torch"]).out_features == units
        assert keras.get_layer(paths["keras"]).units == units


def test_models_take_the_inputs_of_their_side():
    pair = draw_pair(1)
    inputs = pair.inputs()
    torch = importlib.import_module("torch")

    outputs = pair.build("torch")(torch.as_tensor(inputs["torch"])).detach().numpy()

    keras_outputs = pair.build("keras")(inputs["keras"], training=False)
    assert outputs.shape == pair.cotangent().shape
    assert outputs.shape[:-1] == pair.labels().shape
    assert_close(np.asarray(keras_outputs), outputs, atol=1e-4, rtol=1e-4)


def test_removing_what_was_inserted_gives_the_plan_back():
    plan = draw_pair(2, family="cnn").reference
    first = plan.nodes[0].name

    assert remove(insert_after(plan, first, "detach"), f"detach_after_{first}") == plan
