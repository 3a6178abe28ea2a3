"""What may move by rounding alone: no group that has ended, and biases before a batch norm."""

import dataclasses

import numpy as np
import pytest

from parity.frameworks.net import OptimizerState
from parity.lockstep import bounds
from parity.lockstep.steps import Snapshot, rule_gap, zero_gradient_parameters
from parity.reference.optimizers import initial_slots, update_parameters
from parity.spec.optimizers import LookaheadEma, Update
from parity.spec.position import Position
from parity.testing import specs
from parity.testing.trajectories import draw_arrays
from parity.testing.updates import EARLY_BIASES

SHAPES = {"head.weight": (3, 4), "head.bias": (3,)}
UPDATE = Update(rule=dataclasses.replace(specs.SGD, l2=0.01), groups=(EARLY_BIASES,))
AVERAGED = dataclasses.replace(UPDATE, averaging=LookaheadEma(every=4, decay=0.5, power=0.0))
AFTER_THE_END = Position(epoch=3.0, progress=0.5)
GRADIENTS = draw_arrays("gradients", SHAPES)


def snapshots(update):
    """Return what was before the fourth step, and after it."""
    parameters = draw_arrays("parameters", SHAPES)
    slots = initial_slots(update, parameters)
    after, moved = update_parameters(
        update, parameters, GRADIENTS, slots, rate=0.1, step=3, position=AFTER_THE_END
    )
    return (
        Snapshot(state=parameters, optimizer_state=OptimizerState(step=3, slots=slots)),
        Snapshot(state=after, optimizer_state=OptimizerState(step=4, slots=moved)),
    )


def nudged(arrays, name):
    return {**arrays, name: np.nextafter(arrays[name], np.inf)}


def gap(update, before, after):
    return rule_gap(
        update, before, after, gradients=GRADIENTS, rate=0.1, position=AFTER_THE_END
    ).gap


@pytest.mark.parametrize(("name", "expected"), [("head.bias", np.inf), ("head.weight", 0.0)])
def test_one_rounding_of_a_parameter_counts_where_its_group_has_ended(name, expected):
    before, after = snapshots(UPDATE)

    wrong = dataclasses.replace(after, state=nudged(after.state, name))

    assert gap(UPDATE, before, after) == 0.0
    assert gap(UPDATE, before, wrong) == expected


def test_one_rounding_of_a_slot_counts_where_its_group_has_ended():
    before, after = snapshots(UPDATE)
    held = after.optimizer_state

    wrong = nudged(held.slots["momentum_buffer"], "head.bias")
    slots = {**held.slots, "momentum_buffer": wrong}
    moved = dataclasses.replace(after, optimizer_state=OptimizerState(step=4, slots=slots))

    assert gap(UPDATE, before, moved) == np.inf


def test_an_average_that_writes_back_may_round_what_has_ended():
    before, after = snapshots(AVERAGED)

    rounded = dataclasses.replace(after, state=nudged(after.state, "head.bias"))

    assert gap(AVERAGED, before, rounded) == 0.0


def with_biases(spec):
    conventions = dataclasses.replace(spec.conventions, conv_bias=True)
    return dataclasses.replace(spec, conventions=conventions)


def test_gradients_are_zero_of_biases_before_a_batch_norm_but_not_of_the_whitening_bias():
    names = zero_gradient_parameters(with_biases(specs.AIRBENCH))

    assert names == tuple(
        f"blocks.{block}.conv{index}.bias" for block in range(3) for index in (1, 2)
    )


@pytest.mark.parametrize("spec", [specs.AIRBENCH, specs.RESNET], ids=["airbench", "resnet"])
def test_no_gradient_is_zero_without_biases_before_a_batch_norm(spec):
    assert zero_gradient_parameters(spec) == ()


CANCELLING = Update(rule=dataclasses.replace(specs.ADAM, l2=0.02))


def cancelled_step(*, rate=0.1, unit=0.0):
    """Return Adam's first step where the penalty cancels a gradient to about the epsilon."""
    parameters = draw_arrays("parameters", SHAPES)
    gradients = {name: -0.02 * array for name, array in parameters.items()}
    gradients["head.weight"][0, 0] += 1e-8
    gradients["head.weight"][1] += 1.0
    slots = initial_slots(CANCELLING, parameters)
    rounded = {name: array * (1.0 + unit) for name, array in gradients.items()}
    after, moved = update_parameters(
        CANCELLING, parameters, rounded, slots, rate=rate, step=0, position=AFTER_THE_END
    )
    snapshots = (
        Snapshot(state=parameters, optimizer_state=OptimizerState(step=0, slots=slots)),
        Snapshot(state=after, optimizer_state=OptimizerState(step=1, slots=moved)),
    )
    return rule_gap(
        CANCELLING, *snapshots, gradients=gradients, rate=0.1, position=AFTER_THE_END
    ).gap


def test_the_last_bit_of_a_cancelled_gradient_is_rounding_and_a_rate_is_not():
    bound = bounds.rule_bound(CANCELLING.rule)

    assert cancelled_step() == 0.0
    assert cancelled_step(unit=2.0**-52) <= bound
    assert cancelled_step(rate=0.1 * (1 + 1e-9)) > 1000 * bound
