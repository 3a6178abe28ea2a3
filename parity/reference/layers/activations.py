"""Activations forward and backward, of any shape."""

import numpy as np
from numpy.typing import ArrayLike

from parity.reference.layers.arrays import Array, widen


def relu(inputs: ArrayLike) -> Array:
    """Return `max(x, 0)`, of any shape; not-a-number stays not-a-number."""
    return np.maximum(widen(inputs), 0.0)


def relu_backward(d_outputs: ArrayLike, inputs: ArrayLike) -> Array:
    """Return `d_inputs` of `relu`: `dy` where `x > 0`, else 0, at `x = 0` too."""
    return np.where(widen(inputs) > 0.0, widen(d_outputs), 0.0)
