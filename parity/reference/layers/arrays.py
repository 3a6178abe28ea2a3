"""Arrays as the reference layers take them: float64, images as `(n, c, h, w)`."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

# Axes of an image batch over which a channel's statistics and bias gradients are summed.
ALL_BUT_CHANNELS = (0, 2, 3)


def widen(array: ArrayLike) -> Array:
    """Return an array of any real dtype as float64."""
    return np.asarray(array, dtype=np.float64)


def by_channel(values: Array) -> Array:
    """Return `(c,)` values in the shape that broadcasts over images."""
    return values[np.newaxis, :, np.newaxis, np.newaxis]


def split_channels(images: Array, *, groups: int) -> Array:
    """Return `(n, c, ...)` as `(n, groups, c / groups, ...)`."""
    count, channels = images.shape[:2]
    return images.reshape(count, groups, channels // groups, *images.shape[2:])


def join_channels(images: Array) -> Array:
    """Return `(n, groups, c / groups, ...)` as `(n, c, ...)`."""
    return images.reshape(images.shape[0], -1, *images.shape[3:])


def weight_groups(weight: Array, *, groups: int) -> Array:
    """Return `(o, ...)` as `(groups, o / groups, ...)`."""
    return weight.reshape(groups, weight.shape[0] // groups, *weight.shape[1:])
