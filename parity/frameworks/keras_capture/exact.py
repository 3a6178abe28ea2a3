"""What tensorflow computes with float32 constants in float64, in exact formulas.

Measured with keras 3.15.1 and tensorflow 2.21.0: `tf.nn.gelu` is 1e-9 off (its tanh form 2e-10),
`tf.nn.leaky_relu` 2e-10, and bilinear resizing 9e-8; jax and torch are not. Only float64 runs use
these.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np

from parity.frameworks.keras_capture.calls import Attribute, Description, Tensor

Formula = Callable[[Tensor, Mapping[str, Attribute]], Tensor]


def exact_formula(description: Description) -> Callable[[Tensor], Tensor] | None:
    """Return a function of the operand to run instead of what was called, or None."""
    if keras.backend.backend() != "tensorflow":
        return None
    attributes = description.attributes
    if description.kind == "resize" and attributes["mode"] != "bilinear":
        return None
    formula = _FORMULAS.get(description.kind)
    return None if formula is None else lambda operand: formula(operand, attributes)


def _gelu(x: Tensor, attributes: Mapping[str, Attribute]) -> Tensor:
    """Return `x * Phi(x)`, or `x / 2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))`."""
    if attributes["approximate"]:
        inner = _number(math.sqrt(2 / math.pi), x) * (x + _number(0.044715, x) * x * x * x)
        return _number(0.5, x) * x * (_number(1.0, x) + keras.ops.tanh(inner))
    return _number(0.5, x) * x * (_number(1.0, x) + keras.ops.erf(x * _number(math.sqrt(0.5), x)))


def _leaky_relu(x: Tensor, attributes: Mapping[str, Attribute]) -> Tensor:
    return keras.ops.where(x > 0, x, _number(attributes["slope"], x) * x)


def _resize(x: Tensor, attributes: Mapping[str, Attribute]) -> Tensor:
    """Return the bilinear resizing of both spatial axes as two products of matrices."""
    rows, columns = (1, 2) if attributes["channel_axis"] == 3 else (2, 3)
    for axis, size in zip((rows, columns), attributes["output_size"], strict=True):
        weights = keras.ops.convert_to_tensor(_interpolation(x.shape[axis], size), dtype="float64")
        x = keras.ops.moveaxis(keras.ops.tensordot(weights, x, axes=[[1], [axis]]), 0, axis)
    return x


def _interpolation(source: int, target: int) -> np.ndarray[Any, Any]:
    """Return the matrix `(target, source)` of bilinear weights between centres of pixels."""
    places = np.clip((np.arange(target) + 0.5) * (source / target) - 0.5, 0, source - 1)
    before = np.floor(places).astype(int)
    after = np.minimum(before + 1, source - 1)
    weights = np.zeros((target, source))
    np.add.at(weights, (np.arange(target), before), 1 - (places - before))
    np.add.at(weights, (np.arange(target), after), places - before)
    return weights


def _number(value: float, like: Tensor) -> Tensor:
    return keras.ops.convert_to_tensor(
        np.asarray(value), dtype=keras.backend.standardize_dtype(like.dtype)
    )


_FORMULAS: dict[str, Formula] = {"gelu": _gelu, "leaky_relu": _leaky_relu, "resize": _resize}
