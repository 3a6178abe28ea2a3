"""Arrays as the reference layers take them: float64, images as `(n, c, h, w)`."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from parity.errors import SpecError

Array = NDArray[np.float64]

# Axes of an image batch over which a channel's statistics and bias gradients are summed.
ALL_BUT_CHANNELS = (0, 2, 3)


def widen(array: ArrayLike) -> Array:
    """Return an array of any real dtype as float64."""
    return np.asarray(array, dtype=np.float64)


def add_bias(images: Array, bias: ArrayLike | None, *, layer: str) -> Array:
    """Return images with a value added to each channel.

    Args:
        images: `(n, c, h, w)`.
        bias: `(c,)`, or None for none.
        layer: Whose outputs they are, for the message.

    Raises:
        SpecError: If the bias has another shape; one of length 1 is not taken for all channels.
    """
    if bias is None:
        return images
    values = widen(bias)
    if values.shape != images.shape[1:2]:
        message = f"{layer}: expected a bias of shape {images.shape[1:2]}; got {values.shape}."
        raise SpecError(message)
    return images + values[np.newaxis, :, np.newaxis, np.newaxis]


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
