"""Cutout: a square of each image that is zero after normalization.

The corners of an epoch are one array indexed by sample, as for crops. Imports numpy and
`parity.rng`.

Source: DeVries & Taylor 2017; airbench 0.1.8, `make_random_square_masks`, whose squares lie fully
inside.
"""

import numpy as np
from numpy.typing import NDArray

from parity.rng import stream


def draw_cutout_corners(
    seed: int, epoch: int, count: int, *, side: int, cutout_px: int
) -> NDArray[np.uint16]:
    """Return `(count, 2)` upper left corners `(y, x)` of squares, each in `[0, side - cutout_px]`.

    Args:
        seed: The run's.
        epoch: From 0.
        count: Squares to draw.
        side: Of the images, in pixels.
        cutout_px: Of the squares, in pixels.
    """
    generator = stream(seed, "cutout", epoch)
    return generator.integers(0, side - cutout_px, size=(count, 2), dtype=np.uint16, endpoint=True)


def square_masks(corners: NDArray[np.integer], *, side: int, cutout_px: int) -> NDArray[np.bool_]:
    """Return `(n, h, w)` booleans of images of `side` pixels, true inside each square.

    Raises:
        ValueError: If a square does not lie inside its image.
    """
    last = side - cutout_px
    if len(corners) and not 0 <= int(corners.min()) <= int(corners.max()) <= last:
        message = (
            f"cutout corners: expected values in [0, {last}]; "
            f"got {int(corners.min())} to {int(corners.max())}."
        )
        raise ValueError(message)
    distances = np.arange(side) - corners[..., np.newaxis]
    inside = (distances >= 0) & (distances < cutout_px)
    masks: NDArray[np.bool_] = inside[:, 0, :, np.newaxis] & inside[:, 1, np.newaxis, :]
    return masks
