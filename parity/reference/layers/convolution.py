"""Convolution forward and backward."""

import numpy as np
from numpy.typing import ArrayLike

from parity.errors import SpecError
from parity.reference.layers.arrays import ALL_BUT_CHANNELS, Array, by_channel, widen
from parity.reference.layers.windows import sliding_windows, sum_windows
from parity.spec.conventions import StrideOffset


def conv2d(
    images: ArrayLike,
    weight: ArrayLike,
    bias: ArrayLike | None,
    *,
    stride: int,
    stride_offset: StrideOffset,
) -> Array:
    """Return the cross-correlation of padded images with a kernel, `(n, o, h', w')`.

    `y[n,o,h,w] = b[o] + sum_cij weight[o,c,i,j] x[n, c, h*stride+i, w*stride+j]`, x padded.

    Args:
        images: `(n, c, h, w)`, padded here with zeros as `window_pads` says.
        weight: `(o, c, i, j)`.
        bias: `(o,)`, or None.
        stride: Pixels between windows, both ways.
        stride_offset: Which pixel the first window starts at.
    """
    windows, weight = _conv_windows(images, weight, stride=stride, stride_offset=stride_offset)
    outputs: Array = np.einsum("nchwij,ocij->nohw", windows, weight, optimize=True)
    return outputs if bias is None else outputs + by_channel(widen(bias))


def conv2d_backward(
    d_outputs: ArrayLike,
    images: ArrayLike,
    weight: ArrayLike,
    *,
    stride: int,
    stride_offset: StrideOffset,
) -> tuple[Array, Array, Array]:
    """Return the gradients of `conv2d`: `(d_images, d_weight, d_bias)`.

    `d_weight[o,c,i,j] = sum_nhw dy[n,o,h,w] x[n, c, h*stride+i, w*stride+j]`; `d_bias[o] = sum_nhw
    dy`; `d_images` adds `weight[o,c,i,j] dy[n,o,h,w]` to each pixel a window read.
    """
    images, d_outputs = widen(images), widen(d_outputs)
    windows, weight = _conv_windows(images, weight, stride=stride, stride_offset=stride_offset)
    d_weight: Array = np.einsum("nohw,nchwij->ocij", d_outputs, windows, optimize=True)
    d_windows: Array = np.einsum("nohw,ocij->nchwij", d_outputs, weight, optimize=True)
    d_images = sum_windows(d_windows, images, stride=stride, stride_offset=stride_offset)
    return d_images, d_weight, d_outputs.sum(axis=ALL_BUT_CHANNELS)


def _conv_windows(
    images: ArrayLike, weight: ArrayLike, *, stride: int, stride_offset: StrideOffset
) -> tuple[Array, Array]:
    images, weight = widen(images), widen(weight)
    if images.ndim != 4 or weight.ndim != 4 or images.shape[1] != weight.shape[1]:
        message = (
            "conv2d: expected images (n, c, h, w) and weight (o, c, i, j) of the same c; "
            f"got {images.shape} and {weight.shape}."
        )
        raise SpecError(message)
    kernels = (weight.shape[2], weight.shape[3])
    windows = sliding_windows(images, kernels, stride=stride, stride_offset=stride_offset, fill=0.0)
    return windows, weight
