"""Activations cut off by straight lines, forward and backward, of any shape."""

import numpy as np
from numpy.typing import ArrayLike

from parity.errors import SpecError
from parity.reference.layers.arrays import Array, widen


def relu6(inputs: ArrayLike) -> Array:
    """Return `min(max(x, 0), 6)`; not-a-number stays not-a-number."""
    return np.clip(widen(inputs), 0.0, 6.0)


def relu6_backward(d_outputs: ArrayLike, inputs: ArrayLike) -> Array:
    """Return `d_inputs` of `relu6`: `dy` where `0 < x < 6`, else 0, at both edges too."""
    return _between(widen(d_outputs), widen(inputs), 0.0, 6.0, pass_at_edges=False)


def hard_tanh(inputs: ArrayLike, *, low: float, high: float) -> Array:
    """Return `min(max(x, low), high)`; Keras has -1 and 1 only.

    Raises:
        SpecError: If `low` is not below `high`.
    """
    if not low < high:
        message = f"hard_tanh: expected low < high; got {low!r} and {high!r}."
        raise SpecError(message)
    return np.clip(widen(inputs), low, high)


def hard_tanh_backward(
    d_outputs: ArrayLike, inputs: ArrayLike, *, low: float, high: float, pass_at_edges: bool
) -> Array:
    """Return `d_inputs` of `hard_tanh`: `dy` where `low < x < high`, else 0.

    Args:
        d_outputs: Of the inputs' shape.
        inputs: What the forward took.
        low: Likewise.
        high: Likewise.
        pass_at_edges: Whether `x = low` and `x = high` pass `dy`: not in torch, but in Keras on
            tensorflow and jax.
    """
    return _between(widen(d_outputs), widen(inputs), low, high, pass_at_edges=pass_at_edges)


def hard_sigmoid(inputs: ArrayLike, *, slope: float) -> Array:
    """Return `min(max(slope x + 1/2, 0), 1)`.

    Args:
        inputs: Of any shape.
        slope: 1/6 in torch and Keras 3 (Howard et al. 2019, section 5.2); 0.2 in Keras 2.

    Raises:
        SpecError: If the slope is not above 0.
    """
    return np.clip(_require_slope(slope) * widen(inputs) + 0.5, 0.0, 1.0)


def hard_sigmoid_backward(d_outputs: ArrayLike, inputs: ArrayLike, *, slope: float) -> Array:
    """Return `d_inputs` of `hard_sigmoid`: `slope dy` between its edges, else 0, at them too."""
    edge = 0.5 / _require_slope(slope)
    return slope * _between(widen(d_outputs), widen(inputs), -edge, edge, pass_at_edges=False)


def hard_swish(inputs: ArrayLike) -> Array:
    """Return `x min(max(x + 3, 0), 6) / 6` (Howard et al. 2019, section 5.2)."""
    return widen(inputs) * hard_sigmoid(inputs, slope=1.0 / 6.0)


def hard_swish_backward(d_outputs: ArrayLike, inputs: ArrayLike) -> Array:
    """Return `d_inputs` of `hard_swish`: `(x / 3 + 1/2) dy` where `-3 < x < 3`.

    Below 0, above `dy`; at the edges the outer slope counts.
    """
    inputs, d_outputs = widen(inputs), widen(d_outputs)
    inside = (inputs / 3.0 + 0.5) * d_outputs
    return np.where(inputs >= 3.0, d_outputs, np.where(inputs <= -3.0, 0.0, inside))


def soft_shrink(inputs: ArrayLike, *, threshold: float) -> Array:
    """Return `x` moved towards 0 by the threshold, and no further than 0."""
    inputs = widen(inputs)
    return inputs - np.clip(inputs, -threshold, threshold)


def soft_shrink_backward(d_outputs: ArrayLike, inputs: ArrayLike, *, threshold: float) -> Array:
    """Return `d_inputs` of `soft_shrink`: `dy` where `|x| > threshold`, else 0."""
    return np.where(np.abs(widen(inputs)) > threshold, widen(d_outputs), 0.0)


def hard_shrink(inputs: ArrayLike, *, threshold: float) -> Array:
    """Return `x` where `|x| > threshold`, else 0; not-a-number stays not-a-number."""
    inputs = widen(inputs)
    return np.where(np.abs(inputs) <= threshold, 0.0, inputs)


def hard_shrink_backward(d_outputs: ArrayLike, inputs: ArrayLike, *, threshold: float) -> Array:
    """Return `d_inputs` of `hard_shrink`: `dy` where `|x| > threshold`, else 0."""
    return np.where(np.abs(widen(inputs)) > threshold, widen(d_outputs), 0.0)


def _require_slope(slope: float) -> float:
    if not slope > 0.0:
        message = f"hard_sigmoid: expected a slope above 0; got {slope!r}."
        raise SpecError(message)
    return slope


def _between(
    d_outputs: Array, inputs: Array, low: float, high: float, *, pass_at_edges: bool
) -> Array:
    inside = (low < inputs) & (inputs < high)
    if pass_at_edges:
        inside |= (inputs == low) | (inputs == high)
    return np.where(inside, d_outputs, 0.0)
