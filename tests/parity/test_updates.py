"""Every form of every update: twins follow the float64 rule on given gradients, faults do not."""

import contextlib
import dataclasses
import math

import numpy as np
import pytest

from parity.compare.gaps import layer_gap
from parity.errors import SpecError
from parity.frameworks.build import FRAMEWORKS, build_twin
from parity.frameworks.net import Batch, OptimizerState
from parity.initialize import initial_state
from parity.lockstep.bounds import rule_bound
from parity.lockstep.steps import Snapshot, rule_gap, take_snapshot
from parity.reference.optimizers import initial_slots, penalty, update_parameters
from parity.rng import stream
from parity.spec.optimizers import OPTIMIZERS
from parity.spec.position import Position
from parity.testing import specs
from parity.testing.faults import (
    OPTIMIZER_FAULTS,
    UPDATE_FAULTS,
    seed_spec_fault,
    seed_update_fault,
)
from parity.testing.updates import UPDATES

SPEC = dataclasses.replace(specs.RESNET, blocks=(1,), width=3)
START = {
    name: array + 0.1 * stream(0, "update", name).standard_normal(array.shape)
    for name, array in initial_state(SPEC, seed=0).items()
}
NAMES = [name for name, slot in SPEC.slots().items() if slot.role == "parameter"]
BATCH = Batch(
    images=stream(0, "update", "images")
    .standard_normal((4, *SPEC.input_size, SPEC.in_channels))
    .astype(np.float32),
    labels=np.arange(4),
    targets=np.eye(4),
)
# Of the base rate, one a step: enough steps for the slowest average to move.
FACTORS = (1.0, 0.8, 0.8, 0.5, 0.3, 0.1)

# One form of each rule, and whatever is not a rule, runs on every backend.
ON_EVERY_BACKEND = {
    *OPTIMIZERS,
    "clip-global-norm",
    "groups-fast-norm-biases",
    "groups-that-end-clipped",
    "ema-keras",
    "lookahead",
    "lookahead-ema",
    "sgd-dampening",
}
CASES = [
    pytest.param(name, marks=(pytest.mark.backend,) if name in ON_EVERY_BACKEND else ())
    for name in UPDATES
]


def gradients_at(step):
    """Return normal gradients of sizes from 0.01 to 10, another for each array."""
    return {
        name: 10.0 ** (index % 4 - 2)
        * stream(0, "update", "gradients", name, step).standard_normal(START[name].shape)
        for index, name in enumerate(NAMES)
    }


def position_of(step):
    """Return where a step is in a training of 5 epochs: the last two follow the third epoch."""
    return Position(epoch=0.8 * step, progress=(step + 1) / len(FACTORS))


def twin_gaps(framework, update, *, built_as=None):
    """Return the gap of each step of a twin from what `update` makes of the same state."""
    wrong = built_as or update
    net = build_twin(framework, SPEC, update=wrong, dtype="float64")
    net.load_state(START)
    gaps = []
    for step, factor in enumerate(FACTORS):
        before, gradients = take_snapshot(net), gradients_at(step)
        net.apply_gradients(gradients, rate=factor * wrong.rule.lr, position=position_of(step))
        gaps.append(
            rule_gap(
                update,
                before,
                take_snapshot(net),
                gradients=gradients,
                rate=factor * update.rule.lr,
                position=position_of(step),
            )
        )
    return gaps


def reference_gaps(update, *, built_as):
    """Return the gap of each step of the reference under another update."""
    parameters = {name: START[name] for name in NAMES}
    slots, gaps = initial_slots(built_as, parameters), []
    for step, factor in enumerate(FACTORS):
        gradients = gradients_at(step)
        before = Snapshot(state=parameters, optimizer_state=OptimizerState(step=step, slots=slots))
        parameters, slots = update_parameters(
            built_as,
            parameters,
            gradients,
            slots,
            rate=factor * built_as.rule.lr,
            step=step,
            position=position_of(step),
        )
        after = Snapshot(
            state=parameters, optimizer_state=OptimizerState(step=step + 1, slots=slots)
        )
        gaps.append(
            rule_gap(
                update,
                before,
                after,
                gradients=gradients,
                rate=factor * update.rule.lr,
                position=position_of(step),
            )
        )
    return gaps


def worst(gaps):
    return max(gap.gap for gap in gaps)


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("name", CASES)
def test_update_of_a_twin_follows_the_rule(name, framework):
    update = UPDATES[name]

    gaps = twin_gaps(framework, update)

    assert worst(gaps) <= rule_bound(update.rule), gaps


def seeded(name):
    """Yield fault and wrong update of every fault that changes this update."""
    update = UPDATES[name]
    for fault in OPTIMIZER_FAULTS:
        with contextlib.suppress(SpecError):
            yield fault, dataclasses.replace(update, rule=seed_spec_fault(fault, update.rule))
    for fault in UPDATE_FAULTS:
        with contextlib.suppress(SpecError):
            yield fault, seed_update_fault(fault, update)


def effect(update, wrong):
    """Return how far a wrong update is from the right one in whatever it shows first."""
    parameters = {name: START[name] for name in NAMES}
    starts = [initial_slots(each, parameters) for each in (update, wrong)]
    if not has_same_arrays(update, wrong):
        return math.inf
    terms = [penalty(each, parameters) for each in (update, wrong)]
    in_loss = abs(terms[0] - terms[1]) / max(1.0, *terms)
    in_slots = [layer_gap(starts[1][slot], starts[0][slot]).gap for slot in starts[0]]
    return max(in_loss, *in_slots, worst(reference_gaps(update, built_as=wrong)))


def has_same_arrays(*updates):
    parameters = {name: START[name] for name in NAMES}
    held = [arrays_of(initial_slots(update, parameters)) for update in updates]
    return held[0] == held[1]


def arrays_of(slots):
    return {slot: set(held) for slot, held in slots.items()}


def test_every_fault_of_an_update_is_caught_or_changes_nothing(record_property):
    """Between a right update and a caught one there is nothing: a fault shows or has no effect."""
    caught, missed = {}, []
    for name, update in UPDATES.items():
        for fault, wrong in seeded(name):
            size = effect(update, wrong)
            if size > rule_bound(update.rule):
                caught.setdefault(fault, []).append(name)
            elif size > 0.0:
                missed.append((name, fault, size))
    record_property("faults of update conventions", (sum(map(len, caught.values())), len(missed)))

    assert missed == []
    # Each of them is caught somewhere.
    assert {*OPTIMIZER_FAULTS, *UPDATE_FAULTS} - set(caught) == set()


def first_case(fault):
    """Return name and wrong update of the first row of the table in which a fault shows."""
    for name, update in UPDATES.items():
        for found, wrong in seeded(name):
            if found != fault or not has_same_arrays(update, wrong):
                continue
            if effect(update, wrong) > rule_bound(update.rule):
                return name, wrong
    return None


# Shown by the arrays there are, by the loss or by what the optimizer starts from, not by a step.
BEFORE_ANY_STEP = (
    "amsgrad_flipped",
    "amsbound_flipped",
    "centered_flipped",
    "initial_accumulator_off",
    "l2_in_loss_flipped",
    "members_other",
)


@pytest.mark.parametrize(
    "fault", [name for name in (*OPTIMIZER_FAULTS, *UPDATE_FAULTS) if name not in BEFORE_ANY_STEP]
)
def test_fault_of_an_update_is_seen_in_a_twin(fault):
    name, wrong = first_case(fault)

    gaps = twin_gaps("torch", UPDATES[name], built_as=wrong)

    assert worst(gaps) > rule_bound(UPDATES[name].rule)


@pytest.mark.parametrize(
    ("name", "inject", "quantity"),
    [
        ("amsgrad", {"amsgrad": False}, "state structure"),
        ("adagrad", {"initial_accumulator": 0.1}, "initial parameters"),
        ("sgd-momentum", {"l2_in_loss": True}, "loss"),
    ],
)
def test_fault_that_no_step_shows_is_found_before_any(name, inject, quantity):
    update = UPDATES[name]
    changed = dataclasses.replace(update, rule=dataclasses.replace(update.rule, **inject))
    right, wrong = (
        build_twin("torch", SPEC, update=each, dtype="float64") for each in (update, changed)
    )
    for net in (right, wrong):
        net.load_state(START)
    held = [net.optimizer_state().slots for net in (right, wrong)]

    if quantity == "state structure":
        assert arrays_of(held[0]) != arrays_of(held[1])
    elif quantity == "initial parameters":
        assert layer_gap(held[1]["sum"], held[0]["sum"]).gap > 0.0
    else:
        losses = [net.gradients(BATCH).loss for net in (right, wrong)]
        expected = update.rule.l2 / 2.0 * sum(float(np.sum(START[key] ** 2)) for key in NAMES)
        assert losses[1] - losses[0] == pytest.approx(expected, rel=1e-12)
