"""Activations along an axis, forward and backward."""

import numpy as np
from numpy.typing import ArrayLike

from parity.errors import SpecError
from parity.reference.layers.arrays import Array, widen
from parity.reference.layers.smooth_activations import sigmoid


def softmax(inputs: ArrayLike, *, axis: int) -> Array:
    """Return `e^x / sum e^x` along an axis, the largest element taken off first."""
    inputs = widen(inputs)
    weights = np.exp(inputs - inputs.max(axis=axis, keepdims=True))
    shares: Array = weights / weights.sum(axis=axis, keepdims=True)
    return shares


def softmax_backward(d_outputs: ArrayLike, inputs: ArrayLike, *, axis: int) -> Array:
    """Return `d_inputs` of `softmax`: `y (dy - sum(dy y))`."""
    outputs, d_outputs = softmax(inputs, axis=axis), widen(d_outputs)
    d_inputs: Array = outputs * (d_outputs - (d_outputs * outputs).sum(axis=axis, keepdims=True))
    return d_inputs


def log_softmax(inputs: ArrayLike, *, axis: int) -> Array:
    """Return `x - log(sum e^x)` along an axis, the largest element taken off first."""
    inputs = widen(inputs)
    shifted = inputs - inputs.max(axis=axis, keepdims=True)
    outputs: Array = shifted - np.log(np.exp(shifted).sum(axis=axis, keepdims=True))
    return outputs


def log_softmax_backward(d_outputs: ArrayLike, inputs: ArrayLike, *, axis: int) -> Array:
    """Return `d_inputs` of `log_softmax`: `dy - softmax(x) sum(dy)`."""
    d_outputs = widen(d_outputs)
    d_inputs: Array = d_outputs - softmax(inputs, axis=axis) * d_outputs.sum(
        axis=axis, keepdims=True
    )
    return d_inputs


def glu(inputs: ArrayLike, *, axis: int) -> Array:
    """Return `a s(b)`, `a` and `b` the first and second half (Dauphin et al. 2017, section 2).

    Raises:
        SpecError: If the axis has an odd length.
    """
    values, gates = _halves(inputs, axis=axis)
    return values * sigmoid(gates)


def glu_backward(d_outputs: ArrayLike, inputs: ArrayLike, *, axis: int) -> Array:
    """Return `d_inputs` of `glu`: `dy s(b)` for the first half, `dy a s(b) s(-b)` for the second.

    The halves are joined in the order that they were split in.
    """
    values, gates = _halves(inputs, axis=axis)
    d_values = widen(d_outputs) * sigmoid(gates)
    return np.concatenate([d_values, d_values * values * sigmoid(-gates)], axis=axis)


def _halves(inputs: ArrayLike, *, axis: int) -> tuple[Array, Array]:
    inputs = widen(inputs)
    if inputs.shape[axis] % 2:
        message = f"glu: expected an even length along axis {axis}; got shape {inputs.shape}."
        raise SpecError(message)
    values, gates = np.split(inputs, 2, axis=axis)
    return values, gates
