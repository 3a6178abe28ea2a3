"""Layers forward and backward in float64 NumPy, with every convention as an argument.

Images are `(n, c, h, w)`. Inputs of any real dtype are widened to float64 first; nothing is changed
in place. A backward function takes the gradient of the loss with respect to the layer's outputs,
then what the forward took. Imports numpy, `parity.errors` and `parity.spec` only.
"""

from typing import Literal

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import ArrayLike, NDArray

from parity.errors import SpecError
from parity.spec.conventions import StrideOffset

Array = NDArray[np.float64]
Pads = tuple[int, int]

# Axes of an image batch over which a channel's statistics and bias gradients are summed.
_ALL_BUT_CHANNELS = (0, 2, 3)


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
    return outputs if bias is None else outputs + _by_channel(_widened(bias))


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
    images, d_outputs = _widened(images), _widened(d_outputs)
    windows, weight = _conv_windows(images, weight, stride=stride, stride_offset=stride_offset)
    d_weight: Array = np.einsum("nohw,nchwij->ocij", d_outputs, windows, optimize=True)
    d_windows: Array = np.einsum("nohw,ocij->nchwij", d_outputs, weight, optimize=True)
    d_images = _sum_windows(d_windows, images, stride=stride, stride_offset=stride_offset)
    return d_images, d_weight, d_outputs.sum(axis=_ALL_BUT_CHANNELS)


def max_pool2d(
    images: ArrayLike, *, kernel: int, stride: int, stride_offset: StrideOffset
) -> Array:
    """Return the largest pixel of each window, `(n, c, h', w')`; pads are minus infinity."""
    windows = _pool_windows(
        _widened(images), kernel=kernel, stride=stride, stride_offset=stride_offset
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
    images, d_outputs = _widened(images), _widened(d_outputs)
    windows = _pool_windows(images, kernel=kernel, stride=stride, stride_offset=stride_offset)
    flat = windows.reshape(*windows.shape[:4], kernel * kernel)
    first = np.arange(kernel * kernel) == flat.argmax(axis=-1)[..., np.newaxis]
    d_windows = np.where(first, d_outputs[..., np.newaxis], 0.0).reshape(windows.shape)
    return _sum_windows(d_windows, images, stride=stride, stride_offset=stride_offset)


def batch_norm2d(
    images: ArrayLike,
    weight: ArrayLike,
    bias: ArrayLike,
    running_mean: ArrayLike,
    running_var: ArrayLike,
    *,
    training: bool,
    stats_decay: float,
    variance_correction: Literal[0, 1],
    epsilon: float,
) -> tuple[Array, Array, Array]:
    """Return `(outputs, running_mean, running_var)` of a batch normalization over `n h w`.

    `y = weight (x - mean) / sqrt(var + epsilon) + bias`. In training, `mean` and `var` are the
    batch's, `var` always the biased one (Ioffe & Szegedy 2015, algorithm 1), and the running
    statistics become `stats_decay * running + (1 - stats_decay) * batch`, where the batch variance
    is multiplied by `m / (m - 1)`, `m` values a channel, if `variance_correction` is 1. Otherwise
    the running statistics are used and returned as they are.

    Raises:
        SpecError: If `variance_correction` is 1 and the batch has a single value a channel.
    """
    images = _widened(images)
    running_mean, running_var = _widened(running_mean), _widened(running_var)
    mean, var = _batch_statistics(images) if training else (running_mean, running_var)
    normalized = (images - _by_channel(mean)) / _by_channel(np.sqrt(var + epsilon))
    outputs = _by_channel(_widened(weight)) * normalized + _by_channel(_widened(bias))
    if not training:
        return outputs, running_mean.copy(), running_var.copy()
    stored_var = var * _bessel_factor(images, correction=variance_correction)
    return (
        outputs,
        stats_decay * running_mean + (1.0 - stats_decay) * mean,
        stats_decay * running_var + (1.0 - stats_decay) * stored_var,
    )


def batch_norm2d_backward(
    d_outputs: ArrayLike,
    images: ArrayLike,
    weight: ArrayLike,
    running_mean: ArrayLike,
    running_var: ArrayLike,
    *,
    training: bool,
    epsilon: float,
) -> tuple[Array, Array, Array]:
    """Return the gradients of `batch_norm2d`: `(d_images, d_weight, d_bias)`.

    With `z = (x - mean) / sqrt(var + epsilon)`: `d_weight = sum dy z`, `d_bias = sum dy`, and
    `d_images = weight / sqrt(var + epsilon) * dy`; in training, where the statistics depend on the
    images too, `dy` is replaced by `dy - mean(dy) - z mean(dy z)`. Sums and means run over `n h w`.
    """
    images, d_outputs = _widened(images), _widened(d_outputs)
    stored = _widened(running_mean), _widened(running_var)
    mean, var = _batch_statistics(images) if training else stored
    deviation = np.sqrt(var + epsilon)
    normalized = (images - _by_channel(mean)) / _by_channel(deviation)
    d_weight = (d_outputs * normalized).sum(axis=_ALL_BUT_CHANNELS)
    d_bias = d_outputs.sum(axis=_ALL_BUT_CHANNELS)
    centered = d_outputs
    if training:
        count = _values_per_channel(images)
        centered = d_outputs - _by_channel(d_bias) / count
        centered = centered - normalized * _by_channel(d_weight) / count
    return _by_channel(_widened(weight) / deviation) * centered, d_weight, d_bias


def relu(inputs: ArrayLike) -> Array:
    """Return `max(x, 0)`, of any shape; not-a-number stays not-a-number."""
    return np.maximum(_widened(inputs), 0.0)


def relu_backward(d_outputs: ArrayLike, inputs: ArrayLike) -> Array:
    """Return `d_inputs` of `relu`: `dy` where `x > 0`, else 0, at `x = 0` too."""
    return np.where(_widened(inputs) > 0.0, _widened(d_outputs), 0.0)


def add(left: ArrayLike, right: ArrayLike) -> Array:
    """Return the elementwise sum of two arrays of one shape.

    Raises:
        SpecError: If the shapes differ: nothing is broadcast.
    """
    left, right = _widened(left), _widened(right)
    if left.shape != right.shape:
        message = f"add: expected two arrays of one shape; got {left.shape} and {right.shape}."
        raise SpecError(message)
    return left + right


def add_backward(d_outputs: ArrayLike) -> tuple[Array, Array]:
    """Return `(d_left, d_right)` of `add`: `dy` twice."""
    d_outputs = _widened(d_outputs)
    return d_outputs.copy(), d_outputs.copy()


def global_average_pool(images: ArrayLike) -> Array:
    """Return the mean over `h w` of each image and channel, `(n, c)`."""
    means: Array = _widened(images).mean(axis=(2, 3))
    return means


def global_average_pool_backward(d_outputs: ArrayLike, images: ArrayLike) -> Array:
    """Return `d_images` of `global_average_pool`: `dy / (h w)` at every pixel."""
    shape = _widened(images).shape
    spread = _widened(d_outputs)[:, :, np.newaxis, np.newaxis] / (shape[2] * shape[3])
    return np.broadcast_to(spread, shape).copy()


def linear(inputs: ArrayLike, weight: ArrayLike, bias: ArrayLike | None) -> Array:
    """Return `y[n,o] = b[o] + sum_i x[n,i] weight[o,i]`."""
    outputs: Array = _widened(inputs) @ _widened(weight).T
    return outputs if bias is None else outputs + _widened(bias)


def linear_backward(
    d_outputs: ArrayLike, inputs: ArrayLike, weight: ArrayLike
) -> tuple[Array, Array, Array]:
    """Return `(d_inputs, d_weight, d_bias)` of `linear`: `dy W`, `dy^T x` and `sum_n dy`."""
    d_outputs = _widened(d_outputs)
    return d_outputs @ _widened(weight), d_outputs.T @ _widened(inputs), d_outputs.sum(axis=0)


def _widened(array: ArrayLike) -> Array:
    return np.asarray(array, dtype=np.float64)


def _by_channel(values: Array) -> Array:
    return values[np.newaxis, :, np.newaxis, np.newaxis]


def _values_per_channel(images: Array) -> int:
    count: int = images.size // images.shape[1]
    return count


def _batch_statistics(images: Array) -> tuple[Array, Array]:
    return images.mean(axis=_ALL_BUT_CHANNELS), images.var(axis=_ALL_BUT_CHANNELS)


def _bessel_factor(images: Array, *, correction: int) -> float:
    count = _values_per_channel(images)
    if count <= correction:
        message = (
            f"batch_norm2d: an unbiased variance needs at least 2 values a channel; got {count} "
            f"from images of shape {images.shape}."
        )
        raise SpecError(message)
    return count / (count - correction)


def _both_pads(
    images: Array, kernels: tuple[int, int], *, stride: int, stride_offset: StrideOffset
) -> tuple[Pads, Pads]:
    rows, columns = (
        window_pads(size, kernel=kernel, stride=stride, stride_offset=stride_offset)
        for size, kernel in zip(images.shape[2:], kernels, strict=True)
    )
    return rows, columns


def _windows(
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


def _conv_windows(
    images: ArrayLike, weight: ArrayLike, *, stride: int, stride_offset: StrideOffset
) -> tuple[Array, Array]:
    images, weight = _widened(images), _widened(weight)
    if images.ndim != 4 or weight.ndim != 4 or images.shape[1] != weight.shape[1]:
        message = (
            "conv2d: expected images (n, c, h, w) and weight (o, c, i, j) of the same c; "
            f"got {images.shape} and {weight.shape}."
        )
        raise SpecError(message)
    kernels = (weight.shape[2], weight.shape[3])
    windows = _windows(images, kernels, stride=stride, stride_offset=stride_offset, fill=0.0)
    return windows, weight


def _pool_windows(images: Array, *, kernel: int, stride: int, stride_offset: StrideOffset) -> Array:
    return _windows(
        images, (kernel, kernel), stride=stride, stride_offset=stride_offset, fill=-np.inf
    )


def _sum_windows(
    d_windows: Array, images: Array, *, stride: int, stride_offset: StrideOffset
) -> Array:
    """Return each pixel's sum over the windows that read it: the transpose of `_windows`."""
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
