"""What a lockstep has found: gaps by quantity and step, and the first divergence."""

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from parity.compare.gaps import Worst

# In the order in which a difference spreads: the first of a step names the divergence.
QUANTITIES = (
    "state structure",
    "initial parameters",
    "forward",
    "loss",
    "gradients",
    "running mean",
    "running variance",
    "slots",
    "parameters",
    "update rule",
)


@dataclass(frozen=True, kw_only=True)
class Gap:
    """One quantity's worst gap at one step.

    Attributes:
        gap: On the quantity's scale.
        bound: Largest gap that counts as rounding; None where the quantity is shown but not judged.
        where: Array and element.
        share_out: Share of that array's elements that are over the bound.
        clear: Ratio from which on a gap is clearly more than rounding.
    """

    gap: float
    bound: float | None
    where: str
    share_out: float = 0.0
    clear: float = 1.0

    @property
    def ratio(self) -> float | None:
        """Gap over bound; a gap where none is allowed has an infinite ratio."""
        if self.bound is None:
            return None
        if self.gap == 0.0:
            return 0.0
        return self.gap / self.bound if self.bound > 0.0 else math.inf

    @property
    def diverges(self) -> bool:
        """Whether the gap is clearly more than rounding."""
        return self._exceeds and not (self.ratio or 0.0) < self.clear

    @property
    def is_doubtful(self) -> bool:
        """Whether the gap is over its bound, but not clearly more than rounding."""
        return self._exceeds and not self.diverges

    @property
    def _exceeds(self) -> bool:
        return self.ratio is not None and not self.ratio <= 1.0


@dataclass
class Findings:
    """Gaps of a lockstep, in the order they were measured."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    _gaps: list[tuple[int, str, Gap]] = field(default_factory=list)

    def add(
        self, step: int, quantity: str, worst: Worst, *, bound: float | None, clear: float = 1.0
    ) -> Gap:
        """Record a quantity's worst gap; step 0 is before the first update."""
        share_out = 0.0 if bound is None else worst.share_over(bound)
        gap = Gap(gap=worst.gap, bound=bound, where=worst.where, share_out=share_out, clear=clear)
        self._gaps.append((step, quantity, gap))
        return gap

    def copy_to(self, other: "Findings", *, quantities: Sequence[str]) -> None:
        """Hand the gaps of some quantities on to other findings."""
        other._gaps += [entry for entry in self._gaps if entry[1] in quantities]

    def close_step(
        self, step: int, *, rate: float, loss: float, control: dict[str, float] | None = None
    ) -> None:
        """Finish a step's row of the record."""
        quantities = {name: _to_json(gap) for at, name, gap in self._gaps if at == step}
        row: dict[str, Any] = {
            "step": step,
            "rate": rate,
            "loss": _finite(loss),
            "quantities": quantities,
        }
        if control is not None:
            row["control"] = {name: _finite(value) for name, value in control.items()}
        self.rows.append(row)

    def first_divergence(self) -> dict[str, Any] | None:
        """Return the first gap that diverges, by step and then by the order of `QUANTITIES`."""
        return self._first(lambda gap: gap.diverges)

    def first_doubt(self) -> dict[str, Any] | None:
        """Return the first gap that is over its bound, but not clearly."""
        return self._first(lambda gap: gap.is_doubtful)

    def _first(self, chosen: Callable[[Gap], bool]) -> dict[str, Any] | None:
        entries = [entry for entry in self._gaps if chosen(entry[2])]
        if not entries:
            return None
        step, quantity, gap = min(entries, key=lambda entry: (entry[0], QUANTITIES.index(entry[1])))
        return {
            "step": step,
            "quantity": quantity,
            **_to_json(gap),
            "ratio": _finite(gap.ratio or 0.0),
            "share_out": gap.share_out,
        }

    def summary(self) -> list[dict[str, Any]]:
        """Return the worst gap of each quantity, relative to its bound, and its growth a step."""
        rows = []
        for quantity in QUANTITIES:
            entries = [(step, gap) for step, name, gap in self._gaps if name == quantity]
            if not entries:
                continue
            step, worst = max(entries, key=lambda entry: _severity(entry[1]))
            rows.append(
                {
                    "quantity": quantity,
                    **_to_json(worst),
                    "ratio": None if worst.ratio is None else _finite(worst.ratio),
                    "share_out": worst.share_out,
                    "step": step,
                    "growth": _growth(entries),
                }
            )
        return rows


def _severity(gap: Gap) -> float:
    return gap.gap if gap.ratio is None else gap.ratio


def _growth(entries: list[tuple[int, Gap]]) -> float | None:
    """Return the factor by which the gap grows a step, from a line through its logarithm."""
    points = [(step, gap.gap) for step, gap in entries if 0.0 < gap.gap < math.inf]
    steps, gaps = np.array(points).reshape(-1, 2).T
    if len(set(steps)) < 3:  # a line through two points says nothing
        return None
    return float(np.exp(np.polyfit(steps, np.log(gaps), 1)[0]))


def _to_json(gap: Gap) -> dict[str, Any]:
    return {"gap": _finite(gap.gap), "bound": gap.bound, "where": gap.where}


def _finite(value: float) -> float:
    """Return the largest float for an infinity, which JSON cannot hold."""
    return value if math.isfinite(value) else sys.float_info.max
