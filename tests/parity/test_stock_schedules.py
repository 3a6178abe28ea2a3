"""Every schedule against the shipped scheduler of either framework, where one exists.

Torch's schedulers multiply the rate on from step to step, in float64; Keras's schedules are closed
forms in float32. What their defaults do differently is stated as a test of its own.
"""

import numpy as np
import pytest
import torch
from torch.optim import lr_scheduler

from parity import runtime
from parity.spec.schedule_kinds import (
    ConstantSchedule,
    CosineSchedule,
    CyclicSchedule,
    ExponentialSchedule,
    LinearSchedule,
    MultistepSchedule,
    PolynomialSchedule,
    RestartSchedule,
    TriangularSchedule,
)
from parity.spec.schedules import schedule_factor
from parity.testing.assertions import assert_close, relative_gap

runtime.select_keras_backend(None)

from keras.optimizers import schedules  # noqa: E402  # after the backend is chosen

STEPS = 40
WARM = 8
UNWARMED = {
    "unit": "step",
    "warmup": "prefix",
    "warmup_epochs": 0.0,
    "warmup_start_factor": 0.25,
    "warmup_first_step": "start_factor",
    "warmup_last_step": "one_rise_below",
}
WARMED = UNWARMED | {"warmup_epochs": WARM / STEPS}
COSINE = CosineSchedule(**UNWARMED, final_factor=0.1)
MULTISTEP = {"milestones": (5, 7, 30), "gamma": 0.1}
CYCLIC = {"unit": "step", "floor_factor": 0.1, "rise": 4, "fall": 7}
# airbench's shape, from another formula for a line through points.
TRIANGLE = np.interp(np.arange(STEPS), [0, 9, STEPS], [0.2, 1.0, 0.07])


def factors(schedule, *, steps=STEPS):
    return np.array(
        [
            schedule_factor(schedule, step=step, steps_per_epoch=STEPS, epochs=1)
            for step in range(steps)
        ]
    )


def torch_factors(scheduler, *, steps=STEPS, **options):
    """Return the rates that a torch scheduler gives a base rate of 1."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], 1.0)
    running = scheduler(optimizer, **options)
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        running.step()
    return np.array(rates)


def warmed(scheduler, **options):
    """Return a torch scheduler that starts as a linear warm-up ends."""

    def build(optimizer):
        rise = lr_scheduler.LinearLR(optimizer, start_factor=0.25, total_iters=WARM)
        rest = scheduler(optimizer, **options)
        return lr_scheduler.SequentialLR(optimizer, [rise, rest], milestones=[WARM])

    return build


def keras_factors(schedule, *, steps=STEPS):
    return np.array([float(schedule(step)) for step in range(steps)])


TORCH = {
    "constant": (ConstantSchedule(**UNWARMED), lr_scheduler.ConstantLR, {"factor": 1.0}),
    "multistep": (
        MultistepSchedule(**UNWARMED, **MULTISTEP, drops="at_milestone"),
        lr_scheduler.MultiStepLR,
        {"milestones": [5, 7, 30], "gamma": 0.1},
    ),
    "linear": (
        LinearSchedule(**UNWARMED, final_factor=0.1),
        lr_scheduler.LinearLR,
        {"start_factor": 1.0, "end_factor": 0.1, "total_iters": STEPS},
    ),
    "cosine": (COSINE, lr_scheduler.CosineAnnealingLR, {"T_max": STEPS, "eta_min": 0.1}),
    "polynomial": (
        PolynomialSchedule(**UNWARMED, final_factor=0.0, power=3.0),
        lr_scheduler.PolynomialLR,
        {"total_iters": STEPS, "power": 3.0},
    ),
    "exponential": (
        ExponentialSchedule(**UNWARMED, gamma=0.9, gamma_every=1),
        lr_scheduler.ExponentialLR,
        {"gamma": 0.9},
    ),
    "restarts": (
        RestartSchedule(**UNWARMED, first_cycle=3, cycle_growth=3, final_factor=0.1),
        lr_scheduler.CosineAnnealingWarmRestarts,
        {"T_0": 3, "T_mult": 3, "eta_min": 0.1},
    ),
    "cyclic": (
        CyclicSchedule(**CYCLIC, peaks="equal"),
        lr_scheduler.CyclicLR,
        {"base_lr": 0.1, "max_lr": 1.0, "step_size_up": 4, "step_size_down": 7},
    ),
    "cyclic, halved": (
        CyclicSchedule(**CYCLIC, peaks="halved"),
        lr_scheduler.CyclicLR,
        {
            "base_lr": 0.1,
            "max_lr": 1.0,
            "step_size_up": 4,
            "step_size_down": 7,
            "mode": "triangular2",
        },
    ),
    "warm-up": (ConstantSchedule(**WARMED), warmed(lr_scheduler.ConstantLR, factor=1.0), {}),
    "warm-up, cosine": (
        CosineSchedule(**WARMED, final_factor=0.1),
        warmed(lr_scheduler.CosineAnnealingLR, T_max=STEPS - WARM, eta_min=0.1),
        {},
    ),
    "warm-up, multistep": (
        MultistepSchedule(**WARMED, **MULTISTEP, drops="at_milestone"),
        warmed(lr_scheduler.MultiStepLR, milestones=[5, 7, 30], gamma=0.1),
        {},
    ),
}
KERAS = {
    "multistep": (
        MultistepSchedule(**UNWARMED, **MULTISTEP, drops="after_milestone"),
        lambda: schedules.PiecewiseConstantDecay([5, 7, 30], [1.0, 0.1, 0.01, 0.001]),
    ),
    "linear": (
        LinearSchedule(**UNWARMED, final_factor=0.1),
        lambda: schedules.PolynomialDecay(1.0, STEPS, end_learning_rate=0.1, power=1.0),
    ),
    "polynomial": (
        PolynomialSchedule(**UNWARMED, final_factor=0.1, power=3.0),
        lambda: schedules.PolynomialDecay(1.0, STEPS, end_learning_rate=0.1, power=3.0),
    ),
    "cosine": (COSINE, lambda: schedules.CosineDecay(1.0, STEPS, alpha=0.1)),
    "exponential": (
        ExponentialSchedule(**UNWARMED, gamma=0.5, gamma_every=10),
        lambda: schedules.ExponentialDecay(1.0, decay_steps=10, decay_rate=0.5),
    ),
    "restarts": (
        RestartSchedule(**UNWARMED, first_cycle=3, cycle_growth=2, final_factor=0.1),
        lambda: schedules.CosineDecayRestarts(1.0, 3, t_mul=2.0, alpha=0.1),
    ),
    "restarts, equal": (
        RestartSchedule(**UNWARMED, first_cycle=8, cycle_growth=1, final_factor=0.1),
        lambda: schedules.CosineDecayRestarts(1.0, 8, t_mul=1.0, alpha=0.1),
    ),
    "warm-up, cosine": (
        CosineSchedule(**WARMED, final_factor=0.1),
        lambda: schedules.CosineDecay(
            0.25, STEPS - WARM, alpha=0.1, warmup_target=1.0, warmup_steps=WARM
        ),
    ),
}


@pytest.mark.parametrize(("schedule", "scheduler", "options"), TORCH.values(), ids=TORCH)
def test_schedule_is_torchs(schedule, scheduler, options):
    assert_close(factors(schedule), torch_factors(scheduler, **options), atol=1e-14, rtol=1e-13)


@pytest.mark.parametrize(("schedule", "build"), KERAS.values(), ids=KERAS)
def test_schedule_is_keras_to_float32(schedule, build):
    assert_close(factors(schedule), keras_factors(build()), atol=2e-7, rtol=1e-6)


def test_triangle_is_a_line_through_three_points():
    schedule = TriangularSchedule(unit="step", start_factor=0.2, peak=0.23, final_factor=0.07)

    assert_close(factors(schedule), TRIANGLE, atol=1e-15, rtol=0.0)


def test_exponential_by_epoch_is_keras_staircase():
    schedule = ExponentialSchedule(**UNWARMED | {"unit": "epoch"}, gamma=0.5, gamma_every=1)
    staircase = schedules.ExponentialDecay(1.0, decay_steps=4, decay_rate=0.5, staircase=True)

    ours = [schedule_factor(schedule, step=t, steps_per_epoch=4, epochs=10) for t in range(STEPS)]

    assert_close(ours, keras_factors(staircase), atol=2e-7, rtol=1e-6)


def test_keras_drops_one_step_after_torch_at_the_same_number():
    at = MultistepSchedule(**UNWARMED, **MULTISTEP, drops="at_milestone")
    after = MultistepSchedule(**UNWARMED, **MULTISTEP, drops="after_milestone")

    assert_close(factors(after)[1:], factors(at)[:-1], atol=0.0, rtol=0.0)
    assert factors(at)[5] < factors(after)[5]


def test_torch_cosine_climbs_again_where_ours_and_keras_stay_at_the_floor():
    steps = STEPS + 10
    climbing = torch_factors(lr_scheduler.CosineAnnealingLR, steps=steps, T_max=STEPS, eta_min=0.1)
    staying = keras_factors(schedules.CosineDecay(1.0, STEPS, alpha=0.1), steps=steps)

    assert_close(factors(COSINE, steps=steps), staying, atol=2e-7, rtol=1e-6)
    assert_close(staying[STEPS:], np.full(10, 0.1), atol=2e-8, rtol=0.0)
    assert climbing[-1] > 0.2


def test_default_restarts_differ_by_the_growth_of_their_cycles():
    torch_default = torch_factors(lr_scheduler.CosineAnnealingWarmRestarts, T_0=8)
    keras_default = keras_factors(schedules.CosineDecayRestarts(1.0, 8))

    assert np.flatnonzero(torch_default == 1.0).tolist() == [0, 8, 16, 24, 32]
    assert np.flatnonzero(keras_default == 1.0).tolist() == [0, 8, 24]


def test_default_polynomials_end_at_zero_and_at_a_ten_thousandth():
    torch_default = torch_factors(lr_scheduler.PolynomialLR, steps=STEPS + 1, total_iters=STEPS)
    keras_default = keras_factors(schedules.PolynomialDecay(1.0, STEPS), steps=STEPS + 1)

    assert torch_default[-1] == 0.0
    assert_close(keras_default[-1], 1e-4, atol=0.0, rtol=1e-6)


def test_default_linear_of_torch_rises():
    rising = torch_factors(lr_scheduler.LinearLR, steps=6)

    assert_close(rising, [1 / 3 + 2 / 15 * t for t in range(6)], atol=1e-15, rtol=0.0)


def test_cosine_of_keras_is_float32_even_in_float64():
    with runtime.precision("float64"):
        rates = keras_factors(schedules.CosineDecay(0.3, STEPS, alpha=0.1))

    assert 1e-10 < relative_gap(rates, 0.3 * factors(COSINE)) < 1e-6
