"""What a comparison of two models ends with: a verdict, its place, and the figures behind it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from parity.compare.verdicts import CLEARLY_RIGHT, CLEARLY_WRONG, Verdict

# In the order in which they are judged: what a later one shows follows from the earlier ones.
PHASES = (
    "inputs",
    "weights",
    "forward",
    "train",
    "buffers",
    "loss",
    "gradients",
    "step",
)
Phase = Literal["inputs", "weights", "forward", "train", "buffers", "loss", "gradients", "step"]


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One quantity of one pair of counterparts.

    Attributes:
        phase: When it was measured.
        quantity: `output`, `gradient`, or the name of an array.
        reference: Name of the operation in the reference.
        candidate: Name of its counterpart.
        kind: What the reference's operation computes.
        gap: Largest difference, over the scale of the quantity.
        noise: What rounding alone makes of it, over the same scale.
        where: Index of the worst element, in the reference's axes.
        share: Share of the elements over `CLEARLY_WRONG` times the noise.
        visible: Gaps up to this are below what the models' own precision shows.
    """

    phase: Phase
    quantity: str
    reference: str
    candidate: str
    kind: str
    gap: float
    noise: float
    where: str
    share: float
    visible: float = 0.0

    @property
    def ratio(self) -> float:
        """The gap over the noise."""
        return self.gap / self.noise

    @property
    def is_wrong(self) -> bool:
        """Whether the gap is clearly none of rounding, and can be seen as the models run."""
        return not (self.ratio < CLEARLY_WRONG or self.gap <= self.visible)

    @property
    def is_unclear(self) -> bool:
        """Whether the gap is neither clearly rounding nor clearly more."""
        return not (self.ratio <= CLEARLY_RIGHT or self.gap <= self.visible or self.is_wrong)


@dataclass(frozen=True, kw_only=True)
class Finding:
    """The result of a comparison.

    Attributes:
        verdict: One word of `parity.compare.verdicts`.
        reason: What it rests on, as a sentence.
        phase: Where the models part; empty unless they diverge.
        reference_layer: The first operation of the reference that parts, or empty.
        candidate_layer: Its counterpart, or empty.
        causes: What explains the divergence, the likeliest first.
        figures: Every quantity measured, in the order judged.
        sensitivity: How far the reference's outputs move, over their scale, when its inputs do;
            `None` where that was not measured.
        power: Injected fault -> whether this comparison would have caught it.
        structure: Sentences on operations and arrays without a counterpart, on ambiguities and on
            regions that cannot be followed.
        labels: What reports call reference and candidate.
        compared: How many operations of the reference have a counterpart, and of how many.
        precision: What the numbers were computed in.
    """

    verdict: Verdict
    reason: str
    phase: Phase | Literal[""] = ""
    reference_layer: str = ""
    candidate_layer: str = ""
    causes: tuple[str, ...] = ()
    figures: tuple[Figure, ...] = field(default=(), repr=False)
    sensitivity: float | None = None
    power: Mapping[str, bool] = field(default_factory=dict)
    structure: tuple[str, ...] = ()
    labels: tuple[str, str] = ("reference", "candidate")
    compared: tuple[int, int] = (0, 0)
    precision: str = "float64"

    @property
    def is_equivalent(self) -> bool:
        """Whether the models are numerically equivalent."""
        return self.verdict == "numerically equivalent"

    def worst(self) -> Figure | None:
        """Return the figure closest to its noise, or furthest over it."""
        return max(self.figures, key=lambda figure: figure.ratio, default=None)
