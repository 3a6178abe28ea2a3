"""Lockstep under a recipe like airbench's: rates per kilostep, and a bias whose training ends."""

import dataclasses
import math

import pytest

from parity.cli.options import open_stream, resolve
from parity.lockstep import pair
from parity.lockstep.comparison import run_lockstep
from parity.lockstep.pair import LockstepSettings

# Digits have 90 batches of 16: the bias is trained in the first three steps.
KILOSTEP = (
    "{kind='sgd_kilostep', lr_per_kilostep=11.5, decay_per_kilostep=0.0153, momentum=0.85, "
    "nesterov=true, velocity_holds_lr=false, l2_in_loss=false}"
)
FAST_NORM_BIASES = (
    "{members='norm_bias', lr_factor=64.0, decay_factor=0.015625, trained_epochs=inf, "
    "schedule='shared'}"
)
EARLY_BIAS = (
    "{members='bias', lr_factor=1.0, decay_factor=1.0, trained_epochs=0.03, schedule='shared'}"
)
OVERRIDES = (
    "batch_size=16",
    f"optimizer={KILOSTEP}",
    f"groups=[{FAST_NORM_BIASES}, {EARLY_BIAS}]",
    "averaging={kind='lookahead_ema', every=5, decay=0.77, power=3.0}",
    "loss.label_smoothing=0.2",
    "loss.reduction=sum",
)
AFTER_THE_END = 4


def lockstep(*, steps, inject=None, **settings):
    recipe = resolve(
        "best_sgd", data="digits", model="resnet8:width=4", epochs=None, overrides=OVERRIDES
    )
    stream = open_stream(recipe, seed=0, folder=None, download=False)
    return run_lockstep(
        recipe, LockstepSettings(steps=steps, **settings), stream=stream, inject=inject
    )


def test_right_twins_stay_within_the_bounds_over_the_end_and_an_average():
    record = lockstep(steps=6)

    assert record["verdict"] == "numerically equivalent", record["reason"]
    changes = {trial["change"]: trial["caught"] for trial in record["detection_power"]}
    assert changes["groups[1].trained_epochs=inf"]
    assert changes["lr_per_kilostep=11.500000011500001"]
    assert changes["decay_per_kilostep=0.0"]
    # Once the group has ended, when it did and how it got there is nowhere to be seen.
    missed = {trial["fault"] for trial in record["detection_power"] if not trial["caught"]}
    assert {"group_end_off", "group_schedule_flipped"} <= missed
    assert not {name for name in missed if name.startswith(("lr", "decay", "momentum"))}


def test_float32_twins_pass_the_end():
    record = lockstep(steps=AFTER_THE_END, dtype="float32", candidate="torch")

    assert record["verdict"] == "numerically equivalent", record["reason"]


def test_free_running_twins_pass_the_end():
    record = lockstep(steps=AFTER_THE_END, mode="free", candidate="torch")

    assert record["verdict"] == "numerically equivalent", record["reason"]


@pytest.mark.parametrize(
    "inject", ["lr_per_kilostep=11.5000001", "optimizer.decay_per_kilostep=0.01531"]
)
def test_a_rate_per_kilostep_can_be_injected_and_is_caught(inject):
    record = lockstep(steps=2, inject=inject, candidate="torch")

    assert record["verdict"] == "diverges"
    assert record["injected"] == inject


def test_a_twin_that_trains_on_is_named_at_the_first_step_after_the_end(monkeypatch):
    build = pair.build_net

    def build_endless(framework, spec, recipe, settings, **options):
        endless = dataclasses.replace(recipe.groups[1], trained_epochs=math.inf)
        wrong = dataclasses.replace(recipe, groups=(recipe.groups[0], endless))
        return build("torch", spec, wrong if framework == "keras" else recipe, settings, **options)

    monkeypatch.setattr(pair, "build_net", build_endless)

    record = lockstep(steps=AFTER_THE_END)

    first = record["first_divergence"]
    assert (first["step"], first["quantity"]) == (AFTER_THE_END, "slots")
    assert first["where"].startswith("momentum_buffer head.bias")
