"""airbench's form of SGD: rate and decay that need no tuning for another batch or momentum."""

from dataclasses import dataclass
from typing import Literal

from parity.errors import SpecError
from parity.spec.optimizers.momentum import Sgd

_KILOSTEP_IMAGES = 1024


@dataclass(frozen=True, kw_only=True)
class SgdKilostep:
    """SGD whose rate and decay are stated per 1024 images, whatever momentum and batch size.

    With `k = 1024 (1 + 1 / (1 - momentum))` it is the SGD with `lr = lr_per_kilostep / k` and a
    coupled penalty `l2` such that `lr * l2 = decay_per_kilostep * batch_size / k`. Gradients are of
    a loss that is summed over the batch.

    Source: airbench 0.1.8, utils.py, `train`.

    Attributes:
        lr_per_kilostep: How far 1024 images move the weights.
        decay_per_kilostep: What 1024 images take off the weights, whatever the rate.
        momentum: Weight of the old velocity.
        nesterov: Whether the step looks ahead along the new velocity (airbench).
        velocity_holds_lr: As of `Sgd`.
        l2_in_loss: As of `Sgd`.
    """

    kind: Literal["sgd_kilostep"] = "sgd_kilostep"
    lr_per_kilostep: float
    decay_per_kilostep: float
    momentum: float
    nesterov: bool
    velocity_holds_lr: bool
    l2_in_loss: bool

    def __post_init__(self) -> None:
        problems = []
        if not 0.0 < self.lr_per_kilostep < float("inf"):
            problems.append(
                f"lr_per_kilostep must be > 0 and finite; got {self.lr_per_kilostep!r}."
            )
        if not 0.0 <= self.decay_per_kilostep < float("inf"):
            problems.append(
                f"decay_per_kilostep must be >= 0 and finite; got {self.decay_per_kilostep!r}."
            )
        if not 0.0 <= self.momentum < 1.0:
            problems.append(f"momentum must be in [0, 1); got {self.momentum!r}.")
        if self.nesterov and self.momentum == 0.0:
            problems.append("nesterov needs momentum > 0; got 0.0.")
        if problems:
            message = "optimizer: " + " ".join(problems)
            raise SpecError(message)

    def rule(self, *, batch_size: int) -> Sgd:
        """Return the rule at a batch size.

        >>> form = SgdKilostep(lr_per_kilostep=3.0, decay_per_kilostep=0.75, momentum=0.5,
        ...                    nesterov=True, velocity_holds_lr=False, l2_in_loss=False)
        >>> rule = form.rule(batch_size=16)
        >>> rule.lr * 1024, rule.l2
        (1.0, 4.0)
        """
        kilostep = _KILOSTEP_IMAGES * (1.0 + 1.0 / (1.0 - self.momentum))
        return Sgd(
            lr=self.lr_per_kilostep / kilostep,
            l2=self.decay_per_kilostep * batch_size / self.lr_per_kilostep,
            l2_in_loss=self.l2_in_loss,
            decoupled_decay=0.0,
            decay_scaled_by_lr=True,
            momentum=self.momentum,
            dampening=0.0,
            nesterov=self.nesterov,
            velocity_holds_lr=self.velocity_holds_lr,
        )
