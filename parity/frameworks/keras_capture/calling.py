"""How a user's model is called: what it is given, and what it makes of it."""

import inspect

import keras
import numpy as np

from parity.frameworks.keras_capture.calls import Model, Nest, named_leaves, replace_leaves
from parity.frameworks.program import Array, is_float


def dtype_of(model: Model) -> str:
    """Return what a model's weights are kept in."""
    if isinstance(model, keras.Layer):
        return str(model.variable_dtype)
    return str(keras.config.floatx())


def as_given(array: Nest, dtype: str) -> Array:
    """Return an input in the dtype of the model."""
    taken: Array = np.asarray(array)
    return taken.astype(dtype) if is_float(taken) else taken


def spread_arguments(model: Model, arrays: Nest) -> tuple[tuple[Nest, ...], dict[str, Nest]]:
    """Return the arguments of a call by place and by name."""
    if isinstance(model, keras.Sequential) or hasattr(model, "operations"):
        return (list(arrays) if isinstance(arrays, tuple) else arrays,), {}
    call = model.call if isinstance(model, keras.Layer) else model
    needed = [
        name
        for name, parameter in inspect.signature(call).parameters.items()
        if parameter.default is parameter.empty
        and parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
        and name not in ("training", "mask")
    ]
    if isinstance(arrays, dict) and len(needed) > 1 and set(needed) <= set(arrays):
        return (), dict(arrays)
    if isinstance(arrays, list | tuple) and len(needed) > 1 and len(arrays) >= len(needed):
        return tuple(arrays), {}
    return (arrays,), {}


def outputs_of_model(model: Model, arguments: Nest, keywords: Nest) -> dict[str, Array]:
    """Return what the model itself makes of its inputs outside training; it is not moved."""
    tensors, named = replace_leaves((arguments, keywords), keras.ops.convert_to_tensor)
    told = {"training": False} if isinstance(model, keras.Layer) else {}
    moved = [variable for variable in getattr(model, "variables", ()) if not variable.trainable]
    before = [np.array(keras.ops.convert_to_numpy(variable.value)) for variable in moved]
    outputs = model(*tensors, **named, **told)
    for variable, array in zip(moved, before, strict=True):
        variable.assign(array)
    return {
        name: np.array(keras.ops.convert_to_numpy(tensor)) for name, tensor in named_leaves(outputs)
    }
