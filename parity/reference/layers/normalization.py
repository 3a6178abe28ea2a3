"""Normalization forward and backward."""

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from parity.errors import SpecError
from parity.reference.layers.arrays import ALL_BUT_CHANNELS, Array, by_channel, widen


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
    images = widen(images)
    running_mean, running_var = widen(running_mean), widen(running_var)
    mean, var = _batch_statistics(images) if training else (running_mean, running_var)
    normalized = (images - by_channel(mean)) / by_channel(np.sqrt(var + epsilon))
    outputs = by_channel(widen(weight)) * normalized + by_channel(widen(bias))
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
    images, d_outputs = widen(images), widen(d_outputs)
    stored = widen(running_mean), widen(running_var)
    mean, var = _batch_statistics(images) if training else stored
    deviation = np.sqrt(var + epsilon)
    normalized = (images - by_channel(mean)) / by_channel(deviation)
    d_weight = (d_outputs * normalized).sum(axis=ALL_BUT_CHANNELS)
    d_bias = d_outputs.sum(axis=ALL_BUT_CHANNELS)
    centered = d_outputs
    if training:
        count = _values_per_channel(images)
        centered = d_outputs - by_channel(d_bias) / count
        centered = centered - normalized * by_channel(d_weight) / count
    return by_channel(widen(weight) / deviation) * centered, d_weight, d_bias


def _values_per_channel(images: Array) -> int:
    count: int = images.size // images.shape[1]
    return count


def _batch_statistics(images: Array) -> tuple[Array, Array]:
    return images.mean(axis=ALL_BUT_CHANNELS), images.var(axis=ALL_BUT_CHANNELS)


def _bessel_factor(images: Array, *, correction: int) -> float:
    count = _values_per_channel(images)
    if count <= correction:
        message = (
            f"batch_norm2d: an unbiased variance needs at least 2 values a channel; got {count} "
            f"from images of shape {images.shape}."
        )
        raise SpecError(message)
    return count / (count - correction)
