"""Loss specs, and the targets of a loss.

Targets are built once, in NumPy, so that both twins see the same smoothed distribution.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from parity.errors import SpecError


@dataclass(frozen=True, kw_only=True)
class CrossEntropy:
    """Cross-entropy between a target distribution and the softmax of the logits.

    Attributes:
        label_smoothing: Share of the target spread evenly over all classes, in [0, 1).
        reduction: `mean` or `sum` over the batch.
    """

    kind: Literal["cross_entropy"] = "cross_entropy"
    label_smoothing: float
    reduction: Literal["mean", "sum"]

    def __post_init__(self) -> None:
        problems = []
        if not 0.0 <= self.label_smoothing < 1.0:
            problems.append(f"label_smoothing must be in [0, 1); got {self.label_smoothing!r}.")
        if self.reduction not in ("mean", "sum"):
            problems.append(f"reduction must be 'mean' or 'sum'; got {self.reduction!r}.")
        if problems:
            message = "loss: " + " ".join(problems)
            raise SpecError(message)


LossSpec = CrossEntropy
LOSSES: dict[str, type[CrossEntropy]] = {"cross_entropy": CrossEntropy}


def build_targets(
    spec: LossSpec, labels: NDArray[np.integer], *, classes: int
) -> NDArray[np.float64]:
    """Return target distributions `(n, classes)`: `(1 - s) onehot + s / classes`.

    Source: Szegedy et al. 2016, section 7.
    """
    smoothing = spec.label_smoothing
    targets = np.full((len(labels), classes), smoothing / classes)
    targets[np.arange(len(labels)), labels] += 1.0 - smoothing
    return targets
