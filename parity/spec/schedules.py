"""Learning-rate schedules: one factor per step, computed once and handed to every net.

The frameworks' own schedulers are not used: theirs differ in when they drop, in what they count and
in precision.
"""

import math

from parity.errors import SpecError
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
from parity.spec.warmup import Schedule, WarmedSchedule

SCHEDULES: dict[str, type[Schedule]] = {
    "constant": ConstantSchedule,
    "multistep": MultistepSchedule,
    "linear": LinearSchedule,
    "cosine": CosineSchedule,
    "polynomial": PolynomialSchedule,
    "exponential": ExponentialSchedule,
    "restarts": RestartSchedule,
    "triangular": TriangularSchedule,
    "cyclic": CyclicSchedule,
}


def count_steps(epochs: float, *, steps_per_epoch: int) -> int:
    """Return the steps of a training, a step that is begun included.

    What is left of a step below a millionth is taken as rounding of the product.

    >>> count_steps(9.9, steps_per_epoch=48), count_steps(1.1, steps_per_epoch=50)
    (476, 55)
    """
    return math.ceil(round(epochs * steps_per_epoch, 6))


def schedule_factor(schedule: Schedule, *, step: int, steps_per_epoch: int, epochs: float) -> float:
    """Return the factor on the base rate at the 0-based `step` of a training.

    A schedule by step runs over `count_steps(epochs)`. For one by epoch, an epoch that ends early
    is as long as any other: 9.9 epochs run at the factors of 10.

    >>> warmup = {"warmup": "prefix", "warmup_epochs": 0.0, "warmup_start_factor": 0.0,
    ...           "warmup_first_step": "start_factor", "warmup_last_step": "one_rise_below"}
    >>> def factors(schedule):
    ...     return [round(schedule_factor(schedule, step=t, steps_per_epoch=2, epochs=2), 4)
    ...             for t in range(4)]
    >>> factors(ConstantSchedule(unit="step", **warmup | {"warmup_epochs": 1.0}))
    [0.0, 0.5, 1.0, 1.0]
    >>> factors(CosineSchedule(unit="step", **warmup, final_factor=0.0))
    [1.0, 0.8536, 0.5, 0.1464]
    >>> factors(LinearSchedule(unit="epoch", **warmup, final_factor=0.2))
    [1.0, 1.0, 0.6, 0.6]
    >>> factors(PolynomialSchedule(unit="step", **warmup, final_factor=0.0, power=2.0))
    [1.0, 0.5625, 0.25, 0.0625]
    >>> factors(RestartSchedule(
    ...     unit="step", **warmup, first_cycle=2, cycle_growth=2, final_factor=0.0))
    [1.0, 0.5, 1.0, 0.8536]
    >>> factors(MultistepSchedule(
    ...     unit="step", **warmup, milestones=(1, 3), gamma=0.1, drops="at_milestone"))
    [1.0, 0.1, 0.1, 0.01]
    >>> factors(ExponentialSchedule(unit="step", **warmup, gamma=0.25, gamma_every=2))
    [1.0, 0.5, 0.25, 0.125]
    >>> factors(TriangularSchedule(unit="step", start_factor=0.2, peak=0.5, final_factor=0.0))
    [0.2, 0.6, 1.0, 0.5]
    >>> factors(CyclicSchedule(unit="step", floor_factor=0.1, rise=1, fall=1, peaks="halved"))
    [0.1, 1.0, 0.1, 0.55]

    Raises:
        SpecError: If a rising schedule has left the range of float64.
    """
    steps = count_steps(epochs, steps_per_epoch=steps_per_epoch)
    unit_steps, epoch = (1, steps_per_epoch) if schedule.unit == "step" else (steps_per_epoch, 1)
    length = math.ceil(steps / unit_steps)
    try:
        return schedule.factor(step // unit_steps, length=length, epoch=epoch)
    except OverflowError as error:
        message = (
            f"schedule: the factor must be finite; it is beyond float64 at step {step}. "
            "Lower gamma."
        )
        raise SpecError(message) from error


def is_constant(schedule: Schedule) -> bool:
    """Return whether the factor is 1 at every step of any training.

    >>> is_constant(
    ...     TriangularSchedule(unit="step", start_factor=1.0, peak=0.5, final_factor=1.0))
    True
    """
    if isinstance(schedule, WarmedSchedule) and schedule.warmup_epochs > 0.0:
        return schedule.is_flat and schedule.warmup_start_factor == 1.0
    return schedule.is_flat
