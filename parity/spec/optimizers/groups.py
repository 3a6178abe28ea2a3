"""Parameter groups: arrays that the update rule treats in a way of their own, chosen by name.

Both twins and the reference read the same canonical names, so an array is in the same group
everywhere.
"""

import re
from dataclasses import dataclass
from typing import Literal

from parity.errors import SpecError

Members = Literal["vectors", "matrices", "filters", "norm", "norm_bias", "bias", "head"]
MEMBERS = ("vectors", "matrices", "filters", "norm", "norm_bias", "bias", "head")
GroupSchedule = Literal["shared", "linear_to_end"]

# The twins call their normalization layers bn, bn1, bn2, ...
_NORM = re.compile(r"(^|\.)(bn|norm)\d*\.[^.]+$")


@dataclass(frozen=True, kw_only=True)
class Group:
    """Factors on the rates of some of the parameters, and the epochs in which they are trained.

    Attributes:
        members: `vectors` (at most one dimension), `matrices` (two), `filters` (more); `norm`, the
            scales and shifts of normalization layers; `norm_bias`, their shifts; `bias`, the biases
            of other layers; `head`, the classifier's arrays.
        lr_factor: On the learning rate; airbench gives `norm_bias` 64.
        decay_factor: On `l2` and `decoupled_decay`; 0 leaves the group undecayed.
        trained_epochs: Epochs, whole or not, after which the group is updated no more: neither
            parameters nor the optimizer's arrays move, and clipping does not count its gradients.
            Averages of the weights still hold, and may write back, what it has come to. `inf`
            trains to the end; airbench trains the bias of its first convolution for 3.
        schedule: `shared`, the training's; or `linear_to_end`, a line from the base rate to 0 at
            `trained_epochs`, whatever the training's (airbench's Muon form).
    """

    members: Members
    lr_factor: float
    decay_factor: float
    trained_epochs: float
    schedule: GroupSchedule

    def __post_init__(self) -> None:
        problems = []
        if self.members not in MEMBERS:
            problems.append(f"members must be one of {', '.join(MEMBERS)}; got {self.members!r}.")
        if not 0.0 < self.lr_factor < float("inf"):
            problems.append(f"lr_factor must be > 0 and finite; got {self.lr_factor!r}.")
        if not 0.0 <= self.decay_factor < float("inf"):
            problems.append(f"decay_factor must be >= 0 and finite; got {self.decay_factor!r}.")
        if not self.trained_epochs > 0.0:
            problems.append(
                f"trained_epochs must be > 0, inf for all; got {self.trained_epochs!r}."
            )
        if self.schedule not in ("shared", "linear_to_end"):
            problems.append(f"schedule must be 'shared' or 'linear_to_end'; got {self.schedule!r}.")
        elif self.schedule == "linear_to_end" and self.trained_epochs == float("inf"):
            problems.append("schedule 'linear_to_end' needs trained_epochs that end; got inf.")
        if problems:
            message = "groups: " + " ".join(problems)
            raise SpecError(message)

    def holds(self, name: str, dimensions: int) -> bool:
        """Return whether a parameter is a member, by its canonical name and number of dimensions.

        >>> group = Group(members="norm_bias", lr_factor=64.0, decay_factor=1 / 64,
        ...               trained_epochs=float("inf"), schedule="shared")
        >>> group.holds("stem.bn.bias", 1)
        True
        """
        slot = name.rpartition(".")[2]
        of_norm = bool(_NORM.search(name))
        held = {
            "vectors": dimensions <= 1,
            "matrices": dimensions == 2,
            "filters": dimensions > 2,
            "norm": of_norm,
            "norm_bias": of_norm and slot == "bias",
            "bias": not of_norm and slot == "bias",
            "head": name.rpartition(".")[0] == "head",
        }
        return held[self.members]


def rate_to_end(base_rate: float, *, epoch: float, trained_epochs: float) -> float:
    """Return the rate of a `linear_to_end` group at a step that `epoch` epochs precede.

    >>> [rate_to_end(0.5, epoch=epoch, trained_epochs=2.0) for epoch in (0.0, 1.5, 2.0, 9.0)]
    [0.5, 0.125, 0.0, 0.0]
    """
    return base_rate * max(0.0, 1.0 - epoch / trained_epochs)
