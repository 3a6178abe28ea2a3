"""Optimizer specs: every hyper-parameter and every form on which the frameworks differ.

No field has a default. Update rules are stated in `parity.reference.optimizers`, which both twins
follow.
"""

from dataclasses import dataclass
from typing import Literal

from parity.errors import SpecError
from parity.spec.conventions import EpsilonPlacement


def _require(owner: str, problems: list[str]) -> None:
    if problems:
        message = f"{owner}: " + " ".join(problems)
        raise SpecError(message)


def _negative(spec: object, *fields: str) -> list[str]:
    return [
        f"{field} must be >= 0 and finite; got {getattr(spec, field)!r}."
        for field in fields
        if not 0.0 <= getattr(spec, field) < float("inf")
    ]


def _outside_unit(spec: object, *fields: str) -> list[str]:
    return [
        f"{field} must be in [0, 1); got {getattr(spec, field)!r}."
        for field in fields
        if not 0.0 <= getattr(spec, field) < 1.0
    ]


@dataclass(frozen=True, kw_only=True)
class Sgd:
    """Stochastic gradient descent with momentum.

    Attributes:
        lr: Base learning rate; the schedule multiplies it.
        momentum: Weight of the old velocity.
        nesterov: Whether the step looks ahead along the new velocity.
        l2: Coupled penalty, added to the gradient as `l2 * parameter`.
        decoupled_decay: Fraction taken off the parameter beside the gradient step.
        decay_scaled_by_lr: Whether the current rate multiplies `decoupled_decay`; otherwise the
            base rate does.
        velocity_holds_lr: Whether the velocity accumulates `-lr * gradient` (Keras) or the gradient
            (torch).
    """

    kind: Literal["sgd"] = "sgd"
    lr: float
    momentum: float
    nesterov: bool
    l2: float
    decoupled_decay: float
    decay_scaled_by_lr: bool
    velocity_holds_lr: bool

    def __post_init__(self) -> None:
        problems = _negative(self, "lr", "l2", "decoupled_decay") + _outside_unit(self, "momentum")
        if self.nesterov and self.momentum == 0.0:
            problems.append("nesterov needs momentum > 0; got 0.0.")
        _require("optimizer", problems)

    def slot_names(self) -> tuple[str, ...]:
        """Return the optimizer's arrays per parameter, in PyTorch's names."""
        return ("momentum_buffer",) if self.momentum else ()


@dataclass(frozen=True, kw_only=True)
class Adam:
    """Adam (Kingma & Ba 2015), or AdamW where `decoupled_decay` is positive.

    Attributes:
        lr: Base learning rate; the schedule multiplies it.
        beta1: Decay of the first moment.
        beta2: Decay of the second moment.
        epsilon: Floor of the denominator.
        epsilon_placement: Beside the root of the bias-corrected second moment (`corrected`, torch)
            or of the raw one (`uncorrected`, Keras).
        l2: Coupled penalty, added to the gradient as `l2 * parameter`.
        decoupled_decay: Fraction taken off the parameter beside the gradient step.
        decay_scaled_by_lr: Whether the current rate multiplies `decoupled_decay`; otherwise the
            base rate does.
    """

    kind: Literal["adam"] = "adam"
    lr: float
    beta1: float
    beta2: float
    epsilon: float
    epsilon_placement: EpsilonPlacement
    l2: float
    decoupled_decay: float
    decay_scaled_by_lr: bool

    def __post_init__(self) -> None:
        problems = _negative(self, "lr", "l2", "decoupled_decay") + _outside_unit(
            self, "beta1", "beta2"
        )
        if not 0.0 < self.epsilon < float("inf"):
            problems.append(f"epsilon must be > 0 and finite; got {self.epsilon!r}.")
        if self.epsilon_placement not in ("corrected", "uncorrected"):
            problems.append(
                "epsilon_placement must be 'corrected' or 'uncorrected'; "
                f"got {self.epsilon_placement!r}."
            )
        _require("optimizer", problems)

    def slot_names(self) -> tuple[str, ...]:
        """Return the optimizer's arrays per parameter, in PyTorch's names."""
        return ("exp_avg", "exp_avg_sq")


OptimizerSpec = Sgd | Adam
OPTIMIZERS: dict[str, type[Sgd] | type[Adam]] = {"sgd": Sgd, "adam": Adam}


def decay_rate(spec: OptimizerSpec, *, rate: float) -> float:
    """Return the fraction that decoupled decay takes off each parameter at a step of rate `rate`.

    >>> from dataclasses import replace
    >>> scaled = Sgd(lr=0.1, momentum=0.0, nesterov=False, l2=0.0, decoupled_decay=0.5,
    ...              decay_scaled_by_lr=True, velocity_holds_lr=False)
    >>> unscaled = replace(scaled, decay_scaled_by_lr=False)
    >>> decay_rate(scaled, rate=0.01), decay_rate(unscaled, rate=0.01)
    (0.005, 0.05)
    """
    return spec.decoupled_decay * (rate if spec.decay_scaled_by_lr else spec.lr)
