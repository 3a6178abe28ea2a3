"""Keyed masks of dropout and stochastic depth: what is kept depends on the key and nothing else.

The key of a mask is the seed, the layer's path, the step and the sample's index in its data set. So
both twins drop the same, whatever their generators do; a batch may hold a sample at any place and
beside any others; and a resumed run draws the masks again that it would have had.
"""

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from parity.errors import SpecError
from parity.rng import stream


def kept_mask(
    seed: int,
    path: str,
    *,
    step: int,
    samples: Iterable[int],
    shape: Sequence[int],
    rate: float,
) -> NDArray[np.bool_]:
    """Return which values of each sample a layer keeps, `(n, *shape)`; True is kept.

    Each is kept with probability `1 - rate`, to 2^-53, independently of all others.

    >>> kept_mask(0, "head.dropout", step=3, samples=[7, 2], shape=(2,), rate=0.5).tolist()
    [[True, False], [False, False]]

    Args:
        seed: The run's.
        path: The layer's dotted path: two layers draw their own masks.
        step: Number of the update, from 0.
        samples: Index of each sample in its data set, in the order of the batch.
        shape: Of one sample's mask, which the layer's outputs broadcast: `(c, h, w)` for dropout,
            `(c, 1, 1)` for whole channels, `(1, 1, 1)` for stochastic depth.
        rate: Share dropped on average, `0 <= rate < 1`.

    Raises:
        SpecError: If the rate is not in that range, or a sample's index is below 0.
    """
    if not 0.0 <= rate < 1.0:
        message = f"{path}: expected a dropout rate with 0 <= rate < 1; got {rate!r}."
        raise SpecError(message)
    indices = [int(index) for index in samples]
    if any(index < 0 for index in indices):
        message = f"{path}: expected sample indices from 0; got {min(indices)}."
        raise SpecError(message)
    kept = np.empty((len(indices), *shape), dtype=np.bool_)
    for row, index in enumerate(indices):
        kept[row] = stream(seed, "kept", path, step, index).random(tuple(shape)) >= rate
    return kept
