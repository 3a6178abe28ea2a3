"""Batch normalization forward and backward."""

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from parity.errors import SpecError
from parity.reference.layers.arrays import Array, widen
from parity.reference.layers.standardization import (
    channel_axes,
    require_channels,
    require_epsilon,
    spread_channels,
    standardize_backward,
)


def batch_norm(
    inputs: ArrayLike,
    weight: ArrayLike | None,
    bias: ArrayLike | None,
    running_mean: ArrayLike,
    running_var: ArrayLike,
    *,
    training: bool,
    stats_decay: float,
    variance_correction: Literal[0, 1],
    epsilon: float,
) -> tuple[Array, Array, Array]:
    """Return `(outputs, running_mean, running_var)` of a normalization over all but the channels.

    `y = weight (x - mean) / sqrt(var + epsilon) + bias`. In training, `mean` and `var` are the
    batch's, `var` always the biased one (Ioffe & Szegedy 2015, algorithm 1), and the running
    statistics become `stats_decay * running + (1 - stats_decay) * batch`, where the batch variance
    is multiplied by `m / (m - 1)`, `m` values a channel, if `variance_correction` is 1. Otherwise
    the running statistics are used and returned as they are.

    `stats_decay` is 1 minus torch's `momentum`, and Keras's `momentum` itself. torch's
    `momentum=None`, the average of all batches so far, is `1 - 1 / t` at batch `t`, from 1.

    Args:
        inputs: `(n, c, ...)`, with any number of further axes, or none.
        weight: `(c,)`, or None for ones.
        bias: `(c,)`, or None for zeros.
        running_mean: `(c,)`.
        running_var: `(c,)`.
        training: Whether the batch's statistics count.
        stats_decay: Weight of what the running statistics held.
        variance_correction: Subtracted from the count in the variance that is stored.
        epsilon: Added to the variance.

    Raises:
        SpecError: If `variance_correction` is 1 and the batch has a single value a channel, or an
            array does not fit.
    """
    inputs = _checked(inputs, weight, bias, running_mean, running_var, epsilon=epsilon)
    running_mean, running_var = widen(running_mean), widen(running_var)
    mean, var = _batch_statistics(inputs) if training else (running_mean, running_var)
    outputs = (inputs - spread_channels(mean, inputs)) / spread_channels(
        np.sqrt(var + epsilon), inputs
    )
    if weight is not None:
        outputs = outputs * spread_channels(widen(weight), inputs)
    if bias is not None:
        outputs = outputs + spread_channels(widen(bias), inputs)
    if not training:
        return outputs, running_mean.copy(), running_var.copy()
    stored_var = var * _bessel_factor(inputs, correction=variance_correction)
    return (
        outputs,
        stats_decay * running_mean + (1.0 - stats_decay) * mean,
        stats_decay * running_var + (1.0 - stats_decay) * stored_var,
    )


def batch_norm_backward(
    d_outputs: ArrayLike,
    inputs: ArrayLike,
    weight: ArrayLike | None,
    running_mean: ArrayLike,
    running_var: ArrayLike,
    *,
    training: bool,
    epsilon: float,
) -> tuple[Array, Array, Array]:
    """Return the gradients of `batch_norm`: `(d_inputs, d_weight, d_bias)`.

    With `z = (x - mean) / sqrt(var + epsilon)`: `d_weight = sum dy z`, `d_bias = sum dy`, and
    `d_inputs = weight / sqrt(var + epsilon) * dy`; in training, where the statistics depend on the
    inputs too, `dy` is replaced by `dy - mean(dy) - z mean(dy z)`. Sums and means run over all axes
    but the channels.
    """
    inputs = _checked(inputs, weight, running_mean, running_var, epsilon=epsilon)
    d_outputs, axes = widen(d_outputs), channel_axes(inputs)
    stored = widen(running_mean), widen(running_var)
    mean, var = _batch_statistics(inputs) if training else stored
    deviation = spread_channels(np.sqrt(var + epsilon), inputs)
    normalized = (inputs - spread_channels(mean, inputs)) / deviation
    d_weight = (d_outputs * normalized).sum(axis=axes)
    d_normalized = d_outputs
    if weight is not None:
        d_normalized = d_outputs * spread_channels(widen(weight), inputs)
    d_inputs = d_normalized / deviation
    if training:
        d_inputs = standardize_backward(d_normalized, normalized, deviation, axes=axes)
    return d_inputs, d_weight, d_outputs.sum(axis=axes)


def batch_norm2d(
    images: ArrayLike,
    weight: ArrayLike | None,
    bias: ArrayLike | None,
    running_mean: ArrayLike,
    running_var: ArrayLike,
    *,
    training: bool,
    stats_decay: float,
    variance_correction: Literal[0, 1],
    epsilon: float,
) -> tuple[Array, Array, Array]:
    """Return `batch_norm` of images `(n, c, h, w)`, over `n h w`."""
    return batch_norm(
        _require_images(images),
        weight,
        bias,
        running_mean,
        running_var,
        training=training,
        stats_decay=stats_decay,
        variance_correction=variance_correction,
        epsilon=epsilon,
    )


def batch_norm2d_backward(
    d_outputs: ArrayLike,
    images: ArrayLike,
    weight: ArrayLike | None,
    running_mean: ArrayLike,
    running_var: ArrayLike,
    *,
    training: bool,
    epsilon: float,
) -> tuple[Array, Array, Array]:
    """Return the gradients of `batch_norm2d`: `(d_images, d_weight, d_bias)`."""
    return batch_norm_backward(
        d_outputs,
        _require_images(images),
        weight,
        running_mean,
        running_var,
        training=training,
        epsilon=epsilon,
    )


def _require_images(images: ArrayLike) -> Array:
    images = widen(images)
    if images.ndim != 4:
        message = f"batch_norm2d: expected images (n, c, h, w); got {images.shape}."
        raise SpecError(message)
    return images


def _checked(inputs: ArrayLike, *by_channel: ArrayLike | None, epsilon: float) -> Array:
    inputs = widen(inputs)
    require_epsilon(epsilon, where="batch_norm")
    for values in by_channel:
        channels = None if values is None else widen(values)
        require_channels(channels, inputs, where="batch_norm")
    return inputs


def _batch_statistics(inputs: Array) -> tuple[Array, Array]:
    axes = channel_axes(inputs)
    return inputs.mean(axis=axes), inputs.var(axis=axes)


def _bessel_factor(inputs: Array, *, correction: int) -> float:
    count: int = inputs.size // inputs.shape[1]
    if count <= correction:
        message = (
            f"batch_norm: an unbiased variance needs at least 2 values a channel; got {count} "
            f"from inputs of shape {inputs.shape}."
        )
        raise SpecError(message)
    return count / (count - correction)
