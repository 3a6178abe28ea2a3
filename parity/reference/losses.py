"""Losses and their gradients in float64 NumPy. Imports numpy and `parity.errors` only."""

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from parity.errors import SpecError

Array = NDArray[np.float64]


def log_softmax(logits: ArrayLike) -> Array:
    """Return `z - log sum_k exp(z_k)` over the last axis, shifted by its maximum."""
    logits = np.asarray(logits, dtype=np.float64)
    shifted = logits - logits.max(axis=-1, keepdims=True)
    result: Array = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return result


def cross_entropy(
    logits: ArrayLike, targets: ArrayLike, *, reduction: Literal["mean", "sum"]
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
    logits, targets = np.asarray(logits, dtype=np.float64), np.asarray(targets, dtype=np.float64)
    if logits.shape != targets.shape or logits.ndim != 2:
        message = (
            "cross_entropy: expected logits and targets of one shape (n, classes); "
            f"got {logits.shape} and {targets.shape}."
        )
        raise SpecError(message)
    if reduction not in ("mean", "sum"):
        message = f"cross_entropy: reduction must be 'mean' or 'sum'; got {reduction!r}."
        raise SpecError(message)
    divisor = len(logits) if reduction == "mean" else 1
    log_probabilities = log_softmax(logits)
    # 0 log 0 counts as 0: a class of probability zero that the target does not name.
    named = targets != 0.0
    terms = targets[named] * log_probabilities[named]
    d_logits = np.exp(log_probabilities) * targets.sum(axis=1, keepdims=True) - targets
    return float(-terms.sum()) / divisor, d_logits / divisor
