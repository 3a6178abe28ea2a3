"""Initial distributions by name: one table row each, in terms both frameworks can spell.

The arrays themselves are drawn in `parity.initialize`; here is only what is drawn.
"""

import math
from dataclasses import dataclass
from typing import Literal

from parity.errors import SpecError, describe_nearest


@dataclass(frozen=True, kw_only=True)
class Fans:
    """A layer's fans.

    Attributes:
        inputs: Inputs that one output reads.
        outputs: Outputs that one input reaches.
    """

    inputs: int
    outputs: int


@dataclass(frozen=True, kw_only=True)
class VarianceScaling:
    """A zero-mean distribution of variance `scale / fan`.

    Attributes:
        scale: Numerator of the variance.
        fan: Which fan divides it: `in` = in_channels/groups * kernel area,
            `out` = out_channels * kernel area, `average` = their mean. A bias takes the fans of its
            layer's weight.
        distribution: `normal` (untruncated) or `uniform` (bounded by the root of three variances).
    """

    scale: float
    fan: Literal["in", "out", "average"]
    distribution: Literal["normal", "uniform"]

    def deviation(self, fans: Fans) -> float:
        """Return the standard deviation for a layer with those fans."""
        fan = {"in": fans.inputs, "out": fans.outputs, "average": (fans.inputs + fans.outputs) / 2}
        return math.sqrt(self.scale / fan[self.fan])

    def bound(self, fans: Fans) -> float:
        """Return the half-width of the uniform distribution of that deviation."""
        return math.sqrt(3.0) * self.deviation(fans)


@dataclass(frozen=True, kw_only=True)
class Zeros:
    """All zeros."""


@dataclass(frozen=True, kw_only=True)
class PartialDirac:
    """Filters that first pass their input on: as many as there are input channels.

    Filter `i` is 1 at the centre of channel `i` and 0 elsewhere; the remaining ones, of a layer
    with more outputs than inputs, are drawn from `rest`.

    Source: airbench 0.1.8, `Conv.reset_parameters`; torch 2.13.0, `nn.init.dirac_`.
    """

    rest: VarianceScaling


@dataclass(frozen=True, kw_only=True)
class UnitDeviation:
    """Draws from `base`, divided by their own standard deviation (of `n - 1`).

    Source: cifar10-airbench, `airbench94_muon.py`, the head.
    """

    base: VarianceScaling


Initializer = VarianceScaling | Zeros | PartialDirac | UnitDeviation

# torch 2.13 nn.Linear and nn.Conv2d default, weight and bias:
# kaiming_uniform_(a=sqrt(5)) = U(+-1/sqrt(fan_in)).
_FAN_IN_UNIFORM = VarianceScaling(scale=1.0 / 3.0, fan="in", distribution="uniform")

INITIALIZERS: dict[str, Initializer] = {
    # torchvision 0.28 models/resnet.py: kaiming_normal_(mode="fan_out", nonlinearity="relu").
    "kaiming_normal_fan_out": VarianceScaling(scale=2.0, fan="out", distribution="normal"),
    # keras 3.15 Conv2D and Dense default: U(+-sqrt(6 / (fan_in + fan_out))).
    "glorot_uniform": VarianceScaling(scale=1.0, fan="average", distribution="uniform"),
    "fan_in_uniform": _FAN_IN_UNIFORM,
    "fan_in_uniform_dirac": PartialDirac(rest=_FAN_IN_UNIFORM),
    "fan_in_uniform_unit_deviation": UnitDeviation(base=_FAN_IN_UNIFORM),
    # keras 3.15 bias default.
    "zeros": Zeros(),
}


def initializer(name: str) -> Initializer:
    """Return the table row of that name.

    Raises:
        SpecError: If there is none; the nearest name is offered.
    """
    if name not in INITIALIZERS:
        message = f"initializer {name!r} not found.{describe_nearest(name, INITIALIZERS)}"
        raise SpecError(message)
    return INITIALIZERS[name]
