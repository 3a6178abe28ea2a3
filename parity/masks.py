"""Keyed masks of dropout and stochastic depth: what is kept depends on the key and nothing else.

The key of a mask is the seed, the layer's path, the epoch and the sample's index in its data set,
or its place in an epoch that may hold a sample twice. So both twins drop the same, whatever their
generators do; a batch may hold a sample at any place and beside any others; and a resumed run draws
the masks again that it would have had.
"""

import math
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from parity.errors import SpecError
from parity.rng import stream_rows
from parity.spec.model_spec import ModelSpec


def kept_mask(
    seed: int,
    path: str,
    *,
    epoch: int,
    samples: Iterable[int],
    shape: Sequence[int],
    rate: float,
) -> NDArray[np.bool_]:
    """Return which values of each sample a layer keeps, `(n, *shape)`; True is kept.

    Each is kept with probability `1 - rate`, to 2^-53, independently of all others.

    >>> kept_mask(0, "dropout", epoch=3, samples=[7, 2], shape=(2,), rate=0.5).tolist()
    [[True, False], [True, True]]

    Args:
        seed: The run's.
        path: The layer's dotted path: two layers draw their own masks.
        epoch: From 0; an index is seen once in each.
        samples: Index of each sample, as `parity.data.BatchStream.draw_keys` gives it, in the order
            of the batch.
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
    draws = stream_rows(indices, math.prod(shape), seed, "kept", path, epoch)
    return draws.reshape(len(indices), *shape) >= rate


def draw_masks(
    spec: ModelSpec, *, seed: int, epoch: int, samples: Iterable[int]
) -> dict[str, NDArray[np.bool_]]:
    """Return the mask of every layer of a model that drops something, by layer path.

    Args:
        spec: The model.
        seed: The run's.
        epoch: From 0.
        samples: As `kept_mask` takes them.
    """
    indices = list(samples)
    return {
        layer.path: kept_mask(
            seed, layer.path, epoch=epoch, samples=indices, shape=layer.mask_shape, rate=layer.rate
        )
        for layer in spec.masked_layers()
    }
