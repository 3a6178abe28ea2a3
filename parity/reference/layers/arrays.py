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
