"""Learning-rate schedules: one factor per step, computed once and handed to every net."""

import math
from dataclasses import dataclass
from typing import Literal

from parity.errors import SpecError


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """A factor on the base learning rate as a function of training progress.

    Attributes:
        kind: `constant`; `cosine`, `(1 + cos(pi t)) / 2` (Loshchilov & Hutter 2017); or `linear`,
            `1 - t`.
        unit: Whether progress `t` moves every `step` or every `epoch`.
        warmup_epochs: Epochs over which the factor first rises linearly from 0, reaching 1 as they
            end; `t` runs over the rest.
        final_factor: Factor that `cosine` and `linear` tend to at the end of training.
    """

    kind: Literal["constant", "cosine", "linear"]
    unit: Literal["step", "epoch"]
    warmup_epochs: float
    final_factor: float

    def __post_init__(self) -> None:
        problems = []
        if self.kind not in ("constant", "cosine", "linear"):
            problems.append(f"kind must be 'constant', 'cosine' or 'linear'; got {self.kind!r}.")
        if self.unit not in ("step", "epoch"):
            problems.append(f"unit must be 'step' or 'epoch'; got {self.unit!r}.")
        if not self.warmup_epochs >= 0.0:
            problems.append(f"warmup_epochs must be >= 0; got {self.warmup_epochs!r}.")
        if not 0.0 <= self.final_factor <= 1.0:
            problems.append(f"final_factor must be in [0, 1]; got {self.final_factor!r}.")
        if problems:
            message = "schedule: " + " ".join(problems)
            raise SpecError(message)


def schedule_factor(schedule: Schedule, *, step: int, steps_per_epoch: int, epochs: int) -> float:
    """Return the factor on the base rate at the 0-based `step` of `epochs * steps_per_epoch`.

    The first step of an unwarmed schedule runs at factor 1, the last one just above `final_factor`:
    torch's CosineAnnealingLR and keras's CosineDecay agree on both (torch 2.13.0, keras 3.15.1).

    >>> cosine = Schedule(kind="cosine", unit="step", warmup_epochs=0.0, final_factor=0.0)
    >>> [round(schedule_factor(cosine, step=t, steps_per_epoch=2, epochs=2), 4) for t in range(4)]
    [1.0, 0.8536, 0.5, 0.1464]
    """
    position = (
        float(step) if schedule.unit == "step" else float(step // steps_per_epoch * steps_per_epoch)
    )
    warmup = schedule.warmup_epochs * steps_per_epoch
    if step < warmup:
        return (
            (step + 1) / (warmup + 1)
            if schedule.unit == "step"
            else (position + steps_per_epoch) / (warmup + steps_per_epoch)
        )
    if schedule.kind == "constant":
        return 1.0
    length = epochs * steps_per_epoch - warmup
    progress = min(max(position - warmup, 0.0) / length, 1.0) if length > 0 else 1.0
    shape = (
        (1.0 + math.cos(math.pi * progress)) / 2.0 if schedule.kind == "cosine" else 1.0 - progress
    )
    return schedule.final_factor + (1.0 - schedule.final_factor) * shape
