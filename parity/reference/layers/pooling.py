"""Pooling forward and backward."""

import numpy as np
from numpy.typing import ArrayLike

from parity.errors import SpecError
from parity.reference.layers.arrays import Array, widen
from parity.reference.layers.windows import (
    ImagePads,
    Padding,
    Pads,
    Pair,
    Windows,
    place_windows,
    read_counts,
    sum_windows,
    take_windows,
)


def max_pool2d(
    images: ArrayLike,
    *,
    kernel: int | Pair,
    stride: int | Pair,
    padding: Padding,
    fill: float,
    ceil_mode: bool,
    dilation: int | Pair = 1,
) -> Array:
    """Return the largest pixel of each window, `(n, c, h', w')`.

    Args:
        images: `(n, c, h, w)`.
        kernel: Pixels a window reads.
        stride: Pixels between windows.
        padding: A rule of `window_pads`, or the pixels `((above, below), (left, right))`.
        fill: Value of the pads: minus infinity in both frameworks' pooling layers, 0 where a layer
            that pads with zeros stands before the pooling.
        ceil_mode: Whether a last window that begins inside the images or the pads before them, and
            reads past the pads after them, is there too; for a `fill` of minus infinity only.
        dilation: Pixels between neighbouring pixels of a window.

    Raises:
        SpecError: If `fill` is not finite and a window reads nothing but pads; or `fill` is finite
            and `ceil_mode` set, which are two layers' pads in one window.
    """
    images = widen(images)
    windows, _ = _pool_windows(
        images, kernel, stride=stride, padding=padding, dilation=dilation, ceil_mode=ceil_mode
    )
    _require_pixels(windows, fill=fill, ceil_mode=ceil_mode)
    largest: Array = take_windows(images, windows, fill=fill).max(axis=(4, 5))
    return largest


def max_pool2d_backward(
    d_outputs: ArrayLike,
    images: ArrayLike,
    *,
    kernel: int | Pair,
    stride: int | Pair,
    padding: Padding,
    fill: float,
    ceil_mode: bool,
    dilation: int | Pair = 1,
) -> Array:
    """Return `d_images` of `max_pool2d`; the first maximum of a window, by rows, takes it all.

    A pad that is the first maximum takes it too, and its gradient is lost.
    """
    images, d_outputs = widen(images), widen(d_outputs)
    windows, _ = _pool_windows(
        images, kernel, stride=stride, padding=padding, dilation=dilation, ceil_mode=ceil_mode
    )
    _require_pixels(windows, fill=fill, ceil_mode=ceil_mode)
    read = take_windows(images, windows, fill=fill)
    flat = read.reshape(*read.shape[:4], -1)
    first = np.arange(flat.shape[-1]) == flat.argmax(axis=-1)[..., np.newaxis]
    d_read = np.where(first, d_outputs[..., np.newaxis], 0.0).reshape(read.shape)
    return sum_windows(d_read, windows)


def average_pool2d(
    images: ArrayLike,
    *,
    kernel: int | Pair,
    stride: int | Pair,
    padding: Padding,
    count_include_pad: bool,
    ceil_mode: bool,
) -> Array:
    """Return the mean of each window, `(n, c, h', w')`.

    The sum of the pixels that a window reads is divided by their number, pads counted if
    `count_include_pad`; what a window of `ceil_mode` reads past the pads is never counted.

    Args:
        images: `(n, c, h, w)`.
        kernel: Pixels a window reads.
        stride: Pixels between windows.
        padding: A rule of `window_pads`, or the pixels `((above, below), (left, right))`.
        count_include_pad: Whether the pads count (torch's default) or not (Keras's `same`).
        ceil_mode: As `max_pool2d` takes it.

    Raises:
        SpecError: If a window reads nothing that counts.

    Source: torch 2.13.0, `torch.nn.AvgPool2d`; tensorflow 2.21.0, `tf.nn.avg_pool`, "SAME" padding.
    """
    images = widen(images)
    windows, divisor = _average_windows(
        images,
        kernel,
        stride=stride,
        padding=padding,
        count_include_pad=count_include_pad,
        ceil_mode=ceil_mode,
    )
    means: Array = take_windows(images, windows, fill=0.0).sum(axis=(4, 5)) / divisor
    return means


def average_pool2d_backward(
    d_outputs: ArrayLike,
    images: ArrayLike,
    *,
    kernel: int | Pair,
    stride: int | Pair,
    padding: Padding,
    count_include_pad: bool,
    ceil_mode: bool,
) -> Array:
    """Return `d_images` of `average_pool2d`: a pixel's sum of `dy / count` over its windows."""
    images = widen(images)
    windows, divisor = _average_windows(
        images,
        kernel,
        stride=stride,
        padding=padding,
        count_include_pad=count_include_pad,
        ceil_mode=ceil_mode,
    )
    d_means = (widen(d_outputs) / divisor)[..., np.newaxis, np.newaxis]
    d_read = np.broadcast_to(d_means, (*d_means.shape[:4], *windows.kernel))
    return sum_windows(d_read, windows)


def global_average_pool(images: ArrayLike) -> Array:
    """Return the mean over `h w` of each image and channel, `(n, c)`."""
    means: Array = widen(images).mean(axis=(2, 3))
    return means


def global_average_pool_backward(d_outputs: ArrayLike, images: ArrayLike) -> Array:
    """Return `d_images` of `global_average_pool`: `dy / (h w)` at every pixel."""
    shape = widen(images).shape
    spread = widen(d_outputs)[:, :, np.newaxis, np.newaxis] / (shape[2] * shape[3])
    return np.broadcast_to(spread, shape).copy()


def _pool_windows(
    images: Array,
    kernel: int | Pair,
    *,
    stride: int | Pair,
    padding: Padding,
    dilation: int | Pair,
    ceil_mode: bool,
) -> tuple[Windows, ImagePads]:
    """Return the windows, and the pads without what `ceil_mode` reads past them."""
    windows = place_windows(images, kernel, stride=stride, padding=padding, dilation=dilation)
    if not ceil_mode:
        return windows, windows.pads
    rows, columns = (_ceil_pads(windows, axis=axis) for axis in (0, 1))
    extended = Windows(
        size=windows.size,
        kernel=windows.kernel,
        stride=windows.stride,
        dilation=windows.dilation,
        pads=(rows, columns),
    )
    return extended, windows.pads


def _ceil_pads(windows: Windows, *, axis: int) -> Pads:
    """Return the pads with what a last window reads past them.

    Source: torch 2.13.0, aten/src/ATen/native/Pool.h, `pooling_output_shape_pad_lr`.
    """
    size, stride = windows.size[axis], windows.stride[axis]
    before, after = windows.pads[axis]
    extent = windows.extent[axis]
    count = -(-(size + before + after - extent) // stride) + 1
    if (count - 1) * stride >= size + before:
        count -= 1
    return before, max(after, (count - 1) * stride + extent - size - before)


def _average_windows(
    images: Array,
    kernel: int | Pair,
    *,
    stride: int | Pair,
    padding: Padding,
    count_include_pad: bool,
    ceil_mode: bool,
) -> tuple[Windows, Array]:
    """Return the windows and how many pixels count in each, `(h', w')`."""
    windows, pads = _pool_windows(
        images, kernel, stride=stride, padding=padding, dilation=1, ceil_mode=ceil_mode
    )
    divisor = read_counts(windows, pads=pads if count_include_pad else ((0, 0), (0, 0)))
    if divisor.min() == 0:
        message = f"average_pool2d: a window reads nothing that counts, of {windows}."
        raise SpecError(message)
    return windows, divisor


def _require_pixels(windows: Windows, *, fill: float, ceil_mode: bool) -> None:
    if ceil_mode and np.isfinite(fill):
        message = f"max_pool2d: ceil_mode needs a fill of minus infinity; got {fill!r}."
        raise SpecError(message)
    if not np.isfinite(fill) and read_counts(windows, pads=((0, 0), (0, 0))).min() == 0:
        message = f"max_pool2d: a window reads nothing but pads of {fill!r}, of {windows}."
        raise SpecError(message)
