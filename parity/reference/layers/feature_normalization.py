"""Normalizations within a sample, forward and backward: no batch, no running statistics."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from parity.errors import SpecError
from parity.reference.layers.arrays import Array, widen
from parity.reference.layers.standardization import (
    Axes,
    channel_axes,
    require_channels,
    require_epsilon,
    spread_channels,
    standardize,
    standardize_backward,
)

Gradients = tuple[Array, Array, Array]


def layer_norm(
    inputs: ArrayLike,
    weight: ArrayLike | None,
    bias: ArrayLike | None,
    *,
    axes: Sequence[int],
    epsilon: float,
) -> Array:
    """Return `weight (x - mean) / sqrt(var + epsilon) + bias`, mean and variance over the axes.

    The variance is divided by the count (Ba, Kiros & Hinton 2016, equation 3).

    Args:
        inputs: Of any shape.
        weight: Of the sizes of those axes, in their order, or None for ones.
        bias: Likewise, or None for zeros.
        axes: What is normalized together; torch takes the last ones, Keras any.
        epsilon: Added to the variance.

    Raises:
        SpecError: If an axis is not there or named twice, or an array does not fit the axes.
    """
    inputs, chosen = _checked(inputs, (weight, bias), axes=axes, where="layer_norm")
    require_epsilon(epsilon, where="layer_norm")
    outputs, _ = standardize(inputs, axes=chosen, epsilon=epsilon)
    if weight is not None:
        outputs = outputs * _spread(widen(weight), inputs, chosen)
    return outputs if bias is None else outputs + _spread(widen(bias), inputs, chosen)


def layer_norm_backward(
    d_outputs: ArrayLike,
    inputs: ArrayLike,
    weight: ArrayLike | None,
    *,
    axes: Sequence[int],
    epsilon: float,
) -> Gradients:
    """Return the gradients of `layer_norm`: `(d_inputs, d_weight, d_bias)`.

    With `z` the normalized inputs and `dz = weight dy`: `d_weight = sum dy z` and `d_bias = sum dy`
    over the other axes, `d_inputs = (dz - mean(dz) - z mean(dz z)) / sqrt(var + epsilon)`.
    """
    inputs, chosen = _checked(inputs, (weight,), axes=axes, where="layer_norm")
    d_outputs, others = widen(d_outputs), _others(inputs, chosen)
    normalized, deviation = standardize(inputs, axes=chosen, epsilon=epsilon)
    d_normalized = d_outputs
    if weight is not None:
        d_normalized = d_outputs * _spread(widen(weight), inputs, chosen)
    d_inputs = standardize_backward(d_normalized, normalized, deviation, axes=chosen)
    return d_inputs, (d_outputs * normalized).sum(axis=others), d_outputs.sum(axis=others)


def rms_norm(
    inputs: ArrayLike, weight: ArrayLike | None, *, axes: Sequence[int], epsilon: float
) -> Array:
    """Return `weight x / sqrt(mean(x^2) + epsilon)`, the mean over the axes.

    Args:
        inputs: Of any shape.
        weight: Of the sizes of those axes, in their order, or None for ones.
        axes: What is normalized together.
        epsilon: Added to the mean square.

    Source: Zhang & Sennrich 2019, equation 4; the epsilon is that of torch 2.13.0 `rms_norm` and
        keras 3.15.1 `RMSNormalization`.

    Raises:
        SpecError: As `layer_norm` does.
    """
    inputs, chosen = _checked(inputs, (weight,), axes=axes, where="rms_norm")
    require_epsilon(epsilon, where="rms_norm")
    outputs = inputs / _root_mean_square(inputs, axes=chosen, epsilon=epsilon)
    return outputs if weight is None else outputs * _spread(widen(weight), inputs, chosen)


def rms_norm_backward(
    d_outputs: ArrayLike,
    inputs: ArrayLike,
    weight: ArrayLike | None,
    *,
    axes: Sequence[int],
    epsilon: float,
) -> tuple[Array, Array]:
    """Return the gradients of `rms_norm`: `(d_inputs, d_weight)`.

    With `r = sqrt(mean(x^2) + epsilon)`, `z = x / r` and `dz = weight dy`: `d_weight = sum dy z`
    over the other axes, `d_inputs = (dz - z mean(dz z)) / r`.
    """
    inputs, chosen = _checked(inputs, (weight,), axes=axes, where="rms_norm")
    d_outputs, root = widen(d_outputs), _root_mean_square(inputs, axes=chosen, epsilon=epsilon)
    normalized = inputs / root
    d_normalized = d_outputs
    if weight is not None:
        d_normalized = d_outputs * _spread(widen(weight), inputs, chosen)
    slope = (d_normalized * normalized).mean(axis=chosen, keepdims=True)
    d_weight = (d_outputs * normalized).sum(axis=_others(inputs, chosen))
    return (d_normalized - normalized * slope) / root, d_weight


def group_norm(
    inputs: ArrayLike,
    weight: ArrayLike | None,
    bias: ArrayLike | None,
    *,
    groups: int,
    epsilon: float,
) -> Array:
    """Return each sample's groups of neighbouring channels, normalized over all their values.

    `y = weight (x - mean) / sqrt(var + epsilon) + bias`, mean and variance over the channels of a
    group and all further axes (Wu & He 2018, equations 1 and 7), weight and bias by channel. Groups
    are channels `0 .. c/groups - 1`, the next as many, and so on.

    Args:
        inputs: `(n, c, ...)`.
        weight: `(c,)`, or None for ones.
        bias: `(c,)`, or None for zeros.
        groups: A divisor of `c`; `c` makes it an instance normalization (`instance_norm`).
        epsilon: Added to the variance.

    Raises:
        SpecError: If `groups` does not divide the channels, or an array does not fit.
    """
    inputs = _checked_groups(inputs, (weight, bias), groups=groups)
    require_epsilon(epsilon, where="group_norm")
    grouped, _ = standardize(_grouped(inputs, groups), axes=(2,), epsilon=epsilon)
    outputs = grouped.reshape(inputs.shape)
    if weight is not None:
        outputs = outputs * spread_channels(widen(weight), inputs)
    return outputs if bias is None else outputs + spread_channels(widen(bias), inputs)


def group_norm_backward(
    d_outputs: ArrayLike,
    inputs: ArrayLike,
    weight: ArrayLike | None,
    *,
    groups: int,
    epsilon: float,
) -> Gradients:
    """Return the gradients of `group_norm`: `(d_inputs, d_weight, d_bias)`.

    As `layer_norm_backward`, with means over a group and sums over all axes but the channels.
    """
    inputs, d_outputs = _checked_groups(inputs, (weight,), groups=groups), widen(d_outputs)
    grouped, deviation = standardize(_grouped(inputs, groups), axes=(2,), epsilon=epsilon)
    d_normalized = d_outputs
    if weight is not None:
        d_normalized = d_outputs * spread_channels(widen(weight), inputs)
    d_inputs = standardize_backward(_grouped(d_normalized, groups), grouped, deviation, axes=(2,))
    axes = channel_axes(inputs)
    d_weight = (d_outputs * grouped.reshape(inputs.shape)).sum(axis=axes)
    return d_inputs.reshape(inputs.shape), d_weight, d_outputs.sum(axis=axes)


def instance_norm(
    inputs: ArrayLike, weight: ArrayLike | None, bias: ArrayLike | None, *, epsilon: float
) -> Array:
    """Return each sample's channels normalized one by one: `group_norm` with a group a channel.

    Source: Ulyanov, Vedaldi & Lempitsky 2016; torch 2.13.0 `InstanceNorm2d` without running
        statistics; keras 3.15.1 `GroupNormalization(groups=-1)`.
    """
    return group_norm(inputs, weight, bias, groups=_channels(inputs), epsilon=epsilon)


def instance_norm_backward(
    d_outputs: ArrayLike, inputs: ArrayLike, weight: ArrayLike | None, *, epsilon: float
) -> Gradients:
    """Return the gradients of `instance_norm`: `(d_inputs, d_weight, d_bias)`."""
    groups = _channels(inputs)
    return group_norm_backward(d_outputs, inputs, weight, groups=groups, epsilon=epsilon)


def unit_norm(inputs: ArrayLike, *, axis: int, floor: float) -> Array:
    """Return `x / max(|x|, floor)`, the Euclidean norm along an axis.

    `floor` is 1e-12 in both frameworks; Keras cannot be told another.

    Source: torch 2.13.0 `functional.normalize`; keras 3.15.1 `UnitNormalization`.
    """
    norm = np.linalg.norm(widen(inputs), axis=axis, keepdims=True)
    outputs: Array = widen(inputs) / np.maximum(norm, floor)
    return outputs


def unit_norm_backward(
    d_outputs: ArrayLike, inputs: ArrayLike, *, axis: int, floor: float
) -> Array:
    """Return `d_inputs` of `unit_norm`: `(dy - y sum(dy y)) / |x|`, or `dy / floor` below it."""
    inputs, d_outputs = widen(inputs), widen(d_outputs)
    norm = np.linalg.norm(inputs, axis=axis, keepdims=True)
    outputs = inputs / np.maximum(norm, floor)
    along = outputs * (d_outputs * outputs).sum(axis=axis, keepdims=True)
    d_inputs: Array = (d_outputs - np.where(norm > floor, along, 0.0)) / np.maximum(norm, floor)
    return d_inputs


def _root_mean_square(inputs: Array, *, axes: Axes, epsilon: float) -> Array:
    root: Array = np.sqrt(np.square(inputs).mean(axis=axes, keepdims=True) + epsilon)
    return root


def _checked(
    inputs: ArrayLike, fitted: Sequence[ArrayLike | None], *, axes: Sequence[int], where: str
) -> tuple[Array, Axes]:
    inputs = widen(inputs)
    in_range = all(-inputs.ndim <= axis < inputs.ndim for axis in axes)
    chosen = tuple(axis % inputs.ndim for axis in axes) if in_range else ()
    if not chosen or len(set(chosen)) != len(chosen) or list(chosen) != sorted(chosen):
        message = (
            f"{where}: expected rising axes of inputs of shape {inputs.shape}, each once; "
            f"got {tuple(axes)}."
        )
        raise SpecError(message)
    shape = tuple(inputs.shape[axis] for axis in chosen)
    wrong = [np.shape(array) for array in fitted if array is not None and np.shape(array) != shape]
    if wrong:
        message = f"{where}: expected weight and bias of shape {shape}; got {wrong[0]}."
        raise SpecError(message)
    return inputs, chosen


def _others(inputs: Array, axes: Axes) -> Axes:
    return tuple(axis for axis in range(inputs.ndim) if axis not in axes)


def _spread(values: Array, inputs: Array, axes: Axes) -> Array:
    """Return values of the sizes of the axes in the shape that broadcasts over the inputs."""
    return np.expand_dims(values, _others(inputs, axes))


def _checked_groups(inputs: ArrayLike, fitted: Sequence[ArrayLike | None], *, groups: int) -> Array:
    inputs = widen(inputs)
    for values in (None, *fitted):
        channels = None if values is None else widen(values)
        require_channels(channels, inputs, where="group_norm")
    if groups < 1 or inputs.shape[1] % groups:
        message = (
            f"group_norm: expected groups that divide {inputs.shape[1]} channels; got {groups}."
        )
        raise SpecError(message)
    return inputs


def _channels(inputs: ArrayLike) -> int:
    require_channels(None, widen(inputs), where="instance_norm")
    count: int = widen(inputs).shape[1]
    return count


def _grouped(inputs: Array, groups: int) -> Array:
    return inputs.reshape(inputs.shape[0], groups, -1)
