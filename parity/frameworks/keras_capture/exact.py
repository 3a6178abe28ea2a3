"""What Keras's backends compute with float32 in float64, made exact.

Measured with keras 3.15.1. tensorflow 2.21.0: `tf.nn.gelu` is 1e-9 off (its tanh form 2e-10),
`tf.nn.leaky_relu` 2e-10, a `Rescaling` 1e-7 and bilinear resizing 9e-8. jax 0.10.2:
`jax.nn.dot_product_attention` takes its softmax in float32 (4e-8), and layers that return their
scores do not call it. Only programs that were cast to float64 use this.
"""

import importlib
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import keras
import numpy as np

from parity.frameworks.keras_capture.calls import Attribute, Description, Tensor

Formula = Callable[[Tensor, Mapping[str, Attribute]], Tensor]


def exact_numbers() -> AbstractContextManager[None]:
    """Return a context in which numbers that layers cast to float64 are not rounded first."""
    if keras.backend.backend() != "tensorflow":
        return nullcontext()
    backend = importlib.import_module("parity.frameworks.keras_backends.tensorflow")
    context: AbstractContextManager[None] = backend.exact_numbers()
    return context


def exact_formula(description: Description) -> Callable[[Tensor], Tensor] | None:
    """Return a function of the operand to run instead of what was called, or None."""
    if keras.backend.backend() != "tensorflow":
        return None
    attributes = description.attributes
    if description.kind == "resize" and attributes["mode"] != "bilinear":
        return None
    formula = _FORMULAS.get(description.kind)
    return None if formula is None else lambda operand: formula(operand, attributes)


def rounds_attention(description: Description) -> bool:
    """Return whether a layer of attention would leave its softmax to jax, in float32."""
    return keras.backend.backend() == "jax" and description.kind == "attention"


def rounds_always(description: Description) -> bool:
    """Return whether there is no way to compute a function in float64."""
    is_attention = description.kind == "scaled_dot_product_attention"
    return keras.backend.backend() == "jax" and is_attention


def _leaky_relu(x: Tensor, attributes: Mapping[str, Attribute]) -> Tensor:
    return keras.ops.where(x > 0, x, attributes["slope"] * x)


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


_FORMULAS: dict[str, Formula] = {"leaky_relu": _leaky_relu, "resize": _resize}
