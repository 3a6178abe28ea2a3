"""What is recorded of a Keras model that is called on symbols.

Containers (models, and layers from outside Keras) are called in the open, so that what their `call`
does is seen; stock layers and functions of `keras.ops` are recorded as they are.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import keras
import numpy as np
from keras.src.backend.common.stateless_scope import in_stateless_scope

from parity.errors import CaptureError
from parity.frameworks.keras_capture import expansions, functions, geometry, layers
from parity.frameworks.keras_capture.calls import (
    Call,
    Description,
    Function,
    Layer,
    Nest,
    Ref,
    Tensor,
    Variable,
    flatten,
    replace_leaves,
)
from parity.frameworks.keras_capture.classes import (
    native_name,
    stock_class,
    variable_names,
)
from parity.frameworks.keras_capture.recordings import LeafRecord, Recording, pruned
from parity.frameworks.program import ValueId

# Keras's own way to infer the outputs of a layer.
Infer = Callable[..., Nest]


@dataclass(frozen=True, kw_only=True)
class Frame:
    """A container whose `call` is being followed."""

    path: str
    layer: Layer


class UnfollowedError(Exception):
    """What a `call` does that symbols cannot show."""


class Recorder:
    """Collects the calls of one run on symbols."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.leaves: dict[str, LeafRecord] = {}
        self.variables: dict[str, Variable] = {}
        self.notes: list[str] = []
        self._frames: list[Frame] = []
        self._values: dict[int, tuple[Nest, ValueId]] = {}
        self._count = 0
        self._names: dict[str, int] = {}
        self._within_leaf = False
        self._halves: dict[int, tuple[str, tuple[expansions.Half, ...]]] = {}

    @property
    def follows(self) -> bool:
        """Whether what is called now is to be recorded."""
        return not self._within_leaf and not in_stateless_scope()

    def add_input(self, shape: tuple[int, ...], dtype: str) -> tuple[Tensor, ValueId]:
        """Return a symbol for an input, and its value."""
        symbol = keras.KerasTensor(shape, dtype=dtype)
        return symbol, self._new_value(symbol)

    def layer_call(self, layer: Layer, original: Infer, *args: Nest, **kwargs: Nest) -> Tensor:
        """Stand in for `Layer.symbolic_call`, where Keras infers the shapes of an output."""
        if not self.follows:
            return original(layer, *args, **kwargs)
        if stock_class(layer) in layers.PASSING or layers.is_linear(layer):
            return args[0]
        if stock_class(layer) is None:
            return self._expand(layer, original, args, kwargs)
        return self._call_leaf(layer, original, args, kwargs)

    def function_call(
        self, *, operation: Function, call_args: Nest, call_kwargs: Nest, outputs: Nest
    ) -> None:
        """Stand in for the node that Keras makes of a function's call."""
        if not self.follows:
            return
        if type(operation).__name__ == "ConvertToTensor" and call_args[0].dtype == outputs.dtype:
            self._values[id(outputs)] = outputs, self._reference(call_args[0]).value
            return
        self._record_function(operation, call_args, dict(call_kwargs or {}), outputs)

    def finished(self, symbols: list[ValueId], outputs: Nest) -> Recording:
        """Return what was recorded, without calls that no output needs."""
        found = replace_leaves(outputs, self._reference)
        strays = [leaf for leaf in flatten(found) if not isinstance(leaf, Ref)]
        if strays:
            message = (
                f"outputs of the model: expected tensors; got {type(strays[0]).__name__}. Return "
                "tensors, or lists, tuples and dicts of them."
            )
            raise CaptureError(message)
        return pruned(
            Recording(
                calls=tuple(self.calls),
                leaves=self.leaves,
                variables=self.variables,
                inputs=tuple(symbols),
                outputs=found,
                notes=tuple(self.notes),
            )
        )

    def _expand(
        self, layer: Layer, original: Infer, args: tuple[Nest, ...], kwargs: Nest
    ) -> Tensor:
        frame = Frame(path=self._path_of(layer) if self._frames else "", layer=layer)
        before = len(self.calls), dict(self._names), len(self.notes)
        self._frames.append(frame)
        try:
            return layer.call(*args, **kwargs)
        except Exception as error:  # whatever a user's code raises on symbols
            reason = describe_reason(error)
        finally:
            self._frames.pop()
        del self.calls[before[0] :], self.notes[before[2] :]
        self._names = before[1]
        return self._call_opaque(layer, original, args, kwargs, reason)

    def _call_opaque(
        self,
        layer: Layer,
        original: Infer,
        args: tuple[Nest, ...],
        kwargs: Nest,
        reason: str,
    ) -> Tensor:
        path = self._register(layer, (args, kwargs), opaque=True)
        self.notes.append(f"{path}: what its call does is not seen ({reason}).")
        outputs = self._infer(layer, original, args, kwargs)
        slots = {name: name.replace("/", ".") for name in variable_names(layer)}
        description = Description(kind="opaque", slots=slots)
        self._record_leaf(layer, path, description, args, kwargs, outputs)
        return outputs

    def _call_leaf(
        self, layer: Layer, original: Infer, args: tuple[Nest, ...], kwargs: Nest
    ) -> Tensor:
        if stock_class(layer) == "Activation":
            return self._activated(layer, layer.activation, args[0])
        function = expansions.as_functions(layer, args[0])
        if function is not None:
            return self._activated(layer, function, args[0])
        activation = layers.fused_activation(layer)
        if stock_class(layer) in expansions.SEPARABLE:
            outputs = self._call_halves(layer, original, args[0])
        else:
            path = self._register(layer, (args, kwargs), split=activation is not None)
            outputs = self._call_stock(layer, path, original, args, kwargs)
        return outputs if activation is None else self._activated(layer, activation, outputs)

    def _call_halves(self, layer: Layer, original: Infer, symbol: Tensor) -> Tensor:
        """Call the two convolutions of a separable one."""
        if id(layer) not in self._halves:
            self._within_leaf = True
            try:
                halves = expansions.separable_halves(layer, symbol.shape)
            finally:
                self._within_leaf = False
            self._halves[id(layer)] = _free(self._path_of(layer), self.leaves), halves
        path, halves = self._halves[id(layer)]
        for half in halves:
            at = self._register(
                half.layer,
                ((symbol,), {}),
                path=f"{path}{half.ending}",
                names={own: f"{path}.{source}" for own, source in half.names.items()},
            )
            symbol = self._call_stock(half.layer, at, original, (symbol,), {})
        return symbol

    def _call_stock(
        self,
        layer: Layer,
        path: str,
        original: Infer,
        args: tuple[Nest, ...],
        kwargs: Nest,
    ) -> Tensor:
        outputs = self._infer(layer, original, args, kwargs)
        shapes = [geometry.shape_of(leaf) for leaf in flatten((args, kwargs)) if _is_tensor(leaf)]
        first = next(leaf for leaf in flatten(outputs) if _is_tensor(leaf))
        description = layers.describe_layer(layer, shapes, geometry.shape_of(first))
        if layers.draws(layer) and description.kind != "dropout":
            self.notes.append(f"{path}: draws random numbers in training; here it draws none.")
        self._record_leaf(layer, path, description, args, kwargs, outputs)
        return outputs

    def _activated(
        self, layer: Layer, activation: Callable[[Tensor], Tensor], symbol: Tensor
    ) -> Tensor:
        """Apply a function of a layer's, in one piece where its body takes no symbols."""
        count, names = len(self.calls), dict(self._names)
        self._frames.append(Frame(path=self._path_of(layer), layer=layer))
        try:
            return activation(symbol)
        except Exception:  # whatever a user's function, or Keras's mish, raises on symbols
            del self.calls[count:]
            self._names = names
            whole = functions.Whole(activation)
            outputs = whole.compute_output_spec(symbol)
            self._record_function(whole, (symbol,), {}, outputs)
            return outputs
        finally:
            self._frames.pop()

    def _infer(self, layer: Layer, original: Infer, args: tuple[Nest, ...], kwargs: Nest) -> Tensor:
        self._within_leaf = True
        try:
            return original(layer, *args, **kwargs)
        finally:
            self._within_leaf = False

    def _record_leaf(
        self,
        layer: Layer,
        path: str,
        description: Description,
        args: tuple[Nest, ...],
        kwargs: dict[str, Nest],
        outputs: Nest,
    ) -> None:
        keywords = {key: value for key, value in kwargs.items() if key != "training"}
        arguments = replace_leaves(args, self._reference)
        keywords = replace_leaves(keywords, self._reference)
        takes = getattr(layer, "_call_has_training_arg", False)
        silenced = layers.draws(layer) and description.kind not in ("dropout", "opaque")
        self.calls.append(
            Call(
                name=self._unique(path),
                description=description,
                native=native_name(layer),
                outputs=self._made(outputs),
                arguments=arguments,
                keywords=keywords,
                leaf=path,
                training=bool(kwargs.get("training")) and not silenced if takes else None,
            )
        )

    def _record_function(
        self, operation: Function, args: Nest, kwargs: dict[str, Nest], outputs: Nest
    ) -> None:
        given = functions.Given(
            args,
            kwargs,
            inputs=[
                geometry.shape_of(leaf) for leaf in flatten((args, kwargs)) if _is_tensor(leaf)
            ],
            output=geometry.shape_of(next(leaf for leaf in flatten(outputs) if _is_tensor(leaf))),
        )
        description = functions.describe_function(operation, given)
        arguments = replace_leaves(tuple(args), self._reference)
        keywords = replace_leaves(kwargs, self._reference)
        self.calls.append(
            Call(
                name=self._unique(f"{self._here}/{description.kind}"),
                description=description,
                native=functions.native_name(operation),
                outputs=self._made(outputs),
                arguments=arguments,
                keywords=keywords,
                operation=operation,
            )
        )

    def _reference(self, leaf: Nest) -> Tensor:
        """Return what stands for an argument: a `Ref` for a tensor, itself for anything else."""
        if isinstance(leaf, keras.KerasTensor):
            if id(leaf) not in self._values:
                message = "uses a symbol that no recorded operation made"
                raise UnfollowedError(message)
            return Ref(self._values[id(leaf)][1])
        if isinstance(leaf, keras.Variable):
            return Ref(self._parameter(leaf))
        if isinstance(leaf, np.ndarray) or keras.ops.is_tensor(leaf):
            return Ref(self._constant(np.asarray(keras.ops.convert_to_numpy(leaf))))
        return leaf

    def _parameter(self, variable: Variable) -> ValueId:
        if id(variable) in self._values:
            return self._values[id(variable)][1]
        owner = next(
            (frame for frame in reversed(self._frames) if _owns(frame.layer, variable)), None
        )
        path = owner.path if owner else self._here
        name = variable.name if not path else f"{path}.{variable.name}"
        name = _free(name.replace("/", "."), self.variables)
        self.variables[name] = variable
        value = self._new_value(variable)
        self.calls.append(
            Call(
                name=self._unique(f"{path}/parameter"),
                description=Description(kind="parameter", slots={"": "value"}),
                native="keras.Variable",
                outputs=(value,),
                variable=name,
            )
        )
        return value

    def _constant(self, array: Nest) -> ValueId:
        value = self._new_value(array)
        self.calls.append(
            Call(
                name=self._unique(f"{self._here}/constant"),
                description=Description(kind="constant"),
                native="array",
                outputs=(value,),
                array=array,
            )
        )
        return value

    def _made(self, outputs: Nest) -> tuple[ValueId, ...]:
        return tuple(self._new_value(leaf) for leaf in flatten(outputs) if _is_tensor(leaf))

    def _new_value(self, thing: Nest) -> ValueId:
        value = self._count
        self._count += 1
        # The thing is kept: its number must not go to another.
        self._values[id(thing)] = thing, value
        return value

    @property
    def _here(self) -> str:
        return self._frames[-1].path if self._frames else ""

    def _path_of(self, layer: Layer) -> str:
        name = layer.name.replace("-", ".").replace("#", "_").replace("/", ".")
        return f"{self._here}.{name}" if self._here else name

    def _register(
        self,
        layer: Layer,
        arguments: tuple[Nest, dict[str, Nest]],
        *,
        path: str | None = None,
        **facts: Nest,
    ) -> str:
        """Return the path of a layer that is called, with what else its record says."""
        for taken, record in self.leaves.items():
            if record.layer is layer:
                return taken
        path = _free(self._path_of(layer), self.leaves) if path is None else path
        self.leaves[path] = LeafRecord(path=path, layer=layer, arguments=arguments, **facts)
        return path

    def _unique(self, name: str) -> str:
        self._names[name] = self._names.get(name, 0) + 1
        count = self._names[name]
        return name if count == 1 else f"{name}#{count}"


def describe_reason(error: Exception) -> str:
    """Return the sentence of an error that Keras may have wrapped into words of its own."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = [line for line in lines if not line.startswith("Exception encountered")]
    reason = (told or lines or [type(error).__name__])[0]
    return reason.replace("\x1b[1m", "").replace("\x1b[0m", "").rstrip(".")


def _is_tensor(leaf: Nest) -> bool:
    return isinstance(leaf, keras.KerasTensor | keras.Variable)


def _owns(layer: Layer, variable: Variable) -> bool:
    held = (*layer._trainable_variables, *layer._non_trainable_variables)
    return any(one is variable for one in held)


def _free(name: str, taken: Mapping[str, object]) -> str:
    """Return a name, with a number after it if it is taken."""
    count, free = 1, name
    while free in taken:
        count += 1
        free = f"{name}_{count}"
    return free
