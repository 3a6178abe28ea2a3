"""Stratified folds decided by a keyed stream, for fixed splits and for cross-fitting."""

import numpy as np
from numpy.typing import NDArray

from parity.rng import stream


def stratified_folds(
    labels: NDArray[np.integer], *, folds: int, purpose: str, seed: int = 0
) -> NDArray[np.int64]:
    """Return the fold `(n,)` of each sample; sizes, in all and by class, differ by at most one.

    Samples are lined up by class, in an order drawn from the stream `(seed, "folds", purpose,
    class)`, and dealt out like cards: the k-th goes to fold `k % folds`.
    """
    line = np.concatenate(
        [
            stream(seed, "folds", purpose, int(label)).permutation(np.flatnonzero(labels == label))
            for label in np.unique(labels)
        ]
    )
    assigned = np.empty(len(labels), dtype=np.int64)
    assigned[line] = np.arange(len(labels)) % folds
    return assigned
