"""Loss specs, and the targets of a loss.

Every loss takes logits. Targets are built once, in NumPy, so that both twins see the same smoothed
or binarized ones; what a twin computes holds no smoothing of its own.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from parity.errors import SpecError

Array = NDArray[np.float64]

# Rounding of a mixture's weights: a target distribution may be this far from summing to 1.
_SUM_TOLERANCE = 1e-6


@dataclass(frozen=True, kw_only=True)
class CrossEntropy:
    """Cross-entropy between a target distribution and the softmax of the logits.

    Row `i` of a batch has the loss `-sum_k t[i,k] log softmax(z[i])[k]`.

    Attributes:
        label_smoothing: Share of the target spread evenly over all classes, in [0, 1).
        reduction: `mean` or `sum` over the batch.
    """

    kind: Literal["cross_entropy"] = "cross_entropy"
    label_smoothing: float
    reduction: Literal["mean", "sum"]

    def __post_init__(self) -> None:
        _refuse(_describe_common(self.label_smoothing, self.reduction))


@dataclass(frozen=True, kw_only=True)
class BinaryCrossEntropy:
    """One yes or no a class: cross-entropy between targets in [0, 1] and the logits' sigmoid.

    Element `i, k` has the loss `max(z, 0) - z t + log(1 + exp(-|z|))`. Targets are smoothed first
    and binarized then, as timm does, so binarizing wipes smoothing out: a label's targets come out
    one-hot wherever `s / K <= threshold < 1 - s + s / K` (for `over_classes`). On mixed targets
    what is left of the smoothing is another threshold, `(threshold - s / K) / (1 - s)`.

    Source: timm, `BinaryCrossEntropy`; keras 3.15.1, `losses.binary_crossentropy`.

    Attributes:
        label_smoothing: Share of the target that is moved, `s` in [0, 1).
        smoothing_form: Where to: `over_classes` gives `(1 - s) t + s / K` with `K` classes (timm),
            `towards_half` gives `(1 - s) t + s / 2` (keras).
        binarized: Whether targets above `target_threshold` become 1 and the others 0.
        target_threshold: In [0, 1); 0.0 where targets are not binarized.
        reduction: `mean` over images and classes, or `sum` over both.
    """

    kind: Literal["binary_cross_entropy"] = "binary_cross_entropy"
    label_smoothing: float
    smoothing_form: Literal["over_classes", "towards_half"]
    binarized: bool
    target_threshold: float
    reduction: Literal["mean", "sum"]

    def __post_init__(self) -> None:
        problems = _describe_common(self.label_smoothing, self.reduction)
        if self.smoothing_form not in ("over_classes", "towards_half"):
            problems.append(
                "smoothing_form must be 'over_classes' or 'towards_half'; "
                f"got {self.smoothing_form!r}."
            )
        if not 0.0 <= self.target_threshold < 1.0:
            problems.append(f"target_threshold must be in [0, 1); got {self.target_threshold!r}.")
        elif self.target_threshold and not self.binarized:
            problems.append(
                "target_threshold must be 0.0 where binarized is false; "
                f"got {self.target_threshold!r}."
            )
        _refuse(problems)


@dataclass(frozen=True, kw_only=True)
class TwoViewCrossEntropy:
    """Cross-entropy of two views of each image, and a penalty on how far their logits differ.

    The first half of a batch holds one view of its images, the second half the other, in the same
    order. Row `i`, whose other view is row `j`, has the loss
    `-sum_k t[i,k] log softmax(z[i])[k] + weight * mean_k (z[i,k] - z[j,k])^2`, so that the mean
    over all rows is `(CE_1 + CE_2) / 2 + weight * MSE(z_1, z_2)`.

    Source: dual cutout (pytorch_image_classification of hysts), where the weight is 0.1.

    Attributes:
        label_smoothing: Share of the target spread evenly over all classes, in [0, 1).
        consistency_weight: Weight of the squared difference, at least 0.
        reduction: `mean` or `sum` over the rows, which are twice the images.
    """

    kind: Literal["two_view_cross_entropy"] = "two_view_cross_entropy"
    label_smoothing: float
    consistency_weight: float
    reduction: Literal["mean", "sum"]

    def __post_init__(self) -> None:
        problems = _describe_common(self.label_smoothing, self.reduction)
        if not 0.0 <= self.consistency_weight < np.inf:
            problems.append(
                f"consistency_weight must be >= 0 and finite; got {self.consistency_weight!r}."
            )
        _refuse(problems)


LossSpec = CrossEntropy | BinaryCrossEntropy | TwoViewCrossEntropy
LOSSES: dict[str, type[LossSpec]] = {
    "cross_entropy": CrossEntropy,
    "binary_cross_entropy": BinaryCrossEntropy,
    "two_view_cross_entropy": TwoViewCrossEntropy,
}


def evaluation_loss(spec: LossSpec) -> CrossEntropy:
    """Return the loss that a training under `spec` is scored by on the test set.

    A cross-entropy scores by itself, smoothing included, so that training and test loss compare.
    Any other loss is scored by the plain cross-entropy of the labels, which compares between
    losses.
    """
    if isinstance(spec, CrossEntropy):
        return spec
    return CrossEntropy(label_smoothing=0.0, reduction="mean")


def build_targets(
    spec: LossSpec, targets: NDArray[np.integer] | NDArray[np.floating], *, classes: int
) -> Array:
    """Return the targets `(n, classes)` that the loss compares logits with.

    Args:
        spec: The loss; says how targets are smoothed and binarized.
        targets: Labels `(n,)`; or soft targets `(n, classes)`, such as mixtures: distributions, or
            for a binary cross-entropy any values in [0, 1].
        classes: Number of classes.

    Raises:
        SpecError: If a label names no class, or soft targets are not what the loss takes.

    Source: Szegedy et al. 2016, section 7.
    """
    shares = _one_hot(targets, classes) if targets.ndim == 1 else _soft(spec, targets, classes)
    smoothing = spec.label_smoothing
    if not isinstance(spec, BinaryCrossEntropy):
        return (1.0 - smoothing) * shares + smoothing / classes
    outcomes = 2 if spec.smoothing_form == "towards_half" else classes
    smoothed: Array = (1.0 - smoothing) * shares + smoothing / outcomes
    if spec.binarized:
        return (smoothed > spec.target_threshold).astype(np.float64)
    return smoothed


def _one_hot(labels: NDArray[np.integer] | NDArray[np.floating], classes: int) -> Array:
    if not np.issubdtype(labels.dtype, np.integer):
        message = f"targets: expected whole labels (n,); got {labels.dtype}."
        raise SpecError(message)
    wrong = np.flatnonzero((labels < 0) | (labels >= classes))
    if wrong.size:
        message = (
            f"targets: labels must be in [0, {classes - 1}]; {wrong.size} are not, "
            f"first {labels[wrong[0]]} at [{wrong[0]}]."
        )
        raise SpecError(message)
    shares = np.zeros((len(labels), classes))
    shares[np.arange(len(labels)), labels] = 1.0
    return shares


def _soft(
    spec: LossSpec, targets: NDArray[np.integer] | NDArray[np.floating], classes: int
) -> Array:
    if targets.ndim != 2 or targets.shape[1] != classes:
        message = (
            f"targets: expected labels (n,) or soft targets (n, {classes}); got {targets.shape}."
        )
        raise SpecError(message)
    shares = targets.astype(np.float64)
    wrong = ~((shares >= 0.0) & (shares <= 1.0)).all(axis=1)
    expected = "in [0, 1]"
    if not isinstance(spec, BinaryCrossEntropy):
        # One that adds up to 1.0000001 may well hold a share of 1.0000001.
        wrong = ~(shares >= 0.0).all(axis=1) | ~(abs(shares.sum(axis=1) - 1.0) <= _SUM_TOLERANCE)
        expected = "distributions: >= 0 and summing to 1"
    if wrong.any():
        message = (
            f"targets: soft targets must be {expected}; {wrong.sum()} rows are not, "
            f"first [{wrong.argmax()}]."
        )
        raise SpecError(message)
    return shares


def _describe_common(label_smoothing: float, reduction: str) -> list[str]:
    problems = []
    if not 0.0 <= label_smoothing < 1.0:
        problems.append(f"label_smoothing must be in [0, 1); got {label_smoothing!r}.")
    if reduction not in ("mean", "sum"):
        problems.append(f"reduction must be 'mean' or 'sum'; got {reduction!r}.")
    return problems


def _refuse(problems: list[str]) -> None:
    if problems:
        message = "loss: " + " ".join(problems)
        raise SpecError(message)
