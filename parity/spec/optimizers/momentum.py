"""Update rules that step along a velocity: SGD, LARS, Muon."""

from dataclasses import dataclass
from typing import Literal

from parity.errors import SpecError
from parity.spec.optimizers.moments import Adam
from parity.spec.optimizers.rule import Rule

MatrixMembers = Literal["filters", "matrices", "filters_and_matrices"]
MatrixScale = Literal["none", "tall", "rms"]

# Muon's quintic iteration, in all three forms.
# Source: K. Jordan, "Muon: An optimizer for hidden layers in neural networks", 2024; torch 2.13.0
# optim/_muon.py; keras 3.15.1 optimizers/muon.py.
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)


@dataclass(frozen=True, kw_only=True)
class Sgd(Rule):
    """Stochastic gradient descent with momentum.

    Attributes:
        momentum: Weight of the old velocity.
        dampening: Share of each gradient after the first that the velocity leaves out (torch).
        nesterov: Whether the step looks ahead along the new velocity.
        velocity_holds_lr: Whether the velocity accumulates `-lr * gradient` (Keras) or the gradient
            (torch).
    """

    kind: Literal["sgd"] = "sgd"
    momentum: float
    dampening: float
    nesterov: bool
    velocity_holds_lr: bool

    def problems(self) -> list[str]:
        """Return what is wrong with the values."""
        problems = super().problems() + self.outside_unit("momentum", "dampening")
        if self.nesterov and self.momentum == 0.0:
            problems.append("nesterov needs momentum > 0; got 0.0.")
        if self.nesterov and self.dampening != 0.0:
            problems.append(f"nesterov needs dampening = 0.0; got {self.dampening!r}.")
        return problems

    def initial_slots(self) -> dict[str, float]:
        """See `Rule.initial_slots`."""
        return {"momentum_buffer": 0.0} if self.momentum else {}

    def normalizes(self) -> bool:
        """See `Rule.normalizes`."""
        return False


@dataclass(frozen=True, kw_only=True)
class Lars(Rule):
    """LARS (You et al. 2017): SGD whose gradient is scaled per array to the parameter's norm.

    The trust ratio is `trust_coefficient * |p| / (|g| + l2 * |p| + norm_epsilon)`.

    Attributes:
        momentum: Weight of the old velocity.
        nesterov: Whether the step looks ahead along the new velocity.
        velocity_holds_lr: Whether the velocity accumulates `-lr * gradient` or the gradient (timm).
        trust_coefficient: Factor of the ratio.
        norm_epsilon: Added to the ratio's denominator.
        least_norm: Norm of the parameter below which the ratio is 1.
        adapts_undecayed: Whether arrays without `l2` are scaled, too.
    """

    kind: Literal["lars"] = "lars"
    momentum: float
    nesterov: bool
    velocity_holds_lr: bool
    trust_coefficient: float
    norm_epsilon: float
    least_norm: float
    adapts_undecayed: bool

    def problems(self) -> list[str]:
        """Return what is wrong with the values."""
        problems = super().problems() + self.outside_unit("momentum")
        problems += self.not_positive("trust_coefficient")
        problems += self.not_positive("norm_epsilon", "least_norm", zero=True)
        if self.nesterov and self.momentum == 0.0:
            problems.append("nesterov needs momentum > 0; got 0.0.")
        if self.l2_in_loss:
            problems.append("l2_in_loss must be false: the trust ratio needs the bare gradient.")
        return problems

    def initial_slots(self) -> dict[str, float]:
        """See `Rule.initial_slots`."""
        return {"momentum_buffer": 0.0} if self.momentum else {}


@dataclass(frozen=True, kw_only=True)
class Muon(Rule):
    """Muon (Jordan et al. 2024): the velocity of a matrix, made orthogonal before the step.

    A filter `(out, in, h, w)` is the matrix `(out, in * h * w)`.

    Attributes:
        momentum: Weight of the old velocity.
        nesterov: Whether the step looks ahead along the new velocity.
        velocity_averages: Whether gradients enter the velocity, and Nesterov's look ahead, by their
            share `1 - momentum` (torch), or whole (Keras, airbench); the steps are the same.
        members: Which arrays it updates; all others follow `others`.
        iterations: Newton-Schulz steps.
        norm_epsilon: Added to the norm that the matrix is first divided by, or its least value.
        norm_clamped: Whether `norm_epsilon` is the norm's least value (torch) or added to it.
        orthogonalizes_in: `own` precision of the training (Keras), or `bfloat16` (torch, airbench).
        scale: Factor on the step of a matrix `(rows, columns)`: `none` (airbench); `tall`,
            `sqrt(max(1, rows / columns))` (torch); `rms`, `rms_rate * sqrt(max(rows, columns))`
            (Keras).
        rms_rate: Read where `scale` is `rms`.
        renormalizes: Whether the parameter is first scaled to the norm `sqrt(rows)` (airbench).
        others: Rule of all other arrays.
    """

    kind: Literal["muon"] = "muon"
    momentum: float
    nesterov: bool
    velocity_averages: bool
    members: MatrixMembers
    iterations: int
    norm_epsilon: float
    norm_clamped: bool
    orthogonalizes_in: Literal["own", "bfloat16"]
    scale: MatrixScale
    rms_rate: float
    renormalizes: bool
    others: Sgd | Adam

    def problems(self) -> list[str]:
        """Return what is wrong with the values."""
        problems = super().problems() + self.outside_unit("momentum")
        problems += self.not_positive("lr", "norm_epsilon", "rms_rate")
        problems += self.not_among("members", "filters", "matrices", "filters_and_matrices")
        problems += self.not_among("orthogonalizes_in", "own", "bfloat16")
        problems += self.not_among("scale", "none", "tall", "rms")
        if not isinstance(self.others, Sgd | Adam):
            problems.append(f"others must be an sgd or adam rule; got {self.others!r}.")
        if not 0 < self.iterations < 100:
            problems.append(f"iterations must be from 1 to 99; got {self.iterations!r}.")
        return problems

    def initial_slots(self) -> dict[str, float]:
        """See `Rule.initial_slots`."""
        return {"momentum_buffer": 0.0}


def matrix_scale(spec: Muon, rows: int, columns: int) -> float:
    """Return the factor on Muon's step of a `(rows, columns)` matrix."""
    match spec.scale:
        case "none":
            return 1.0
        case "tall":
            return float(max(1.0, rows / columns) ** 0.5)
        case "rms":
            return float(spec.rms_rate * max(rows, columns) ** 0.5)
    message = f"optimizer: scale {spec.scale!r} not found."
    raise SpecError(message)
