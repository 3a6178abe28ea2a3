"""Transposed convolution forward and backward."""

from typing import Literal

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
    ImagePads,
    Pads,
    Pair,
    Windows,
    as_pair,
    sum_windows,
    take_windows,
    window_extent,
)


def transposed_crops(
    *,
    kernel: int,
    stride: int,
    dilation: int,
    padding: int | Literal["valid", "same"],
    output_padding: int | None,
) -> Pads:
    """Return the pixels `(before, after)` that a transposed convolution drops from its outputs.

    Of `n` pixels its windows cover `(n - 1) * stride + extent`; a negative number adds pixels
    that no window covers. A number `padding` is torch's: it drops `(padding, padding -
    output_padding)`. The words are Keras's. With `valid` the outputs end `output_padding` pixels
    after the last window, by default `max(stride - extent, 0)`. With `same` they have `n * stride`
    pixels, or `(n - 1) * stride + extent % 2 + output_padding` if that is given, and the odd
    dropped pixel is the last.

    >>> transposed_crops(kernel=3, stride=2, dilation=1, padding=1, output_padding=1)
    (1, 0)
    >>> transposed_crops(kernel=3, stride=2, dilation=1, padding="same", output_padding=None)
    (0, 1)

    Source: torch 2.13.0, `torch.nn.ConvTranspose2d`; keras 3.15.1, backend/common/backend_utils.py,
        `_get_output_shape_given_tf_padding`.

    Raises:
        SpecError: If torch's padding comes without an output padding, or nothing has that name.
    """
    extent = window_extent(kernel, dilation=dilation)
    if isinstance(padding, int):
        if output_padding is None:
            message = "transposed_crops: a padding in pixels needs an output_padding; got None."
            raise SpecError(message)
        return padding, padding - output_padding
    if padding == "valid":
        return 0, min(extent - stride, 0) if output_padding is None else -output_padding
    if padding != "same":
        message = f"padding must be a number, 'valid' or 'same'; got {padding!r}."
        raise SpecError(message)
    total = extent - (stride if output_padding is None else extent % 2 + output_padding)
    before = max(total, 0) // 2
    return before, total - before


def conv_transpose2d(
    images: ArrayLike,
    weight: ArrayLike,
    bias: ArrayLike | None,
    *,
    stride: int | Pair,
    crops: ImagePads,
    dilation: int | Pair = 1,
    groups: int = 1,
) -> Array:
    """Return the transpose of a convolution as a function of its images, `(n, o, h', w')`.

    Each input pixel `x[n,c,h,w]` adds `weight[c,o,i,j] x[n,c,h,w]` to the output pixel
    `(h*stride + i*dilation - above, w*stride + j*dilation - left)`; the bias is added to all. The
    kernel is not mirrored. `groups` cuts the channels of both sides into runs of neighbours.

    Args:
        images: `(n, c, h, w)`.
        weight: `(c, o / groups, i, j)`.
        bias: `(o,)`, or None.
        stride: Output pixels between the windows of neighbouring input pixels.
        crops: Output pixels dropped, `((above, below), (left, right))`; where negative, added.
            `transposed_crops` says how many torch and Keras drop.
        dilation: Pixels between neighbouring pixels of a window.
        groups: Into how many runs the channels are cut.

    Source: torch 2.13.0, `torch.nn.ConvTranspose2d`.
    """
    images, weight = _transposed_arrays(images, weight, groups=groups)
    canvas = _canvas(images, weight, stride=stride, dilation=dilation)
    written: Array = np.einsum(
        "ngchw,gcoij->ngohwij",
        split_channels(images, groups=groups),
        weight_groups(weight, groups=groups),
        optimize=True,
    )
    outputs = _cropped(sum_windows(join_channels(written), canvas), crops)
    return add_bias(outputs, bias, layer="conv_transpose2d")


def conv_transpose2d_backward(
    d_outputs: ArrayLike,
    images: ArrayLike,
    weight: ArrayLike,
    *,
    stride: int | Pair,
    crops: ImagePads,
    dilation: int | Pair = 1,
    groups: int = 1,
) -> tuple[Array, Array, Array]:
    """Return the gradients of `conv_transpose2d`: `(d_images, d_weight, d_bias)`.

    With `dy` at the output pixel of `(h, w, i, j)`: `d_images[n,c,h,w] = sum_oij weight[c,o,i,j]
    dy`, `d_weight[c,o,i,j] = sum_nhw x[n,c,h,w] dy` and `d_bias[o] = sum_nhw dy`, each over the
    pixels that were kept.
    """
    images, weight = _transposed_arrays(images, weight, groups=groups)
    d_outputs = widen(d_outputs)
    canvas = _canvas(images, weight, stride=stride, dilation=dilation)
    uncropped = _cropped(d_outputs, _negated(crops))
    d_written = split_channels(take_windows(uncropped, canvas, fill=0.0), groups=groups)
    d_images: Array = np.einsum(
        "ngohwij,gcoij->ngchw", d_written, weight_groups(weight, groups=groups), optimize=True
    )
    d_weight: Array = np.einsum(
        "ngchw,ngohwij->gcoij", split_channels(images, groups=groups), d_written, optimize=True
    )
    d_bias = d_outputs.sum(axis=ALL_BUT_CHANNELS)
    return join_channels(d_images), d_weight.reshape(weight.shape), d_bias


def _transposed_arrays(images: ArrayLike, weight: ArrayLike, *, groups: int) -> tuple[Array, Array]:
    images, weight = widen(images), widen(weight)
    if images.ndim != 4 or weight.ndim != 4 or images.shape[1] != weight.shape[0]:
        message = (
            "conv_transpose2d: expected images (n, c, h, w) and weight (c, o / groups, i, j) of "
            f"the same c; got {images.shape} and {weight.shape}."
        )
        raise SpecError(message)
    if groups < 1 or weight.shape[0] % groups:
        message = (
            f"conv_transpose2d: expected input channels that groups divide; got {weight.shape[0]} "
            f"and groups {groups}."
        )
        raise SpecError(message)
    return images, weight


def _canvas(images: Array, weight: Array, *, stride: int | Pair, dilation: int | Pair) -> Windows:
    """Return the windows that the input pixels write, over outputs of which nothing is dropped."""
    stride, dilation = as_pair(stride), as_pair(dilation)
    kernel = (weight.shape[2], weight.shape[3])
    height, width = (
        (size - 1) * s + window_extent(k, dilation=d)
        for size, k, s, d in zip(images.shape[2:], kernel, stride, dilation, strict=True)
    )
    return Windows(
        size=(height, width),
        kernel=kernel,
        stride=stride,
        dilation=dilation,
        pads=((0, 0), (0, 0)),
    )


def _cropped(images: Array, crops: ImagePads) -> Array:
    """Return images without `crops`; zeros are added where those are negative."""
    kept = [slice(max(before, 0), -after if after > 0 else None) for before, after in crops]
    added = [(max(-before, 0), max(-after, 0)) for before, after in crops]
    if any(sum(pads) >= size for pads, size in zip(crops, images.shape[2:], strict=True)):
        message = f"crops {crops} leave nothing of images of shape {images.shape}."
        raise SpecError(message)
    return np.pad(images[:, :, kept[0], kept[1]], ((0, 0), (0, 0), *added))


def _negated(crops: ImagePads) -> ImagePads:
    (top, bottom), (left, right) = crops
    return (-top, -bottom), (-left, -right)
