"""Update rules that divide by the root of accumulated squares: RMSprop, Adagrad, Adadelta."""

from dataclasses import dataclass
from typing import Literal

from parity.spec.conventions import RootEpsilonPlacement
from parity.spec.optimizers.rule import Rule


@dataclass(frozen=True, kw_only=True)
class Rmsprop(Rule):
    """RMSprop (Tieleman & Hinton 2012).

    Attributes:
        square_decay: Weight kept of the old mean square (torch's alpha, Keras's rho).
        momentum: Weight of the old velocity.
        centered: Whether the mean gradient's square is taken off the mean square.
        epsilon: Floor of the denominator.
        epsilon_placement: Added to the root (`outside`, torch) or under it (`inside`, Keras).
        velocity_holds_lr: Whether the velocity accumulates steps of the current rate (Keras), or
            the rate multiplies the velocity (torch).
    """

    kind: Literal["rmsprop"] = "rmsprop"
    square_decay: float
    momentum: float
    centered: bool
    epsilon: float
    epsilon_placement: RootEpsilonPlacement
    velocity_holds_lr: bool

    def problems(self) -> list[str]:
        """Return what is wrong with the values."""
        return (
            super().problems()
            + self.outside_unit("square_decay", "momentum")
            + self.not_positive("epsilon")
            + self.not_among("epsilon_placement", "outside", "inside")
        )

    def initial_slots(self) -> dict[str, float]:
        """See `Rule.initial_slots`."""
        slots = {"square_avg": 0.0}
        if self.momentum:
            slots["momentum_buffer"] = 0.0
        if self.centered:
            slots["grad_avg"] = 0.0
        return slots


@dataclass(frozen=True, kw_only=True)
class Adagrad(Rule):
    """Adagrad (Duchi et al. 2011).

    Attributes:
        initial_accumulator: What the sum of squares starts at (torch 0, Keras 0.1).
        rate_decay: The rate of update `t` is divided by `1 + (t - 1) * rate_decay` (torch).
        epsilon: Floor of the denominator.
        epsilon_placement: Added to the root (`outside`, torch) or under it (`inside`, Keras).
    """

    kind: Literal["adagrad"] = "adagrad"
    initial_accumulator: float
    rate_decay: float
    epsilon: float
    epsilon_placement: RootEpsilonPlacement

    def problems(self) -> list[str]:
        """Return what is wrong with the values."""
        return (
            super().problems()
            + self.not_positive("initial_accumulator", "rate_decay", zero=True)
            + self.not_positive("epsilon")
            + self.not_among("epsilon_placement", "outside", "inside")
        )

    def initial_slots(self) -> dict[str, float]:
        """See `Rule.initial_slots`."""
        return {"sum": self.initial_accumulator}


@dataclass(frozen=True, kw_only=True)
class Adadelta(Rule):
    """Adadelta (Zeiler 2012); the frameworks differ in its defaults only.

    Attributes:
        square_decay: Weight kept of the old mean squares, of gradients and of steps.
        epsilon: Added under both roots.
    """

    kind: Literal["adadelta"] = "adadelta"
    square_decay: float
    epsilon: float

    def problems(self) -> list[str]:
        """Return what is wrong with the values."""
        return super().problems() + self.outside_unit("square_decay") + self.not_positive("epsilon")

    def initial_slots(self) -> dict[str, float]:
        """See `Rule.initial_slots`."""
        return {"square_avg": 0.0, "acc_delta": 0.0}
