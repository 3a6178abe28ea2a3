"""Seeded faults change a copy, and refuse where they would change nothing."""

import dataclasses

import numpy as np
import pytest

from parity.errors import DivergenceError, SpecError
from parity.spec.conventions import KERAS, TORCH
from parity.testing import specs
from parity.testing.assertions import assert_close, assert_identical
from parity.testing.faults import (
    ARRAY_FAULTS,
    CONVENTION_FAULTS,
    FAULTS,
    KILOSTEP_FAULTS,
    LOSS_FAULTS,
    OPTIMIZER_FAULTS,
    UPDATE_FAULTS,
    seed_array_fault,
    seed_spec_fault,
    seed_update_fault,
)
from parity.testing.updates import UPDATES

SQUARE = np.arange(2.0, 38.0).reshape(2, 2, 3, 3) / 7.0
SGD = dataclasses.replace(specs.SGD, nesterov=True, l2=5e-4, decoupled_decay=0.02)
ADAM = dataclasses.replace(specs.ADAM, l2=5e-4, decoupled_decay=0.02)
RULES = [SGD, ADAM, *(update.rule for update in UPDATES.values())]


def changes(seed, name, subject):
    """Return whether a fault applies to a rule or update."""
    try:
        seed(name, subject)
    except SpecError:
        return False
    return True


@pytest.mark.parametrize("name", ARRAY_FAULTS)
def test_array_fault_is_a_copy_that_assert_close_catches(name):
    original = SQUARE.copy()

    faulty = seed_array_fault(name, SQUARE)

    with pytest.raises(DivergenceError, match="elements differ"):
        assert_close(faulty, SQUARE, atol=1e-6, rtol=1e-6)
    assert_identical(SQUARE, original)


def test_array_fault_depends_on_its_seed_only():
    first, second = (seed_array_fault("element_bumped", SQUARE, seed=3) for _ in range(2))

    assert_identical(first, second)
    other = seed_array_fault("element_bumped", SQUARE, seed=4)
    assert (first != SQUARE).argmax() != (other != SQUARE).argmax()


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("channels_swapped", np.ones(4), r"does not apply to an array of shape \(4,\)\."),
        ("channels_swapped", np.ones(1), r"does not apply to an array of shape \(1,\): "),
        ("square_transposed", np.ones((2, 3)), r"does not apply to an array of shape \(2, 3\)"),
        ("zeroed", np.zeros(3), r"does not apply to an array of shape \(3,\)"),
        ("scaled", np.arange(3), r"does not apply to an array of shape \(3,\)"),
        ("element_bumped", np.arange(3), r"does not apply to an array of shape \(3,\)"),
        ("zerod", np.ones(3), "fault 'zerod' not found. Nearest: zeroed"),
    ],
)
def test_array_fault_is_refused_where_it_changes_nothing(name, array, message):
    with pytest.raises(SpecError, match=message):
        seed_array_fault(name, array)


@pytest.mark.parametrize(
    "conventions", [TORCH.conventions, KERAS.conventions], ids=["torch", "keras"]
)
@pytest.mark.parametrize("name", CONVENTION_FAULTS)
def test_convention_fault_changes_one_field(name, conventions):
    faulty = seed_spec_fault(name, conventions)

    fields = [field.name for field in dataclasses.fields(conventions)]
    changed = [field for field in fields if getattr(faulty, field) != getattr(conventions, field)]
    assert changed == [CONVENTION_FAULTS[name][0]]


@pytest.mark.parametrize("name", OPTIMIZER_FAULTS)
def test_optimizer_fault_changes_one_field(name):
    field, _ = OPTIMIZER_FAULTS[name]
    rules = [rule for rule in RULES if changes(seed_spec_fault, name, rule)]

    assert rules
    for rule in rules:
        faulty = seed_spec_fault(name, rule)
        assert faulty == dataclasses.replace(rule, **{field: getattr(faulty, field)})
        assert getattr(faulty, field) != getattr(rule, field)


@pytest.mark.parametrize("name", UPDATE_FAULTS)
def test_update_fault_changes_one_part(name):
    part, _ = UPDATE_FAULTS[name]
    touched = [update for update in UPDATES.values() if changes(seed_update_fault, name, update)]

    assert touched
    for update in touched:
        faulty = seed_update_fault(name, update)
        assert faulty == dataclasses.replace(update, **{part: getattr(faulty, part)})
        assert getattr(faulty, part) != getattr(update, part)


def test_update_fault_is_refused_where_there_is_no_such_part():
    with pytest.raises(SpecError, match="NoClipping has no field 'limit'"):
        seed_update_fault("clipping_limit_off", UPDATES["adam"])


def test_update_fault_is_refused_where_it_changes_nothing():
    with pytest.raises(SpecError, match=r"it leaves groups = \(\) as it is"):
        seed_update_fault("groups_removed", UPDATES["adam"])


def test_spec_fault_is_refused_where_the_spec_has_no_such_field():
    with pytest.raises(SpecError, match="Adam has no field 'momentum'"):
        seed_spec_fault("momentum_through_float32", ADAM)


def test_spec_fault_is_refused_where_the_value_survives():
    exact = dataclasses.replace(SGD, momentum=0.5)

    with pytest.raises(SpecError, match=r"it leaves momentum = 0\.5 as it is"):
        seed_spec_fault("momentum_through_float32", exact)


@pytest.mark.parametrize("name", ["sign_flipped", "bn_epsilon_off"])
def test_fault_table_holds_functions_by_name(name):
    subject = SQUARE if name in ARRAY_FAULTS else TORCH.conventions

    assert FAULTS[name](subject) is not subject
    assert set(FAULTS) == {
        *ARRAY_FAULTS,
        *CONVENTION_FAULTS,
        *OPTIMIZER_FAULTS,
        *KILOSTEP_FAULTS,
        *UPDATE_FAULTS,
        *LOSS_FAULTS,
    }
