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

# The twins call their normalization layers bn, bn1, bn2, ...
_NORM = re.compile(r"(^|\.)(bn|norm)\d*\.[^.]+$")


@dataclass(frozen=True, kw_only=True)
class Group:
    """Factors on the rates of some of the parameters.

    Attributes:
        members: `vectors` (at most one dimension), `matrices` (two), `filters` (more); `norm`, the
            scales and shifts of normalization layers; `norm_bias`, their shifts; `bias`, the biases
            of other layers; `head`, the classifier's arrays.
        lr_factor: On the learning rate; airbench gives `norm_bias` 64.
        decay_factor: On `l2` and `decoupled_decay`; 0 leaves the group undecayed.
    """

    members: Members
    lr_factor: float
    decay_factor: float

    def __post_init__(self) -> None:
        problems = []
        if self.members not in MEMBERS:
            problems.append(f"members must be one of {', '.join(MEMBERS)}; got {self.members!r}.")
        if not 0.0 < self.lr_factor < float("inf"):
            problems.append(f"lr_factor must be > 0 and finite; got {self.lr_factor!r}.")
        if not 0.0 <= self.decay_factor < float("inf"):
            problems.append(f"decay_factor must be >= 0 and finite; got {self.decay_factor!r}.")
        if problems:
            message = "groups: " + " ".join(problems)
            raise SpecError(message)

    def holds(self, name: str, dimensions: int) -> bool:
        """Return whether a parameter is a member, by its canonical name and number of dimensions.

        >>> Group(members="norm_bias", lr_factor=64.0, decay_factor=1 / 64).holds("stem.bn.bias", 1)
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
