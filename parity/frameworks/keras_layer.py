"""One Keras layer, forward and backward on NumPy arrays, on any backend."""

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from parity.frameworks.net import Array
from parity.frameworks.outcomes import LayerOutcome


def run_keras_layer(
    layer: Callable[..., Any],
    inputs: Sequence[Array],
    d_outputs: Array,
    *,
    weights: Mapping[str, Array] | None = None,
    arguments: Mapping[str, Any] | None = None,
) -> LayerOutcome:
    """Return what a layer, or a function of tensors, makes of arrays in Keras's own layout.

    The layer computes in its own dtype; inputs of floats are given in `keras.config.floatx()`.

    Args:
        layer: Built or not; called as `layer(*inputs, **arguments)` and returning one tensor.
        inputs: Arrays in the order of the call.
        d_outputs: Gradient with respect to the outputs, of their shape.
        weights: Arrays by variable path below the layer (`kernel`, `cell/bias`); the layer keeps
            what it has where none is given.
        arguments: Such as `training`.

    Raises:
        KeyError: If `weights` names no variable of the layer.
    """
    keywords = dict(arguments or {})
    leaves = [_leaf(array) for array in inputs]
    if isinstance(layer, keras.Layer) and not layer.built:
        layer(*map(_symbolic, leaves), **keywords)  # makes its variables, and moves none
    variables = layer_variables(layer)
    for name, array in (weights or {}).items():
        variables[name].assign(array)
    trained = {name: v for name, v in variables.items() if v.trainable}
    buffers = {name: v for name, v in variables.items() if not v.trainable}
    sources = [leaf for leaf in leaves if isinstance(leaf, keras.Variable)]
    backend = importlib.import_module(f"parity.frameworks.keras_backends.{keras.backend.backend()}")
    (outputs,), gradients, values = backend.pull_back(
        lambda: [layer(*leaves, **keywords)],
        [*sources, *trained.values()],
        list(buffers.values()),
        [d_outputs],
    )
    count = len(sources)
    return LayerOutcome(
        outputs=outputs,
        input_gradients=tuple(gradients[:count]),
        parameter_gradients=dict(zip(trained, gradients[count:], strict=True)),
        buffers=dict(zip(buffers, values, strict=True)),
    )


def layer_variables(layer: Any) -> dict[str, keras.Variable]:  # noqa: ANN401  # a layer or a function
    """Return a built layer's variables by path below it; seed states are left out."""
    prefix = f"{getattr(layer, 'name', '')}/"
    return {
        variable.path.removeprefix(prefix): variable for variable in getattr(layer, "weights", [])
    }


def _leaf(array: Array) -> Any:  # noqa: ANN401  # a variable, or a tensor of integers
    if np.issubdtype(array.dtype, np.floating):
        return keras.Variable(array, dtype=keras.config.floatx(), name="input")
    return keras.ops.convert_to_tensor(array)


def _symbolic(leaf: Any) -> keras.KerasTensor:  # noqa: ANN401  # a variable or a tensor
    return keras.KerasTensor(leaf.shape, dtype=keras.backend.standardize_dtype(leaf.dtype))
