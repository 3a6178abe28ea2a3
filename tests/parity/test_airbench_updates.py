"""airbench's two updates over whole small trainings: each step of a twin against the reference.

Every step starts from the state that the twin has come to, and the last third of them follows the
end of a group. The model is a small residual net, whose only bias beside its norms' is the head's.
"""

import dataclasses
import math
from dataclasses import dataclass

import numpy as np
import pytest

from conversion.layouts import move_axes
from parity.compare.gaps import Worst, layer_gap, tensor_gap
from parity.frameworks.build import FRAMEWORKS, build_twin
from parity.frameworks.net import Batch
from parity.initialize import initial_state
from parity.lockstep.bounds import rule_bound, step_bounds
from parity.lockstep.steps import rule_gap, take_snapshot
from parity.reference.losses import evaluate_loss
from parity.reference.network import network_backward, record_network
from parity.rng import stream
from parity.spec.losses import CrossEntropy, build_targets
from parity.spec.optimizers import LookaheadEma, Update
from parity.spec.position import position_at
from parity.spec.schedule_kinds import LinearSchedule, TriangularSchedule
from parity.spec.warmup import Schedule
from parity.testing import specs
from parity.testing.assertions import assert_identical
from parity.testing.updates import (
    AIRBENCH95,
    EARLY_BIASES,
    FAST_NORM_BIASES,
    MUON94,
    MUON94_GROUPS,
)

SPEC = dataclasses.replace(specs.RESNET, blocks=(1, 1))
LOSS = CrossEntropy(label_smoothing=0.2, reduction="sum")
BATCH_SIZE, STEPS, STEPS_PER_EPOCH = 8, 36, 8
END = 3 * STEPS_PER_EPOCH
BIAS = "head.bias"


@dataclass(frozen=True, kw_only=True)
class Training:
    update: Update
    schedule: Schedule

    def rate(self, step):
        factor = self.schedule.factor(step, length=STEPS, epoch=STEPS_PER_EPOCH)
        return self.update.rule.lr * factor


TRAININGS = {
    "airbench95": Training(
        update=Update(
            rule=AIRBENCH95.rule(batch_size=BATCH_SIZE),
            groups=(FAST_NORM_BIASES, EARLY_BIASES),
            averaging=LookaheadEma(every=5, decay=0.95**5, power=3.0),
        ),
        schedule=TriangularSchedule(unit="step", start_factor=0.2, peak=0.23, final_factor=0.07),
    ),
    "airbench94_muon": Training(
        update=Update(rule=MUON94, groups=MUON94_GROUPS),
        schedule=LinearSchedule(
            unit="step",
            warmup="prefix",
            warmup_epochs=0.0,
            warmup_start_factor=0.0,
            warmup_first_step="one_rise_above",
            warmup_last_step="one_rise_below",
            final_factor=0.0,
        ),
    ),
}


def batch_at(step):
    generator = stream(0, "airbench update", step)
    labels = generator.integers(0, SPEC.classes, BATCH_SIZE)
    shape = (BATCH_SIZE, *SPEC.input_size, SPEC.in_channels)
    return Batch(
        images=generator.standard_normal(shape).astype(np.float32),
        labels=labels,
        targets=build_targets(LOSS, labels, classes=SPEC.classes),
    )


def position_of(step):
    return position_at(step, steps_per_epoch=STEPS_PER_EPOCH, steps=STEPS)


def judge_step(net, training, step):
    """Make a step; return the gap of each quantity over its bound, and what the bias moved by."""
    batch, rate, before = batch_at(step), training.rate(step), take_snapshot(net)
    images = move_axes(batch.images, source="nhwc", target="nchw")
    tape = record_network(SPEC, before.state, images, training=True)
    loss, d_logits = evaluate_loss(LOSS, tape.trace["head"], batch.targets)
    record = net.step(batch, rate=rate, position=position_of(step), with_gradients=True)
    after = take_snapshot(net)
    rule = training.update.rule
    bounds = step_bounds(step=step + 1, loss=loss, kind=rule.kind, pixels=9 * 6)
    of_rule = rule_gap(
        training.update,
        before,
        after,
        gradients=record.gradients,
        rate=rate,
        position=position_of(step),
    )
    of_gradients = layer_gap(record.gradients, network_backward(tape, d_logits))
    gaps = {
        "loss": (Worst(gap=abs(record.loss - loss), where=""), bounds.loss),
        "gradients": (of_gradients, bounds.gradients),
        "update rule": (of_rule, rule_bound(rule)),
    }
    if not is_averaged(training, step):
        gaps["buffers"] = (tensor_gap(after.state, tape.buffers), bounds.running_statistics)
    return gaps, after.state[BIAS] - before.state[BIAS]


def is_averaged(training, step):
    """Return whether the weights, running statistics among them, become their average."""
    averages = isinstance(training.update.averaging, LookaheadEma)
    return averages and ((step + 1) % 5 == 0 or step + 1 == STEPS)


def train(framework, training, *, built_as=None):
    """Return the quantities over their bounds, and the steps in which the bias moved."""
    update = built_as or training.update
    net = build_twin(framework, SPEC, loss=LOSS, update=update, dtype="float64")
    net.load_state(initial_state(SPEC, seed=0))
    exceeded, moved = [], []
    for step in range(STEPS):
        gaps, change = judge_step(net, training, step)
        exceeded += [
            (step, name, worst) for name, (worst, bound) in gaps.items() if not worst.gap <= bound
        ]
        moved += [step] if change.any() else []
    return exceeded, moved


@pytest.mark.backend
@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("name", TRAININGS)
def test_every_step_of_a_twin_is_the_references_before_and_after_a_group_ends(name, framework):
    training = TRAININGS[name]

    exceeded, moved = train(framework, training)

    assert exceeded == []
    assert set(range(END)) <= set(moved)
    # The first average after the end still mixes in what was before it.
    late = {step for step in moved if step >= END}
    assert all(is_averaged(training, step) for step in late)


@pytest.mark.parametrize("name", TRAININGS)
def test_a_twin_that_trains_on_after_the_end_is_caught_at_that_step(name):
    training = TRAININGS[name]
    groups = tuple(
        dataclasses.replace(group, trained_epochs=math.inf, schedule="shared")
        for group in training.update.groups
    )

    exceeded, _ = train(
        "torch", training, built_as=dataclasses.replace(training.update, groups=groups)
    )

    steps = {step for step, quantity, _ in exceeded if quantity == "update rule"}
    assert {step for step, _, _ in exceeded} == steps
    assert min(step for step in steps if step >= END) == END
    assert (min(steps) < END) == (name == "airbench94_muon")  # there the rate is wrong from step 1
    assert all(worst.where.startswith(BIAS) for _, _, worst in exceeded)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_group_that_is_still_trained_moves_as_if_it_never_ended(framework):
    ending = TRAININGS["airbench95"].update
    endless = dataclasses.replace(ending, groups=ending.groups[:1])
    nets = [
        build_twin(framework, SPEC, loss=LOSS, update=update, dtype="float32")
        for update in (ending, endless)
    ]

    for net in nets:
        net.load_state(initial_state(SPEC, seed=0))
        for step in range(2):
            net.step(batch_at(step), rate=ending.rule.lr, position=position_of(step))

    states = [net.state() for net in nets]
    for name in states[0]:
        assert_identical(states[0][name], states[1][name], where=name)
