"""Activations with a kink forward and backward: straight lines and exponentials, joined.

At a kink a framework takes the slope of one side; the backward functions are told which where
frameworks differ.
"""

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from parity.errors import SpecError
from parity.reference.layers.arrays import Array, widen

# What counts at x = 0: the slope from below, that from above, or zero.
AtZero = Literal["below", "above", "zero"]

# Klambauer, Unterthiner, Mayr & Hochreiter 2017, equation 14, to float64.
SELU_ALPHA = 1.6732632423543772848170429916717
SELU_SCALE = 1.0507009873554804934193349852946


def relu(inputs: ArrayLike) -> Array:
    """Return `max(x, 0)`, of any shape; not-a-number stays not-a-number."""
    return np.maximum(widen(inputs), 0.0)


def relu_backward(d_outputs: ArrayLike, inputs: ArrayLike) -> Array:
    """Return `d_inputs` of `relu`: `dy` where `x > 0`, else 0, at `x = 0` too."""
    return np.where(widen(inputs) > 0.0, widen(d_outputs), 0.0)


def leaky_relu(inputs: ArrayLike, *, negative_slope: float) -> Array:
    """Return `x` where `x > 0`, else `negative_slope x` (Maas, Hannun & Ng 2013)."""
    inputs = widen(inputs)
    return np.where(inputs > 0.0, inputs, negative_slope * inputs)


def leaky_relu_backward(
    d_outputs: ArrayLike, inputs: ArrayLike, *, negative_slope: float, at_zero: AtZero
) -> Array:
    """Return `d_inputs` of `leaky_relu`: `dy` where `x > 0`, else `negative_slope dy`.

    Args:
        d_outputs: Of the inputs' shape.
        inputs: What the forward took.
        negative_slope: Likewise.
        at_zero: Which slope counts at `x = 0`: the negative side's in torch and tensorflow, the
            positive side's in jax.
    """
    return widen(d_outputs) * _slope(
        inputs, above=np.ones(()), below=np.asarray(negative_slope), at_zero=at_zero
    )


def prelu(inputs: ArrayLike, weight: ArrayLike) -> Array:
    """Return `x` where `x > 0`, else `weight x`, with trained slopes (He et al. 2015, equation 1).

    Args:
        inputs: `(n, c, ...)`.
        weight: `(1,)` or `(c,)`, as torch has them; or with an axis for each of the inputs' but the
            first, of length 1 where a slope is shared, as Keras has them.

    Raises:
        SpecError: If the weight is none of these.
    """
    inputs = widen(inputs)
    return np.where(inputs > 0.0, inputs, _slopes(weight, inputs) * inputs)


def prelu_backward(
    d_outputs: ArrayLike, inputs: ArrayLike, weight: ArrayLike, *, at_zero: AtZero
) -> tuple[Array, Array]:
    """Return the gradients of `prelu`: `(d_inputs, d_weight)`.

    `d_inputs = dy` where `x > 0`, else `weight dy`; `d_weight = sum dy min(x, 0)` over all that
    shares a slope.

    Args:
        d_outputs: Of the inputs' shape.
        inputs: What the forward took.
        weight: Likewise.
        at_zero: Which slope counts at `x = 0`: the negative side's in torch; none in Keras, which
            computes `relu(x) - weight relu(-x)` (keras 3.15.1, PReLU.call).
    """
    inputs, d_outputs = widen(inputs), widen(d_outputs)
    slopes = _slopes(weight, inputs)
    d_inputs = d_outputs * _slope(inputs, above=np.ones(()), below=slopes, at_zero=at_zero)
    by_element = d_outputs * np.minimum(inputs, 0.0)
    padded = (1, *slopes.shape)
    shared = tuple(axis for axis in range(inputs.ndim) if padded[axis] == 1)
    d_weight: Array = by_element.sum(axis=shared, keepdims=True).reshape(widen(weight).shape)
    return d_inputs, d_weight


def elu(inputs: ArrayLike, *, alpha: float) -> Array:
    """Return `x` where `x > 0`, else `alpha (e^x - 1)` (Clevert et al. 2016, equation 15)."""
    inputs = widen(inputs)
    return np.where(inputs > 0.0, inputs, alpha * np.expm1(np.minimum(inputs, 0.0)))


def elu_backward(d_outputs: ArrayLike, inputs: ArrayLike, *, alpha: float) -> Array:
    """Return `d_inputs` of `elu`: `dy` where `x > 0`, else `alpha e^x dy`, at `x = 0` too."""
    inputs = widen(inputs)
    slopes = np.where(inputs > 0.0, 1.0, alpha * np.exp(np.minimum(inputs, 0.0)))
    return widen(d_outputs) * slopes


def selu(inputs: ArrayLike) -> Array:
    """Return `SELU_SCALE` times `elu` of `SELU_ALPHA`."""
    return SELU_SCALE * elu(inputs, alpha=SELU_ALPHA)


def selu_backward(d_outputs: ArrayLike, inputs: ArrayLike, *, at_zero: AtZero) -> Array:
    """Return `d_inputs` of `selu`.

    `SELU_SCALE dy` where `x > 0`, else `SELU_SCALE SELU_ALPHA e^x dy`.

    Args:
        d_outputs: Of the inputs' shape.
        inputs: What the forward took.
        at_zero: Which slope counts at `x = 0`: the negative side's, 1.76, in torch and jax; the
            positive side's, 1.05, in tensorflow.
    """
    below = SELU_SCALE * SELU_ALPHA * np.exp(np.minimum(widen(inputs), 0.0))
    return widen(d_outputs) * _slope(
        inputs, above=np.asarray(SELU_SCALE), below=below, at_zero=at_zero
    )


def celu(inputs: ArrayLike, *, alpha: float) -> Array:
    """Return `max(x, 0) + alpha (e^(min(x, 0) / alpha) - 1)` (Barron 2017, equation 2).

    Raises:
        SpecError: If alpha is zero.
    """
    inputs = widen(inputs)
    _require_alpha(alpha)
    return np.maximum(inputs, 0.0) + alpha * np.expm1(np.minimum(inputs, 0.0) / alpha)


def celu_backward(
    d_outputs: ArrayLike, inputs: ArrayLike, *, alpha: float, slope_at_zero: float
) -> Array:
    """Return `d_inputs` of `celu`: `dy` where `x > 0`, `e^(x / alpha) dy` where `x < 0`.

    Both sides have slope 1 at `x = 0`.

    Args:
        d_outputs: Of the inputs' shape.
        inputs: What the forward took.
        alpha: Likewise.
        slope_at_zero: 1, the derivative; 2 in Keras on tensorflow, which adds both sides (keras
            3.15.1, backend/tensorflow/nn.py, celu).
    """
    inputs = widen(inputs)
    _require_alpha(alpha)
    slopes = np.where(inputs == 0.0, slope_at_zero, np.exp(np.minimum(inputs, 0.0) / alpha))
    return widen(d_outputs) * slopes


def _require_alpha(alpha: float) -> None:
    if alpha == 0.0:
        message = "celu: expected an alpha other than 0; got 0."
        raise SpecError(message)


def _slope(inputs: ArrayLike, *, above: Array, below: Array, at_zero: AtZero) -> Array:
    inputs = widen(inputs)
    sides = {"above": above, "below": below, "zero": np.zeros(())}
    if at_zero not in sides:
        message = f"at_zero must be 'below', 'above' or 'zero'; got {at_zero!r}."
        raise SpecError(message)
    return np.where(inputs == 0.0, sides[at_zero], np.where(inputs > 0.0, above, below))


def _slopes(weight: ArrayLike, inputs: Array) -> Array:
    """Return the slopes of `prelu` with an axis for each of the inputs' but the first."""
    weight, shape = widen(weight), inputs.shape[1:]
    if weight.ndim == 1 and len(shape) > 1:
        weight = weight.reshape(-1, *(1,) * (len(shape) - 1))
    fits = weight.ndim == len(shape) and all(
        size in (1, full) for size, full in zip(weight.shape, shape, strict=True)
    )
    if not fits:
        message = (
            f"prelu: expected a slope for all, for each channel, or of shape {shape} with 1 where "
            f"it is shared; got {weight.shape}."
        )
        raise SpecError(message)
    return weight
