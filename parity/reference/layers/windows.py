"""Sliding windows over padded images, which convolution and pooling share."""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from parity.errors import SpecError
from parity.reference.layers.arrays import Array
from parity.spec.conventions import StrideOffset

Pads = tuple[int, int]


def window_pads(size: int, *, kernel: int, stride: int, stride_offset: StrideOffset) -> Pads:
    """Return the pixels `(before, after)` that a sliding window adds to a side of `size` pixels.

    `start` pads `(kernel - 1) // 2` on either side whatever the size (torch's `padding=kernel // 2`
    for odd kernels). `end` pads just enough for `ceil(size / stride)` windows, the odd pixel after:
    the first window of a strided layer then begins later than with `start`, or not, depending on
    the size.

    >>> window_pads(8, kernel=3, stride=2, stride_offset="start")
    (1, 1)
    >>> window_pads(8, kernel=3, stride=2, stride_offset="end")
    (0, 1)

    Source: `start`, torchvision 0.28 models/resnet.py; `end`, tensorflow 2.21.0 `tf.nn`, "SAME"
        padding.
    """
    if stride_offset == "start":
        return (kernel - 1) // 2, (kernel - 1) // 2
    if stride_offset != "end":
        message = f"stride_offset must be 'start' or 'end'; got {stride_offset!r}."
        raise SpecError(message)
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def sliding_windows(
    images: Array,
    kernels: tuple[int, int],
    *,
    stride: int,
    stride_offset: StrideOffset,
    fill: float,
) -> Array:
    """Return a view `(n, c, h', w', i, j)` of every window over the padded images."""
    pads = _both_pads(images, kernels, stride=stride, stride_offset=stride_offset)
    padded = np.pad(images, ((0, 0), (0, 0), *pads), constant_values=fill)
    if padded.shape[2] < kernels[0] or padded.shape[3] < kernels[1]:
        message = (
            f"a window of {kernels[0]}x{kernels[1]} does not fit images of shape {images.shape} "
            f"padded by {pads}."
        )
        raise SpecError(message)
    return sliding_window_view(padded, kernels, axis=(2, 3))[:, :, ::stride, ::stride]


def sum_windows(
    d_windows: Array, images: Array, *, stride: int, stride_offset: StrideOffset
) -> Array:
    """Return each pixel's sum over the windows that read it: the transpose of `sliding_windows`."""
    out_rows, out_columns, kernel_rows, kernel_columns = d_windows.shape[2:]
    pads = _both_pads(
        images, (kernel_rows, kernel_columns), stride=stride, stride_offset=stride_offset
    )
    padded = np.pad(np.zeros_like(images), ((0, 0), (0, 0), *pads))
    for i, j in np.ndindex(kernel_rows, kernel_columns):
        rows = slice(i, i + stride * out_rows, stride)
        columns = slice(j, j + stride * out_columns, stride)
        padded[:, :, rows, columns] += d_windows[..., i, j]
    (top, _), (left, _) = pads
    return padded[:, :, top : top + images.shape[2], left : left + images.shape[3]]


def _both_pads(
    images: Array, kernels: tuple[int, int], *, stride: int, stride_offset: StrideOffset
) -> tuple[Pads, Pads]:
    rows, columns = (
        window_pads(size, kernel=kernel, stride=stride, stride_offset=stride_offset)
        for size, kernel in zip(images.shape[2:], kernels, strict=True)
    )
    return rows, columns
