"""What every learning-rate schedule has: a unit of time, checks, and a linear warm-up.

A position counts whole units, steps or epochs, from 0; a length is the units of the whole training.
Imports `parity.errors` only.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

from parity.errors import SpecError


@dataclass(frozen=True, kw_only=True)
class Schedule(ABC):
    """What every schedule has.

    Attributes:
        kind: Name of the schedule in `parity.spec.schedules.SCHEDULES`.
        unit: Whether the factor moves every `step` or every `epoch`; lengths of the schedule are
            counted in it.
    """

    kind: str
    unit: Literal["step", "epoch"]

    def __post_init__(self) -> None:
        problems = self._problems()
        if problems:
            message = "schedule: " + " ".join(problems)
            raise SpecError(message)

    @property
    def is_flat(self) -> bool:
        """Whether the shape is 1 everywhere."""
        return False

    def factor(self, position: int, *, length: int, epoch: int) -> float:
        """Return the factor on the base rate.

        Args:
            position: Units done before.
            length: Units of the whole training.
            epoch: Units of one epoch.
        """
        del epoch
        return self._shape(position, length)

    @abstractmethod
    def _shape(self, position: int, length: int) -> float:
        """Return the factor that a position of `length` units has without a warm-up."""

    def _problems(self) -> list[str]:
        return describe_choice("unit", self.unit, ("step", "epoch"))


@dataclass(frozen=True, kw_only=True)
class WarmedSchedule(Schedule):
    """A shape that a linear warm-up can precede or cover.

    Over the warm-up's `w` units the factor rises from `s` by equal amounts. At unit `i` it is

    - `s + (1 - s) i / w` from `start_factor` to `one_rise_below`: torch's LinearLR, keras's
      CosineDecay, timm;
    - `s + (1 - s) (i + 1) / w` from `one_rise_above` to `one`;
    - `s + (1 - s) (i + 1) / (w + 1)` from `one_rise_above` to `one_rise_below`;
    - `s + (1 - s) i / (w - 1)` from `start_factor` to `one`.

    Source: torch 2.13.0, `LinearLR`; keras 3.15.1, `CosineDecay`; timm's schedulers, `warmup_t`.

    Attributes:
        warmup: `prefix`: the shape starts as the warm-up ends and has the rest of the training
            (keras CosineDecay). `overlay`: the warm-up hides the beginning of a shape that runs
            over the whole training, so the factor may jump as it ends (timm's default).
        warmup_epochs: Length of the warm-up, rounded to whole units; 0 is none.
        warmup_start_factor: Where the rise starts, `s`.
        warmup_first_step: What the first step runs at.
        warmup_last_step: What the last step of the warm-up runs at.
    """

    warmup: Literal["prefix", "overlay"]
    warmup_epochs: float
    warmup_start_factor: float
    warmup_first_step: Literal["start_factor", "one_rise_above"]
    warmup_last_step: Literal["one", "one_rise_below"]

    def factor(self, position: int, *, length: int, epoch: int) -> float:
        """See `Schedule.factor`."""
        units = round(self.warmup_epochs * epoch)
        if position < units:
            return self._rise(position, units)
        if self.warmup == "overlay":
            return self._shape(position, length)
        return self._shape(position - units, length - units)

    def _rise(self, position: int, units: int) -> float:
        before = int(self.warmup_first_step == "one_rise_above")
        after = int(self.warmup_last_step == "one_rise_below")
        rises = units - 1 + before + after
        # A warm-up of one step that should run at both ends runs at the upper one.
        share = (position + before) / rises if rises else 1.0
        return self.warmup_start_factor + (1.0 - self.warmup_start_factor) * share

    def _problems(self) -> list[str]:
        firsts, lasts = ("start_factor", "one_rise_above"), ("one", "one_rise_below")
        problems = [
            *super()._problems(),
            *describe_choice("warmup", self.warmup, ("prefix", "overlay")),
            *describe_range("warmup_start_factor", self.warmup_start_factor, 0.0, 1.0),
            *describe_choice("warmup_first_step", self.warmup_first_step, firsts),
            *describe_choice("warmup_last_step", self.warmup_last_step, lasts),
        ]
        if not 0.0 <= self.warmup_epochs < math.inf:
            problems.append(f"warmup_epochs must be >= 0; got {self.warmup_epochs!r}.")
        elif self.unit == "epoch" and self.warmup_epochs % 1.0:
            problems.append(
                "warmup_epochs must be whole where the unit is 'epoch'; "
                f"got {self.warmup_epochs!r}."
            )
        return problems


def describe_choice(field: str, value: str, choices: tuple[str, ...]) -> list[str]:
    """Return what is wrong with a value that must be one of some words, if anything is."""
    allowed = " or ".join(map(repr, choices))
    return [] if value in choices else [f"{field} must be {allowed}; got {value!r}."]


def describe_range(field: str, value: float, low: float, high: float) -> list[str]:
    """Return what is wrong with a value that must be in [low, high], if anything is."""
    if low <= value <= high:
        return []
    return [f"{field} must be in [{low:g}, {high:g}]; got {value!r}."]


def describe_positive(field: str, value: float) -> list[str]:
    """Return what is wrong with a value that must be above 0, if anything is."""
    return [] if 0.0 < value < math.inf else [f"{field} must be > 0 and finite; got {value!r}."]


def describe_count(field: str, value: int) -> list[str]:
    """Return what is wrong with a value that must be a count from 1, if anything is."""
    return [] if value >= 1 else [f"{field} must be >= 1; got {value!r}."]
