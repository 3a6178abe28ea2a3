"""Layers made like others without a config: what they hold is copied, their variables are new.

A twin stands alone: a call of it reads no variable of the layer that it is like.
"""

import contextlib
import copy
import sys
from collections.abc import Iterator

import keras
import numpy as np
from keras.src.saving.keras_saveable import KerasSaveable
from keras.src.utils.tracking import Tracker

from parity.frameworks.keras_capture.calls import (
    Layer,
    Nest,
    Tensor,
    Variable,
    named_leaves,
    replace_leaves,
)
from parity.frameworks.keras_capture.recordings import LeafRecord
from parity.frameworks.program import Array

# Attributes that lead to the rest of a model, or back to the layer itself (keras 3.15.1,
# Layer.__new__ and Operation.__init__).
_OUTSIDE = ("build", "quantize", "_inbound_nodes", "_outbound_nodes", "_torch_params")


def copy_variable(variable: Variable, *, dtype: str | None) -> Variable:
    """Return a variable of the same array."""
    own = keras.backend.standardize_dtype(variable.dtype)
    return keras.Variable(
        keras.ops.convert_to_numpy(variable.value),
        dtype=dtype if dtype is not None and "float" in own else own,
        trainable=variable.trainable,
        name=variable.name.replace("/", "_"),
    )


def make_twin(record: LeafRecord, *, dtype: str | None) -> Layer | None:
    """Return a twin of a built layer, or None if it cannot be made.

    Functions that the layer holds may use its variables, which would be those of the user.

    Args:
        record: The user's layer.
        dtype: What it computes in; None keeps its own.

    Raises:
        Exception: Whatever a thing that the layer holds raises when it is copied.
    """
    original = record.layer
    parts = list(original._flatten_layers(include_self=True, recursive=True))
    # Inner models cast to the floats that they were built for, out of sight.
    if any(isinstance(part, keras.Model) for part in parts):
        return None
    known: dict[int, Nest] = {id(part): object.__new__(type(part)) for part in parts}
    known |= {id(one): copy_variable(one, dtype=dtype) for one in original.variables}
    # Lists that note what is put into them refuse to be filled once a layer is built.
    known |= {id(part._tracker): None for part in parts}
    known |= {id(module): module for module in list(sys.modules.values())}
    twins = [known[id(part)] for part in parts]
    for part, twin in zip(parts, twins, strict=True):
        held = {name: value for name, value in vars(part).items() if name not in _OUTSIDE}
        with _without_saving():
            vars(twin).update(copy.deepcopy(held, known))
        vars(twin).update(_inbound_nodes=[], _outbound_nodes=[], _tracker=Tracker({}))
        if dtype is not None and "float" in part.dtype_policy.name:
            vars(twin)["_dtype_policy"] = keras.DTypePolicy(dtype)
    if record.split:
        vars(twins[0])["activation"] = keras.activations.linear
    return twins[0] if _stands_alone(twins[0], record, dtype=dtype) else None


@contextlib.contextmanager
def _without_saving() -> Iterator[None]:
    """Keep Keras from copying a thing by saving it: what is loaded has other variables."""

    def refuse(thing: Nest) -> Nest:
        message = f"{type(thing).__name__} is held, but is not among the layer's own layers."
        raise TypeError(message)

    before = KerasSaveable.__reduce__
    KerasSaveable.__reduce__ = refuse
    try:
        yield
    finally:
        KerasSaveable.__reduce__ = before


def _stands_alone(twin: Layer, record: LeafRecord, *, dtype: str | None) -> bool:
    """Return whether a twin computes the same while its original holds no numbers."""
    arguments, keywords = replace_leaves(record.arguments, lambda leaf: _example(leaf, dtype=dtype))
    if "training" in keywords:
        keywords["training"] = False

    def call() -> list[Array]:
        outputs = twin(*arguments, **keywords)
        return [np.asarray(keras.ops.convert_to_numpy(one)) for _, one in named_leaves(outputs)]

    expected = call()
    with _without_numbers(record.layer):
        actual = call()
    pairs = zip(actual, expected, strict=True)
    return all(np.array_equal(one, other, equal_nan=True) for one, other in pairs)


def _example(leaf: Nest, *, dtype: str | None) -> Tensor:
    """Return a tensor for a symbol, anything else as it is."""
    if not isinstance(leaf, keras.KerasTensor):
        return leaf
    own = keras.backend.standardize_dtype(leaf.dtype)
    if "float" not in own:
        return keras.ops.zeros(leaf.shape, dtype=own)
    return keras.ops.full(leaf.shape, 0.5, dtype=dtype or own)


@contextlib.contextmanager
def _without_numbers(layer: Layer) -> Iterator[None]:
    """Let the floats of a layer be undefined for a while."""
    floats = [one for one in layer.variables if "float" in str(one.dtype)]
    before = [np.array(keras.ops.convert_to_numpy(one.value)) for one in floats]
    try:
        for variable in floats:
            variable.assign(keras.ops.full(variable.shape, np.nan, dtype=variable.dtype))
        yield
    finally:
        for variable, array in zip(floats, before, strict=True):
            variable.assign(array)
