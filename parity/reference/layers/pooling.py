"""Pooling forward and backward."""

import numpy as np
from numpy.typing import ArrayLike

from parity.reference.layers.arrays import Array, widen
from parity.reference.layers.windows import sliding_windows, sum_windows
from parity.spec.conventions import StrideOffset


def max_pool2d(
    images: ArrayLike, *, kernel: int, stride: int, stride_offset: StrideOffset
) -> Array:
    """Return the largest pixel of each window, `(n, c, h', w')`; pads are minus infinity."""
    windows = _pool_windows(
        widen(images), kernel=kernel, stride=stride, stride_offset=stride_offset
    )
    largest: Array = windows.max(axis=(4, 5))
    return largest


def max_pool2d_backward(
    d_outputs: ArrayLike,
    images: ArrayLike,
    *,
    kernel: int,
    stride: int,
    stride_offset: StrideOffset,
) -> Array:
    """Return `d_images` of `max_pool2d`; the first maximum of a window, by rows, takes it all."""
    images, d_outputs = widen(images), widen(d_outputs)
    windows = _pool_windows(images, kernel=kernel, stride=stride, stride_offset=stride_offset)
    flat = windows.reshape(*windows.shape[:4], kernel * kernel)
    first = np.arange(kernel * kernel) == flat.argmax(axis=-1)[..., np.newaxis]
    d_windows = np.where(first, d_outputs[..., np.newaxis], 0.0).reshape(windows.shape)
    return sum_windows(d_windows, images, stride=stride, stride_offset=stride_offset)


def global_average_pool(images: ArrayLike) -> Array:
    """Return the mean over `h w` of each image and channel, `(n, c)`."""
    means: Array = widen(images).mean(axis=(2, 3))
    return means


def global_average_pool_backward(d_outputs: ArrayLike, images: ArrayLike) -> Array:
    """Return `d_images` of `global_average_pool`: `dy / (h w)` at every pixel."""
    shape = widen(images).shape
    spread = widen(d_outputs)[:, :, np.newaxis, np.newaxis] / (shape[2] * shape[3])
    return np.broadcast_to(spread, shape).copy()


def _pool_windows(images: Array, *, kernel: int, stride: int, stride_offset: StrideOffset) -> Array:
    return sliding_windows(
        images, (kernel, kernel), stride=stride, stride_offset=stride_offset, fill=-np.inf
    )
