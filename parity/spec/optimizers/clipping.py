"""Gradient clipping, before anything else is made of a gradient."""

from dataclasses import dataclass
from typing import Literal

from parity.errors import SpecError


def _require_limits(spec: "NormClipping | ValueClipping", *, least: dict[str, bool]) -> None:
    problems = [
        f"{field} must be {'>=' if zero else '>'} 0 and finite; got {getattr(spec, field)!r}."
        for field, zero in least.items()
        if not 0.0 <= getattr(spec, field) < float("inf")
        or (getattr(spec, field) == 0.0 and not zero)
    ]
    if problems:
        message = "clipping: " + " ".join(problems)
        raise SpecError(message)


@dataclass(frozen=True, kw_only=True)
class NoClipping:
    """Gradients stay as they are."""

    kind: Literal["none"] = "none"


@dataclass(frozen=True, kw_only=True)
class NormClipping:
    """A gradient's norm is held below a limit: `g * min(1, limit / (|g| + epsilon))`.

    Attributes:
        kind: `global_norm`, one norm over all arrays (torch's `clip_grad_norm_`, Keras's
            `global_clipnorm`), or `tensor_norm`, one for each array (Keras's `clipnorm`).
        limit: Largest norm.
        epsilon: 1e-6 in torch, 0 in Keras.
    """

    kind: Literal["global_norm", "tensor_norm"]
    limit: float
    epsilon: float

    def __post_init__(self) -> None:
        _require_limits(self, least={"limit": False, "epsilon": True})


@dataclass(frozen=True, kw_only=True)
class ValueClipping:
    """Each element is held between `-limit` and `limit`.

    Attributes:
        limit: Largest magnitude.
    """

    kind: Literal["value"] = "value"
    limit: float

    def __post_init__(self) -> None:
        _require_limits(self, least={"limit": False})


ClippingSpec = NoClipping | NormClipping | ValueClipping
CLIPPINGS: dict[str, type[NoClipping] | type[NormClipping] | type[ValueClipping]] = {
    "none": NoClipping,
    "global_norm": NormClipping,
    "tensor_norm": NormClipping,
    "value": ValueClipping,
}
