"""Smooth activations forward and backward, of any shape."""

import math
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from parity.errors import SpecError
from parity.reference.layers.arrays import Array, widen

GeluForm = Literal["exact", "tanh"]

# Hendrycks & Gimpel 2016, section 2.
_TANH_CUBIC = 0.044715


def sigmoid(inputs: ArrayLike) -> Array:
    """Return `1 / (1 + e^-x)`, without overflow on either side."""
    inputs = widen(inputs)
    small = np.exp(-np.abs(inputs))
    return np.where(inputs >= 0.0, 1.0, small) / (1.0 + small)


def sigmoid_backward(d_outputs: ArrayLike, inputs: ArrayLike) -> Array:
    """Return `d_inputs` of `sigmoid`: `dy s(x) s(-x)`."""
    return widen(d_outputs) * sigmoid(inputs) * sigmoid(-widen(inputs))


def log_sigmoid(inputs: ArrayLike) -> Array:
    """Return `log(1 / (1 + e^-x))`."""
    inputs = widen(inputs)
    return np.minimum(inputs, 0.0) - np.log1p(np.exp(-np.abs(inputs)))


def log_sigmoid_backward(d_outputs: ArrayLike, inputs: ArrayLike) -> Array:
    """Return `d_inputs` of `log_sigmoid`: `dy s(-x)`."""
    return widen(d_outputs) * sigmoid(-widen(inputs))


def tanh(inputs: ArrayLike) -> Array:
    """Return the hyperbolic tangent."""
    return np.tanh(widen(inputs))


def tanh_backward(d_outputs: ArrayLike, inputs: ArrayLike) -> Array:
    """Return `d_inputs` of `tanh`: `dy (1 - tanh(x)^2)`."""
    return widen(d_outputs) * (1.0 - np.tanh(widen(inputs)) ** 2)


def softsign(inputs: ArrayLike) -> Array:
    """Return `x / (1 + |x|)`."""
    inputs = widen(inputs)
    return inputs / (1.0 + np.abs(inputs))


def softsign_backward(d_outputs: ArrayLike, inputs: ArrayLike) -> Array:
    """Return `d_inputs` of `softsign`: `dy / (1 + |x|)^2`."""
    return widen(d_outputs) / (1.0 + np.abs(widen(inputs))) ** 2


def softplus(inputs: ArrayLike, *, beta: float, threshold: float | None) -> Array:
    """Return `log(1 + e^(beta x)) / beta`, or `x` itself where `beta x` is above the threshold.

    Args:
        inputs: Of any shape.
        beta: Steepness; Keras has 1 only.
        threshold: torch's, 20 unless told; None for no such cut, as Keras has on tensorflow and
            jax. At 20 the cut is `e^-20 = 2e-9` deep.

    Raises:
        SpecError: If beta is not above 0.
    """
    scaled = _scaled(inputs, beta=beta)
    outputs = np.maximum(scaled, 0.0) + np.log1p(np.exp(-np.abs(scaled)))
    return np.where(_is_cut(scaled, threshold), scaled, outputs) / beta


def softplus_backward(
    d_outputs: ArrayLike, inputs: ArrayLike, *, beta: float, threshold: float | None
) -> Array:
    """Return `d_inputs` of `softplus`: `dy s(beta x)`, or `dy` above the threshold."""
    scaled = _scaled(inputs, beta=beta)
    return widen(d_outputs) * np.where(_is_cut(scaled, threshold), 1.0, sigmoid(scaled))


def silu(inputs: ArrayLike) -> Array:
    """Return `x s(x)`, also known as swish (Elfwing, Uchibe & Doya 2018, equation 10)."""
    return widen(inputs) * sigmoid(inputs)


def silu_backward(d_outputs: ArrayLike, inputs: ArrayLike) -> Array:
    """Return `d_inputs` of `silu`: `dy s(x) (1 + x s(-x))`."""
    inputs = widen(inputs)
    return widen(d_outputs) * sigmoid(inputs) * (1.0 + inputs * sigmoid(-inputs))


def mish(inputs: ArrayLike) -> Array:
    """Return `x tanh(log(1 + e^x))` (Misra 2019, equation 1)."""
    return widen(inputs) * np.tanh(softplus(inputs, beta=1.0, threshold=None))


def mish_backward(d_outputs: ArrayLike, inputs: ArrayLike) -> Array:
    """Return `d_inputs` of `mish`: `dy (t + x (1 - t^2) s(x))`, `t = tanh(log(1 + e^x))`."""
    inputs = widen(inputs)
    inner = np.tanh(softplus(inputs, beta=1.0, threshold=None))
    return widen(d_outputs) * (inner + inputs * (1.0 - inner**2) * sigmoid(inputs))


def gelu(inputs: ArrayLike, *, form: GeluForm) -> Array:
    """Return `x` times the normal distribution function at `x`, or its approximation by a tanh.

    `exact`: `x erfc(-x / sqrt(2)) / 2`. `tanh`: `x (1 + tanh(u)) / 2` with
    `u = sqrt(2 / pi) (x + 0.044715 x^3)`. They differ by up to 4.7e-4.

    Raises:
        SpecError: If there is no such form.
    """
    inputs = widen(inputs)
    if _is_exact(form):
        return inputs * _distribution(inputs)
    return 0.5 * inputs * (1.0 + np.tanh(_tanh_argument(inputs)))


def gelu_backward(d_outputs: ArrayLike, inputs: ArrayLike, *, form: GeluForm) -> Array:
    """Return `d_inputs` of `gelu`.

    `exact`: `dy (erfc(-x / sqrt(2)) / 2 + x e^(-x^2 / 2) / sqrt(2 pi))`. `tanh`:
    `dy (1 + t + x (1 - t^2) u') / 2` with `t = tanh(u)` and
    `u' = sqrt(2 / pi) (1 + 3 * 0.044715 x^2)`.
    """
    inputs = widen(inputs)
    if _is_exact(form):
        density = np.exp(-0.5 * inputs**2) / math.sqrt(2.0 * math.pi)
        return widen(d_outputs) * (_distribution(inputs) + inputs * density)
    inner = np.tanh(_tanh_argument(inputs))
    inner_slope = math.sqrt(2.0 / math.pi) * (1.0 + 3.0 * _TANH_CUBIC * inputs**2)
    return widen(d_outputs) * 0.5 * (1.0 + inner + inputs * (1.0 - inner**2) * inner_slope)


def _is_exact(form: str) -> bool:
    if form not in ("exact", "tanh"):
        message = f"gelu: form must be 'exact' or 'tanh'; got {form!r}."
        raise SpecError(message)
    return form == "exact"


def _distribution(inputs: Array) -> Array:
    """Return `erfc(-x / sqrt(2)) / 2`, the normal distribution function."""
    tails = [math.erfc(value) for value in (-inputs / math.sqrt(2.0)).ravel()]
    return 0.5 * np.array(tails).reshape(inputs.shape)


def _tanh_argument(inputs: Array) -> Array:
    return math.sqrt(2.0 / math.pi) * (inputs + _TANH_CUBIC * inputs**3)


def _scaled(inputs: ArrayLike, *, beta: float) -> Array:
    if not beta > 0.0:
        message = f"softplus: expected a beta above 0; got {beta!r}."
        raise SpecError(message)
    return beta * widen(inputs)


def _is_cut(scaled: Array, threshold: float | None) -> NDArray[np.bool_]:
    return scaled > (np.inf if threshold is None else threshold)
