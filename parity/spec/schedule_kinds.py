"""The kinds of learning-rate schedule: each a pure function from a position in time to a factor.

Positions and lengths are those of `parity.spec.warmup`, which is all that is imported here.
"""

import itertools
import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import Literal

from parity.spec.warmup import (
    Schedule,
    WarmedSchedule,
    describe_choice,
    describe_count,
    describe_positive,
    describe_range,
)


@dataclass(frozen=True, kw_only=True)
class ConstantSchedule(WarmedSchedule):
    """1 throughout."""

    kind: Literal["constant"] = "constant"

    @property
    def is_flat(self) -> bool:
        """See `Schedule.is_flat`."""
        return True

    def _shape(self, position: int, length: int) -> float:
        del position, length
        return 1.0


@dataclass(frozen=True, kw_only=True)
class DecaySchedule(WarmedSchedule):
    """A shape that falls from 1 to `final_factor` while progress runs from 0 to 1.

    The first step runs at 1, the last one just above `final_factor`; later ones at `final_factor`.

    Attributes:
        final_factor: Factor at the end of training.
    """

    final_factor: float

    @property
    def is_flat(self) -> bool:
        """See `Schedule.is_flat`."""
        return self.final_factor == 1.0

    def _shape(self, position: int, length: int) -> float:
        progress = min(position / length, 1.0) if length > 0 else 1.0
        return self.final_factor + (1.0 - self.final_factor) * self._fall(progress)

    @abstractmethod
    def _fall(self, progress: float) -> float:
        """Return a value that goes from 1 to 0 while progress goes from 0 to 1."""

    def _problems(self) -> list[str]:
        return [
            *super()._problems(),
            *describe_range("final_factor", self.final_factor, 0.0, 1.0),
        ]


@dataclass(frozen=True, kw_only=True)
class CosineSchedule(DecaySchedule):
    """`f + (1 - f) (1 + cos(pi t)) / 2` with progress `t` and `f` the final factor.

    Source: Loshchilov & Hutter 2017, equation 5; torch 2.13.0, `CosineAnnealingLR` up to `T_max`;
    keras 3.15.1, `CosineDecay`.
    """

    kind: Literal["cosine"] = "cosine"

    def _fall(self, progress: float) -> float:
        return (1.0 + math.cos(math.pi * progress)) / 2.0


@dataclass(frozen=True, kw_only=True)
class LinearSchedule(DecaySchedule):
    """`f + (1 - f) (1 - t)` with progress `t` and `f` the final factor.

    Source: torch 2.13.0, `LinearLR` with `end_factor = f`.
    """

    kind: Literal["linear"] = "linear"

    def _fall(self, progress: float) -> float:
        return 1.0 - progress


@dataclass(frozen=True, kw_only=True)
class PolynomialSchedule(DecaySchedule):
    """`f + (1 - f) (1 - t)^power` with progress `t` and `f` the final factor.

    Source: torch 2.13.0, `PolynomialLR` (`f = 0`); keras 3.15.1, `PolynomialDecay`.

    Attributes:
        power: Exponent, above 0.
    """

    kind: Literal["polynomial"] = "polynomial"
    power: float

    def _fall(self, progress: float) -> float:
        return float((1.0 - progress) ** self.power)

    def _problems(self) -> list[str]:
        return [*super()._problems(), *describe_positive("power", self.power)]


@dataclass(frozen=True, kw_only=True)
class RestartSchedule(WarmedSchedule):
    """A cosine that starts again at 1 as each cycle ends (SGDR), whatever the training's length.

    Source: Loshchilov & Hutter 2017, section 3; torch 2.13.0, `CosineAnnealingWarmRestarts`;
    keras 3.15.1, `CosineDecayRestarts` with `m_mul = 1`.

    Attributes:
        first_cycle: Units of the first cycle, `T_0`.
        cycle_growth: Factor by which each cycle is longer than the one before, `T_mult`.
        final_factor: Factor that each cycle tends to.
    """

    kind: Literal["restarts"] = "restarts"
    first_cycle: int
    cycle_growth: int
    final_factor: float

    @property
    def is_flat(self) -> bool:
        """See `Schedule.is_flat`."""
        return self.final_factor == 1.0

    def _shape(self, position: int, length: int) -> float:
        del length
        cycle = self.first_cycle
        if self.cycle_growth == 1:
            position %= cycle
        while position >= cycle:
            position -= cycle
            cycle *= self.cycle_growth
        shape = (1.0 + math.cos(math.pi * position / cycle)) / 2.0
        return self.final_factor + (1.0 - self.final_factor) * shape

    def _problems(self) -> list[str]:
        return [
            *super()._problems(),
            *describe_count("first_cycle", self.first_cycle),
            *describe_count("cycle_growth", self.cycle_growth),
            *describe_range("final_factor", self.final_factor, 0.0, 1.0),
        ]


@dataclass(frozen=True, kw_only=True)
class MultistepSchedule(WarmedSchedule):
    """`gamma^k` once `k` milestones have passed.

    Source: torch 2.13.0, `MultiStepLR`, which drops at a milestone; keras 3.15.1,
    `PiecewiseConstantDecay`, which drops one step after a boundary.

    Attributes:
        milestones: Units, rising; under a `prefix` warm-up they are counted from its end.
        gamma: Factor of one drop, above 0.
        drops: Whether the unit that is numbered as the milestone already runs at the new factor
            (`at_milestone`) or is the last at the old one (`after_milestone`).
    """

    kind: Literal["multistep"] = "multistep"
    milestones: tuple[int, ...]
    gamma: float
    drops: Literal["at_milestone", "after_milestone"]

    @property
    def is_flat(self) -> bool:
        """See `Schedule.is_flat`."""
        return self.gamma == 1.0

    def _shape(self, position: int, length: int) -> float:
        del length
        delay = int(self.drops == "after_milestone")
        passed = sum(position >= milestone + delay for milestone in self.milestones)
        return float(self.gamma**passed)

    def _problems(self) -> list[str]:
        problems = [
            *super()._problems(),
            *describe_positive("gamma", self.gamma),
            *describe_choice("drops", self.drops, ("at_milestone", "after_milestone")),
        ]
        marks = self.milestones
        rising = all(low < high for low, high in itertools.pairwise(marks))
        if not marks or marks[0] < 1 or not rising:
            problems.append(f"milestones must be >= 1 and rise; got {list(marks)!r}.")
        return problems


@dataclass(frozen=True, kw_only=True)
class ExponentialSchedule(WarmedSchedule):
    """`gamma^(position / gamma_every)`; above 1 it rises, as in a learning-rate range test.

    Source: torch 2.13.0, `ExponentialLR` with `gamma_every = 1`; keras 3.15.1, `ExponentialDecay`.

    Attributes:
        gamma: Factor over `gamma_every` units, above 0.
        gamma_every: Units over which the factor changes by `gamma`, evenly from one to the next.
    """

    kind: Literal["exponential"] = "exponential"
    gamma: float
    gamma_every: int

    @property
    def is_flat(self) -> bool:
        """See `Schedule.is_flat`."""
        return self.gamma == 1.0

    def _shape(self, position: int, length: int) -> float:
        del length
        return float(self.gamma ** (position / self.gamma_every))

    def _problems(self) -> list[str]:
        return [
            *super()._problems(),
            *describe_positive("gamma", self.gamma),
            *describe_count("gamma_every", self.gamma_every),
        ]


@dataclass(frozen=True, kw_only=True)
class TriangularSchedule(Schedule):
    """A line up to 1, then a line down over the rest of training.

    With `w = floor(peak T)` of `T` units: `s + (1 - s) t / w` before unit `w`, and
    `1 - (1 - e) (t - w) / (T - w)` from there on.

    Source: Jordan 2024 (airbench), the 94 % training: `s = 0.2`, peak 0.23, `e = 0.07`.

    Attributes:
        start_factor: Factor of the first step, `s`.
        peak: Share of the training at which the factor is 1, in [0, 1).
        final_factor: Factor at the end of training, `e`.
    """

    kind: Literal["triangular"] = "triangular"
    start_factor: float
    peak: float
    final_factor: float

    @property
    def is_flat(self) -> bool:
        """See `Schedule.is_flat`."""
        return self.final_factor == 1.0 and (self.start_factor == 1.0 or self.peak == 0.0)

    def _shape(self, position: int, length: int) -> float:
        top = math.floor(self.peak * length)
        if position < top:
            return self.start_factor + (1.0 - self.start_factor) * position / top
        return 1.0 - (1.0 - self.final_factor) * min((position - top) / (length - top), 1.0)

    def _problems(self) -> list[str]:
        problems = [
            *super()._problems(),
            *describe_range("start_factor", self.start_factor, 0.0, 1.0),
            *describe_range("final_factor", self.final_factor, 0.0, 1.0),
        ]
        if not 0.0 <= self.peak < 1.0:
            problems.append(f"peak must be in [0, 1); got {self.peak!r}.")
        return problems


@dataclass(frozen=True, kw_only=True)
class CyclicSchedule(Schedule):
    """Lines up to 1 and down again, over and over, whatever the training's length.

    The base rate is the upper rate. Source: Smith 2017; torch 2.13.0, `CyclicLR`.

    Attributes:
        floor_factor: Factor between cycles, `base_lr / max_lr`.
        rise: Units of the way up.
        fall: Units of the way down.
        peaks: `equal`, or `halved`: each cycle is half as high above the floor as the one before
            (torch's `triangular2`).
    """

    kind: Literal["cyclic"] = "cyclic"
    floor_factor: float
    rise: int
    fall: int
    peaks: Literal["equal", "halved"]

    @property
    def is_flat(self) -> bool:
        """See `Schedule.is_flat`."""
        return self.floor_factor == 1.0

    def _shape(self, position: int, length: int) -> float:
        del length
        cycle, within = divmod(position, self.rise + self.fall)
        if within <= self.rise:
            height = within / self.rise
        else:
            height = (self.rise + self.fall - within) / self.fall
        # `ldexp` is exact and turns to 0 where a power of two would overflow.
        scaled = math.ldexp(height, -cycle) if self.peaks == "halved" else height
        return self.floor_factor + (1.0 - self.floor_factor) * scaled

    def _problems(self) -> list[str]:
        return [
            *super()._problems(),
            *describe_range("floor_factor", self.floor_factor, 0.0, 1.0),
            *describe_count("rise", self.rise),
            *describe_count("fall", self.fall),
            *describe_choice("peaks", self.peaks, ("equal", "halved")),
        ]
