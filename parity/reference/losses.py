"""Losses and their gradients in float64 NumPy.

Imports numpy, `parity.errors` and `parity.spec` only.
"""

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from parity.errors import SpecError
from parity.spec.losses import BinaryCrossEntropy, CrossEntropy, LossSpec

Reduction = Literal["mean", "sum"]
Array = NDArray[np.float64]


def log_softmax(logits: ArrayLike) -> Array:
    """Return `z - log sum_k exp(z_k)` over the last axis, shifted by its maximum."""
    logits = np.asarray(logits, dtype=np.float64)
    shifted = logits - logits.max(axis=-1, keepdims=True)
    result: Array = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return result


def evaluate_loss(spec: LossSpec, logits: ArrayLike, targets: ArrayLike) -> tuple[float, Array]:
    """Return `(loss, d_logits)` of a spec's loss; the targets already hold its smoothing."""
    if isinstance(spec, CrossEntropy):
        return cross_entropy(logits, targets, reduction=spec.reduction)
    if isinstance(spec, BinaryCrossEntropy):
        return binary_cross_entropy(logits, targets, reduction=spec.reduction)
    return two_view_cross_entropy(
        logits,
        targets,
        consistency_weight=spec.consistency_weight,
        reduction=spec.reduction,
    )


def cross_entropy(
    logits: ArrayLike, targets: ArrayLike, *, reduction: Reduction
) -> tuple[float, Array]:
    """Return `(loss, d_logits)` of the cross-entropy from targets to the logits' softmax.

    `loss = sum_n -sum_k t[n,k] log softmax(z[n])[k]`, divided by `n` for `mean`;
    `d_logits = softmax(z) sum_k t[n,k] - t`, divided likewise.

    Args:
        logits: `(n, classes)`.
        targets: `(n, classes)`, each row a distribution.
        reduction: Over the batch.

    Raises:
        SpecError: If the shapes differ or the reduction is unknown.
    """
    logits, targets = _read_pair(logits, targets, reduction, where="cross_entropy")
    divisor = len(logits) if reduction == "mean" else 1
    log_probabilities = log_softmax(logits)
    # 0 log 0 counts as 0: a class of probability zero that the target does not name.
    named = targets != 0.0
    terms = targets[named] * log_probabilities[named]
    d_logits = np.exp(log_probabilities) * targets.sum(axis=1, keepdims=True) - targets
    return float(-terms.sum()) / divisor, d_logits / divisor


def binary_cross_entropy(
    logits: ArrayLike, targets: ArrayLike, *, reduction: Reduction
) -> tuple[float, Array]:
    """Return `(loss, d_logits)` of the cross-entropy from targets to the logits' sigmoid.

    `loss = sum_nk -t log sigmoid(z) - (1 - t) log sigmoid(-z)`, divided by the `n k` elements for
    `mean`; `d_logits = sigmoid(z) - t`, divided likewise.

    Args:
        logits: `(n, classes)`.
        targets: `(n, classes)` in [0, 1].
        reduction: Over images and classes.

    Raises:
        SpecError: If the shapes differ or the reduction is unknown.
    """
    logits, targets = _read_pair(logits, targets, reduction, where="binary_cross_entropy")
    divisor = logits.size if reduction == "mean" else 1
    # log sigmoid(z) = -log(1 + exp(-z)), which `logaddexp` takes without overflow.
    log_no, log_yes = -np.logaddexp(0.0, logits), -np.logaddexp(0.0, -logits)
    terms = targets * log_yes + (1.0 - targets) * log_no
    return float(-terms.sum()) / divisor, (np.exp(log_yes) - targets) / divisor


def two_view_cross_entropy(
    logits: ArrayLike, targets: ArrayLike, *, consistency_weight: float, reduction: Reduction
) -> tuple[float, Array]:
    """Return `(loss, d_logits)` of two views' cross-entropy and the distance of their logits.

    With the views `z_1`, `z_2` of `n` images in the halves of the batch, the mean is
    `(CE(z_1) + CE(z_2)) / 2 + weight sum_nk (z_1 - z_2)^2 / (n k)` and the sum `2 n` times that.

    Args:
        logits: `(2 n, classes)`.
        targets: `(2 n, classes)`, each row a distribution.
        consistency_weight: Weight of the mean squared difference.
        reduction: Over the rows.

    Raises:
        SpecError: If the shapes differ, the rows are odd in number or the reduction is unknown.
    """
    loss, d_logits = cross_entropy(logits, targets, reduction=reduction)
    logits = np.asarray(logits, dtype=np.float64)
    rows, classes = logits.shape
    if rows % 2:
        message = f"two_view_cross_entropy: expected an even number of rows; got {rows}."
        raise SpecError(message)
    gaps = logits[: rows // 2] - logits[rows // 2 :]
    weight = consistency_weight * (rows if reduction == "sum" else 1)
    mean_over = rows // 2 * classes
    pull = 2.0 * weight * gaps / mean_over
    squared = weight * float((gaps**2).sum()) / mean_over
    return loss + squared, d_logits + np.concatenate([pull, -pull])


def _read_pair(
    logits: ArrayLike, targets: ArrayLike, reduction: str, *, where: str
) -> tuple[Array, Array]:
    read = np.asarray(logits, dtype=np.float64), np.asarray(targets, dtype=np.float64)
    if read[0].shape != read[1].shape or read[0].ndim != 2:
        message = (
            f"{where}: expected logits and targets of one shape (n, classes); "
            f"got {read[0].shape} and {read[1].shape}."
        )
        raise SpecError(message)
    if reduction not in ("mean", "sum"):
        message = f"{where}: reduction must be 'mean' or 'sum'; got {reduction!r}."
        raise SpecError(message)
    return read
