"""The layers that a program runs: copies of the user's, in the precision of the program.

A copy is made of a layer's config, or else of what the layer holds, and takes over its arrays. A
layer that cannot be copied is used itself, and gets its own arrays back after each run.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import keras
import numpy as np

from parity.frameworks.keras_capture.calls import Layer, Nest, Variable, replace_leaves
from parity.frameworks.keras_capture.classes import variable_names
from parity.frameworks.keras_capture.recordings import LeafRecord, Recording
from parity.frameworks.keras_capture.twins import copy_variable, make_twin
from parity.frameworks.program import Array, State

# A record and the dtype of the copy -> the copy, or None if there can be none.
Make = Callable[..., Layer | None]


@dataclass(frozen=True, kw_only=True)
class Leaf:
    """A layer that a program calls.

    Attributes:
        layer: What is called.
        variables: By path below the layer; seeds are left out.
        is_borrowed: Whether it is the user's own.
    """

    layer: Layer
    variables: Mapping[str, Variable]
    is_borrowed: bool


def copy_leaf(record: LeafRecord, *, dtype: str | None, names: Sequence[str] | None) -> Leaf:
    """Return a layer like the user's, with its arrays.

    Args:
        record: The user's layer.
        dtype: What it computes in; None keeps its own.
        names: Of its variables, in their order; None takes those of the user's layer.
    """
    copy = _tried(_copied, record, dtype=dtype) or _tried(_twin, record, dtype=dtype)
    layer: Layer = record.layer if copy is None else copy
    # A copy is built elsewhere, so Keras may call its variables otherwise.
    names = variable_names(record.layer) if names is None else names
    variables = dict(zip(names, layer.weights, strict=True))
    return Leaf(layer=layer, variables=variables, is_borrowed=copy is None)


def _tried(make: Make, record: LeafRecord, *, dtype: str | None) -> Layer | None:
    try:
        return make(record, dtype=dtype)
    except Exception:  # whatever a user's own class raises when it is made of a config, or copied
        return None


def _twin(record: LeafRecord, *, dtype: str | None) -> Layer | None:
    """Return a copy that needs no config."""
    layer = make_twin(record, dtype=dtype)
    if layer is not None:
        _take_over(layer, record.layer)
    return layer


def _copied(record: LeafRecord, *, dtype: str | None) -> Layer | None:
    """Return a copy, or None if its variables are not those of the original."""
    original = record.layer
    config = original.get_config()
    if dtype is not None:
        config = _in_dtype(config, dtype)
    if record.split:
        config["activation"] = "linear"
    layer = type(original).from_config(config)
    if record.opaque:
        _build_by_call(layer, record.arguments, dtype=dtype)
    elif not layer.built:
        layer.build_from_config(original.get_build_config() or {"input_shape": None})
    shapes = [tuple(variable.shape) for variable in layer.weights]
    if shapes != [tuple(variable.shape) for variable in original.weights]:
        return None
    _take_over(layer, original)
    return layer


def _take_over(layer: Layer, original: Layer) -> None:
    """Give a copy the arrays of its original."""
    for variable, source in zip(layer.weights, original.weights, strict=True):
        variable.assign(keras.ops.convert_to_numpy(source.value))
        # Trained or not is also set on variables, after a layer is made.
        if variable.trainable != source.trainable:
            variable.trainable = source.trainable
    derive_constants(layer)


def derive_constants(layer: Layer) -> None:
    """Let a layer make what it keeps beside its variables: `Normalization` does, `adapt` has it."""
    if hasattr(layer, "finalize_state"):
        layer.finalize_state()


def _build_by_call(
    layer: Layer, arguments: tuple[Nest, dict[str, Nest]], *, dtype: str | None
) -> None:
    """Build a layer, and those that it makes in its call, from symbols."""

    def anew(leaf: Nest) -> Nest:
        if not isinstance(leaf, keras.KerasTensor):
            return leaf
        own = keras.backend.standardize_dtype(leaf.dtype)
        return keras.KerasTensor(leaf.shape, dtype=dtype if dtype and "float" in own else own)

    args, kwargs = replace_leaves(arguments, anew)
    layer(*args, **kwargs)


def _in_dtype(config: Nest, dtype: str) -> Nest:
    """Return a config with every float policy in it replaced."""
    if isinstance(config, dict):
        return {
            key: dtype if key == "dtype" and _is_float_policy(value) else _in_dtype(value, dtype)
            for key, value in config.items()
        }
    if isinstance(config, list | tuple):
        return type(config)(_in_dtype(part, dtype) for part in config)
    return config


def _is_float_policy(value: Nest) -> bool:
    name = value.get("config", {}).get("name") if isinstance(value, dict) else value
    return isinstance(name, str) and "float" in name


class Holdings:
    """The layers and variables of one program, and its state by name."""

    def __init__(
        self, recording: Recording, *, dtype: str | None, names: Mapping[str, Sequence[str]]
    ) -> None:
        """Copy the layers and variables of a recording.

        Args:
            recording: The user's.
            dtype: What they compute in; None keeps their own.
            names: By path of a layer, how its variables are called; Keras numbers some anew.
        """
        self.leaves = {
            path: copy_leaf(record, dtype=dtype, names=names.get(path))
            for path, record in recording.leaves.items()
        }
        self.free = {
            name: copy_variable(variable, dtype=dtype)
            for name, variable in recording.variables.items()
        }
        self.names: dict[str, dict[str, str]] = {}
        self.variables: dict[str, Variable] = dict(self.free)
        for path, leaf in self.leaves.items():
            self.names[path] = {}
            for below, variable in leaf.variables.items():
                known = recording.leaves[path].names
                name = known.get(below, f"{path}.{below.replace('/', '.')}")
                self.names[path][below] = name
                self.variables[name] = variable
        self._borrowed = {
            name: self.variables[name]
            for path, leaf in self.leaves.items()
            if leaf.is_borrowed
            for name in self.names[path].values()
        }
        # The program's arrays of variables that are the user's.
        self._arrays: State = {name: _array(one) for name, one in self._borrowed.items()}

    @property
    def borrowed(self) -> tuple[str, ...]:
        """Paths of the layers that are the user's own."""
        return tuple(path for path, leaf in self.leaves.items() if leaf.is_borrowed)

    def trained(self) -> tuple[str, ...]:
        """Return the names of the variables that are trained."""
        return tuple(name for name, one in self.variables.items() if one.trainable)

    def state(self) -> State:
        """Return copies of all arrays."""
        return {
            name: self._arrays[name].copy() if name in self._arrays else _array(variable)
            for name, variable in self.variables.items()
        }

    def current(self, names: Sequence[str]) -> State:
        """Return what variables hold now, within `in_use`."""
        return {name: _array(self.variables[name]) for name in names}

    def assign(self, arrays: Mapping[str, Array]) -> None:
        """Take over arrays; the user's variables keep theirs."""
        for name, array in arrays.items():
            if name in self._arrays:
                self._arrays[name] = np.array(array, self._arrays[name].dtype)
            else:
                self.variables[name].assign(array)
        for leaf in self.leaves.values():
            derive_constants(leaf.layer)

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Put the program's arrays into the layers for a run, and take back what it moves."""
        moved = [variable for variable in self.variables.values() if not variable.trainable]
        touched = [*self._borrowed.values(), *moved, *self._seeds()]
        before = [(variable, _array(variable)) for variable in touched]
        try:
            for name, array in self._arrays.items():
                self._borrowed[name].assign(array)
            yield
        finally:
            for variable, array in before:
                variable.assign(array)

    def _seeds(self) -> list[Variable]:
        return [
            variable
            for leaf in self.leaves.values()
            for variable in leaf.layer.variables
            if not any(variable is one for one in leaf.layer.weights)
        ]


def _array(variable: Variable) -> Array:
    return np.array(keras.ops.convert_to_numpy(variable.value))
