"""Convolution forward and backward."""

import numpy as np
from numpy.typing import ArrayLike

from parity.errors import SpecError
from parity.reference.layers.arrays import (
    ALL_BUT_CHANNELS,
    Array,
    add_bias,
    join_channels,
    split_channels,
    weight_groups,
    widen,
)
from parity.reference.layers.windows import (
    Padding,
    Pair,
    Windows,
    place_windows,
    sum_windows,
    take_windows,
)


def conv2d(
    images: ArrayLike,
    weight: ArrayLike,
    bias: ArrayLike | None,
    *,
    stride: int | Pair,
    padding: Padding,
    dilation: int | Pair = 1,
    groups: int = 1,
) -> Array:
    """Return the cross-correlation of padded images with a kernel, `(n, o, h', w')`.

    `y[n,o,h,w] = b[o] + sum_cij weight[o,c,i,j] x[n, g+c, h*stride+i*dilation,
    w*stride+j*dilation]`, x padded with zeros, where `g` is the first input channel of the group of
    `o`: the channels of both sides are cut into `groups` runs of neighbours. A depthwise
    convolution has as many groups as input channels, and its output channel `c*m + k` is the k-th
    of the `m` that read input channel `c`.

    Args:
        images: `(n, c, h, w)`.
        weight: `(o, c / groups, i, j)`.
        bias: `(o,)`, or None.
        stride: Pixels between windows.
        padding: Which pixel the first window starts at, `start` or `end` as `window_pads` says, or
            the pixels `((above, below), (left, right))`.
        dilation: Pixels between neighbouring pixels of a window.
        groups: Into how many runs the channels are cut.

    Source: torch 2.13.0, `torch.nn.Conv2d`.
    """
    images, weight = _conv_arrays(images, weight, groups=groups)
    windows = place_windows(
        images, _kernel_of(weight), stride=stride, padding=padding, dilation=dilation
    )
    read = _read_groups(images, windows, groups=groups)
    outputs: Array = np.einsum(
        "ngchwij,gocij->ngohw", read, weight_groups(weight, groups=groups), optimize=True
    )
    outputs = join_channels(outputs)
    return add_bias(outputs, bias, layer="conv2d")


def conv2d_backward(
    d_outputs: ArrayLike,
    images: ArrayLike,
    weight: ArrayLike,
    *,
    stride: int | Pair,
    padding: Padding,
    dilation: int | Pair = 1,
    groups: int = 1,
) -> tuple[Array, Array, Array]:
    """Return the gradients of `conv2d`: `(d_images, d_weight, d_bias)`.

    `d_weight[o,c,i,j] = sum_nhw dy[n,o,h,w] x[n, g+c, h*stride+i*dilation, w*stride+j*dilation]`;
    `d_bias[o] = sum_nhw dy`; `d_images` adds `weight[o,c,i,j] dy[n,o,h,w]` to each pixel a window
    read.
    """
    images, weight = _conv_arrays(images, weight, groups=groups)
    d_outputs = widen(d_outputs)
    windows = place_windows(
        images, _kernel_of(weight), stride=stride, padding=padding, dilation=dilation
    )
    read = _read_groups(images, windows, groups=groups)
    d_groups = split_channels(d_outputs, groups=groups)
    d_weight: Array = np.einsum("ngohw,ngchwij->gocij", d_groups, read, optimize=True)
    d_read: Array = np.einsum(
        "ngohw,gocij->ngchwij", d_groups, weight_groups(weight, groups=groups), optimize=True
    )
    d_images = sum_windows(join_channels(d_read), windows)
    return d_images, d_weight.reshape(weight.shape), d_outputs.sum(axis=ALL_BUT_CHANNELS)


def _conv_arrays(images: ArrayLike, weight: ArrayLike, *, groups: int) -> tuple[Array, Array]:
    images, weight = widen(images), widen(weight)
    if images.ndim != 4 or weight.ndim != 4 or images.shape[1] != weight.shape[1] * groups:
        message = (
            "conv2d: expected images (n, c, h, w) and weight (o, c / groups, i, j) of the same c; "
            f"got {images.shape} and {weight.shape}, groups {groups}."
        )
        raise SpecError(message)
    if groups < 1 or weight.shape[0] % groups:
        message = (
            f"conv2d: expected output channels that groups divide; got {weight.shape[0]} and "
            f"groups {groups}."
        )
        raise SpecError(message)
    return images, weight


def _kernel_of(weight: Array) -> Pair:
    return weight.shape[2], weight.shape[3]


def _read_groups(images: Array, windows: Windows, *, groups: int) -> Array:
    return split_channels(take_windows(images, windows, fill=0.0), groups=groups)
