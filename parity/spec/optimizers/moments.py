"""Update rules on running means of the gradient and its square: Adam, AdaBound, LAMB."""

from dataclasses import dataclass
from typing import Literal

from parity.spec.conventions import EpsilonPlacement
from parity.spec.optimizers.rule import Rule


@dataclass(frozen=True, kw_only=True)
class Adam(Rule):
    """Adam (Kingma & Ba 2015), or AdamW where `decoupled_decay` is positive.

    Attributes:
        beta1: Decay of the first moment.
        beta2: Decay of the second moment.
        epsilon: Floor of the denominator.
        epsilon_placement: Beside the root of the bias-corrected second moment (`corrected`, torch)
            or of the raw one (`uncorrected`, Keras).
        amsgrad: Whether the denominator takes the largest second moment so far (Reddi et al. 2018),
            kept before its bias is corrected (torch, Keras).
    """

    kind: Literal["adam"] = "adam"
    beta1: float
    beta2: float
    epsilon: float
    epsilon_placement: EpsilonPlacement
    amsgrad: bool

    def problems(self) -> list[str]:
        """Return what is wrong with the values."""
        return (
            super().problems()
            + self.outside_unit("beta1", "beta2")
            + self.not_positive("epsilon")
            + self.not_among("epsilon_placement", "corrected", "uncorrected")
        )

    def initial_slots(self) -> dict[str, float]:
        """See `Rule.initial_slots`."""
        slots = {"exp_avg": 0.0, "exp_avg_sq": 0.0}
        return slots | {"max_exp_avg_sq": 0.0} if self.amsgrad else slots


@dataclass(frozen=True, kw_only=True)
class AdaBound(Rule):
    """AdaBound (Luo et al. 2019): Adam's rate per element, held between bounds that close in.

    Attributes:
        beta1: Decay of the first moment.
        beta2: Decay of the second moment.
        epsilon: Added to the root of the raw second moment.
        final_rate: What the bounds close in on, at the base rate; the schedule multiplies it.
        gamma: How fast they do.
        amsbound: Whether the denominator takes the largest second moment so far.
    """

    kind: Literal["adabound"] = "adabound"
    beta1: float
    beta2: float
    epsilon: float
    final_rate: float
    gamma: float
    amsbound: bool

    def problems(self) -> list[str]:
        """Return what is wrong with the values."""
        return (
            super().problems()
            + self.outside_unit("beta1", "beta2")
            + self.not_positive("lr", "epsilon", "final_rate", "gamma")
        )

    def initial_slots(self) -> dict[str, float]:
        """See `Rule.initial_slots`."""
        slots = {"exp_avg": 0.0, "exp_avg_sq": 0.0}
        return slots | {"max_exp_avg_sq": 0.0} if self.amsbound else slots


@dataclass(frozen=True, kw_only=True)
class Lamb(Rule):
    """LAMB (You et al. 2020): Adam's step, scaled per array to the parameter's norm.

    Attributes:
        beta1: Decay of the first moment.
        beta2: Decay of the second moment.
        epsilon: Added to the root of the bias-corrected second moment.
        decay_in_ratio: Whether decoupled decay is part of the step that the trust ratio measures
            and scales (the paper, timm); otherwise it is taken off first (Keras).
        adapts_undecayed: Whether arrays without decoupled decay are scaled, too (Keras), or take
            Adam's step (timm).
        greatest_ratio: Cap on the trust ratio; `inf` for none.
    """

    kind: Literal["lamb"] = "lamb"
    beta1: float
    beta2: float
    epsilon: float
    decay_in_ratio: bool
    adapts_undecayed: bool
    greatest_ratio: float

    def problems(self) -> list[str]:
        """Return what is wrong with the values."""
        problems = super().problems() + self.outside_unit("beta1", "beta2")
        problems += self.not_positive("epsilon")
        if not self.greatest_ratio > 0.0:
            problems.append(f"greatest_ratio must be > 0; got {self.greatest_ratio!r}.")
        if self.decay_in_ratio and not self.decay_scaled_by_lr:
            problems.append("decay_in_ratio needs decay_scaled_by_lr = true.")
        return problems

    def initial_slots(self) -> dict[str, float]:
        """See `Rule.initial_slots`."""
        return {"exp_avg": 0.0, "exp_avg_sq": 0.0}
