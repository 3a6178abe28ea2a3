"""Values moved to mean 0 and variance 1 over some axes, which most normalizations share."""

import numpy as np

from parity.errors import SpecError
from parity.reference.layers.arrays import Array

Axes = tuple[int, ...]


def standardize(inputs: Array, *, axes: Axes, epsilon: float) -> tuple[Array, Array]:
    """Return `z = (x - mean) / deviation` and `deviation = sqrt(var + epsilon)`.

    Mean and variance run over the axes, the variance divided by the count; `deviation` keeps those
    axes, of length 1.
    """
    deviation: Array = np.sqrt(inputs.var(axis=axes, keepdims=True) + epsilon)
    return (inputs - inputs.mean(axis=axes, keepdims=True)) / deviation, deviation


def standardize_backward(
    d_normalized: Array, normalized: Array, deviation: Array, *, axes: Axes
) -> Array:
    """Return `d_inputs` of `standardize`: `(dz - mean(dz) - z mean(dz z)) / deviation`."""
    slope = (d_normalized * normalized).mean(axis=axes, keepdims=True)
    centered = d_normalized - d_normalized.mean(axis=axes, keepdims=True)
    d_inputs: Array = (centered - normalized * slope) / deviation
    return d_inputs


def channel_axes(inputs: Array) -> Axes:
    """Return every axis of `(n, c, ...)` but the channels'."""
    return (0, *range(2, inputs.ndim))


def spread_channels(values: Array, inputs: Array) -> Array:
    """Return `(c,)` values in the shape that broadcasts over `(n, c, ...)` inputs."""
    return values.reshape(-1, *(1,) * (inputs.ndim - 2))


def require_epsilon(epsilon: float, *, where: str) -> None:
    """Refuse an epsilon that is negative or not finite.

    Raises:
        SpecError: If it is.
    """
    if not 0.0 <= epsilon < np.inf:
        message = f"{where}: expected an epsilon >= 0 and finite; got {epsilon!r}."
        raise SpecError(message)


def require_channels(values: Array | None, inputs: Array, *, where: str) -> None:
    """Refuse inputs without a channel axis, or values that are not one a channel.

    Raises:
        SpecError: If they are.
    """
    if inputs.ndim < 2 or (values is not None and values.shape != inputs.shape[1:2]):
        got = "" if values is None else f" and {values.shape}"
        message = (
            f"{where}: expected inputs (n, c, ...) and one value a channel; "
            f"got {inputs.shape}{got}."
        )
        raise SpecError(message)
