"""Whitening filters: the principal patches of the training images, scaled to unit variance.

Computed once, in float64 NumPy, and handed to every twin. Imports numpy only.
"""

from typing import Literal

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import ArrayLike, NDArray

# Images that the patches are taken from: the first ones of the training set.
WHITENING_IMAGES = 5_000

# Added to each variance: patches that hardly occur are not blown up.
EPSILON = 5e-4


def whitening_filters(
    images: ArrayLike, *, kernel: int, order: Literal["descending", "ascending"]
) -> NDArray[np.float64]:
    """Return filters `(2 c k^2, c, k, k)` whose outputs on the images' patches are uncorrelated.

    The first half holds the eigenvectors of the patches' second moments (no mean is taken off),
    each divided by `sqrt(eigenvalue + 5e-4)`; the second half their negatives. An eigenvector's
    sign is free: here its largest element is positive.

    Source: Jordan 2024, section 3.1; airbench 0.1.8, `init_whitening_conv`.

    Args:
        images: Normalized, `(n, h, w, c)`.
        kernel: Side `k` of the patches in pixels; every patch of every image counts.
        order: Of the eigenvalues.
    """
    patches = _patches(np.asarray(images, dtype=np.float64), kernel)
    values, vectors = np.linalg.eigh(patches.T @ patches / len(patches))  # ascending
    rows = vectors.T / np.sqrt(values + EPSILON)[:, np.newaxis]
    largest = np.take_along_axis(rows, abs(rows).argmax(axis=1)[:, np.newaxis], axis=1)
    rows = rows * np.sign(largest)
    rows = rows[::-1] if order == "descending" else rows
    channels = np.shape(images)[3]
    return np.concatenate([rows, -rows]).reshape(-1, channels, kernel, kernel)


def _patches(images: NDArray[np.float64], kernel: int) -> NDArray[np.float64]:
    """Return every patch as a row, in the order of a filter's elements `c h w`."""
    windows = sliding_window_view(images, (kernel, kernel), axis=(1, 2))
    # SHAPE: (n, h', w', c, k, k) -> (n h' w', c k k)
    return windows.reshape(-1, images.shape[3] * kernel**2)
