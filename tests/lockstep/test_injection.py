"""An injected fault that a schedule makes void is said to be so, and no other."""

import dataclasses

import pytest

from parity.lockstep.injection import describe_no_op, parse_injection
from parity.spec.recipe import load_recipe
from parity.spec.schedule_kinds import TriangularSchedule
from parity.testing.specs import RESNET

ADAM = load_recipe("best_adam", data="digits")
TRIANGLE = TriangularSchedule(unit="step", start_factor=0.2, peak=0.2, final_factor=0.0)
FLAT = dataclasses.replace(ADAM.schedule, final_factor=1.0)
SCHEDULES = {
    "falling": (ADAM.schedule, None),
    "triangular": (TRIANGLE, None),
    "flat after a warm-up": (dataclasses.replace(FLAT, warmup_epochs=1.0), None),
    "flat": (FLAT, "under a constant schedule the current rate is the base rate"),
}


def test_what_a_training_scores_is_void_in_a_lockstep():
    recipe = load_recipe("lookahead", data="digits")
    injection = parse_injection("averaging.scores_slow=false", recipe, RESNET)

    assert "a lockstep scores none" in str(describe_no_op(injection, recipe, RESNET))


@pytest.mark.parametrize(("schedule", "expected"), SCHEDULES.values(), ids=SCHEDULES)
def test_scaling_of_decay_by_the_rate_is_void_where_the_rate_stands_still(schedule, expected):
    recipe = dataclasses.replace(ADAM, schedule=schedule)
    injection = parse_injection("decay_scaled_by_lr=false", recipe, RESNET)

    assert describe_no_op(injection, recipe, RESNET) == expected
