"""Where a recorder listens: the places in which Keras notes symbolic calls and reads variables.

While it does, Keras's own records of calls (its nodes) are not made, so the model keeps none of it.

Source of what is replaced: keras 3.15.1, Layer.__call__, Layer.symbolic_call,
Operation.symbolic_call, KerasVariable, KerasTensor, any_symbolic_tensors, and the functions
hard_silu, mish and sparsemax of keras.activations.
"""

import contextlib
import importlib
from collections.abc import Callable, Iterator
from types import EllipsisType, SimpleNamespace

import keras
import numpy as np
from keras.src.activations import activations as activations_module
from keras.src.backend.common import keras_tensor
from keras.src.layers import layer as layer_module
from keras.src.ops import operation as operation_module

from parity.errors import CaptureError
from parity.frameworks.keras_capture.calls import (
    Layer,
    Model,
    Nest,
    Tensor,
    Variable,
    replace_leaves,
)
from parity.frameworks.keras_capture.recorder import Recorder, UnfollowedError, describe_reason
from parity.frameworks.keras_capture.recordings import Recording
from parity.frameworks.program import Array, ValueId

Anything = Callable[..., Nest]

# Python's operators on a variable -> the function of `keras.ops`, and whether it stands left.
_OPERATORS: dict[str, tuple[str, bool]] = {
    f"__{prefix}{operator}__": (function, not prefix)
    for operator, function in {
        "add": "add", "sub": "subtract", "mul": "multiply", "truediv": "divide",
        "pow": "power", "matmul": "matmul", "floordiv": "floor_divide", "mod": "mod",
    }.items()
    for prefix in ("", "r")
} | {
    f"__{operator}__": (function, True)
    for operator, function in {
        "lt": "less", "le": "less_equal", "gt": "greater", "ge": "greater_equal",
        "ne": "not_equal",
    }.items()
}  # fmt: skip
_UNARY = {"__neg__": "negative", "__abs__": "abs"}


def record(
    model: Model, args: tuple[Nest, ...], kwargs: dict[str, Nest], *, training: bool
) -> Recording:
    """Call a built model on symbols of its inputs' shapes and dtypes.

    Args:
        model: A layer, or a function of tensors.
        args: Positional arguments of the call, nests of arrays.
        kwargs: Arguments by name, likewise.
        training: What a layer is told.

    Raises:
        CaptureError: If nothing of it can be followed.
    """
    recorder = Recorder()
    symbols: list[ValueId] = []

    def symbol_of(array: Array) -> Tensor:
        symbol, value = recorder.add_input(array.shape, str(array.dtype))
        symbols.append(value)
        return symbol

    args, kwargs = replace_leaves((args, kwargs), symbol_of)
    told = {"training": training} if isinstance(model, keras.Layer) else {}
    with _listening(recorder):
        try:
            outputs = model(*args, **kwargs, **told)
        except Exception as error:
            message = (
                f"{getattr(model, 'name', None) or getattr(model, '__name__', 'model')}: cannot be "
                f"called on symbols of Keras ({describe_reason(error)}). Write "
                "it with keras.ops, or put what is not into a keras.Layer."
            )
            raise CaptureError(message) from error
        return recorder.finished(symbols, outputs)


@contextlib.contextmanager
def _listening(recorder: Recorder) -> Iterator[None]:
    """Put the recorder in the places where Keras notes symbolic calls and reads variables."""
    original = layer_module.Layer.symbolic_call
    random = importlib.import_module(f"keras.src.backend.{keras.backend.backend()}.random")

    def symbolic_call(layer: Layer, *args: Nest, **kwargs: Nest) -> Tensor:
        return recorder.layer_call(layer, original, *args, **kwargs)

    with contextlib.ExitStack() as stack:
        swap = [
            (layer_module.Layer, "symbolic_call", symbolic_call),
            (layer_module, "Node", lambda **_: None),
            (operation_module, "Node", recorder.function_call),
            (keras_tensor, "KerasTensor", _symbol_class(recorder)),
            (random, "draw_seed", _guarded(recorder, random.draw_seed, "draws random numbers")),
            *_variable_members(recorder),
            (keras.KerasTensor, "__getitem__", _symbol_item(keras.KerasTensor.__getitem__)),
            *_activation_members(recorder),
        ]
        for owner, name, member in swap:
            stack.enter_context(_swapped(owner, name, member))
        yield


@contextlib.contextmanager
def _swapped(owner: Nest, name: str, member: Nest) -> Iterator[None]:
    had = name in vars(owner)
    before = vars(owner).get(name)
    setattr(owner, name, member)
    try:
        yield
    finally:
        if had:
            setattr(owner, name, before)
        else:
            delattr(owner, name)


def _symbol_class(recorder: Recorder) -> type:
    """Return a class to which variables belong as symbols do, where a body is followed."""

    class Meta(type):
        def __instancecheck__(cls, instance: Nest) -> bool:
            if isinstance(instance, keras.KerasTensor):
                return True
            return isinstance(instance, keras.Variable) and recorder.follows

    return Meta("KerasTensor", (), {})


def _guarded(recorder: Recorder, function: Anything, what: str) -> Anything:
    def call(*args: Nest, **kwargs: Nest) -> Tensor:
        if recorder.follows:
            raise UnfollowedError(what)
        return function(*args, **kwargs)

    return call


def _variable_members(recorder: Recorder) -> list[tuple[Nest, str, Nest]]:
    """Return the members of variables that show what a body does with them."""
    kind = keras.Variable
    members: list[tuple[Nest, str, Nest]] = []
    for name, (function, first) in _OPERATORS.items():
        members.append((kind, name, _binary(recorder, getattr(kind, name), function, first=first)))
    for name, function in _UNARY.items():
        members.append((kind, name, _unary(recorder, getattr(kind, name), function)))
    members.append((kind, "__getitem__", _item(recorder, kind.__getitem__)))
    # `keras.ops.convert_to_tensor` asks a symbol for both.
    members += [(kind, "sparse", False), (kind, "ragged", False)]
    guarded = _guarded(recorder, _reader(kind), "reads a variable outside keras.ops")
    members.append((kind, "value", property(guarded)))
    return members


def _reader(kind: type) -> Anything:
    """Return what reads the value of a variable: a backend may have its own."""
    read: Anything = next(
        vars(base)["value"] for base in kind.__mro__ if "value" in vars(base)
    ).fget
    return read


def _binary(recorder: Recorder, original: Anything, function: str, *, first: bool) -> Anything:
    def operate(variable: Variable, other: Tensor) -> Tensor:
        if not recorder.follows:
            return original(variable, other)
        operands = (variable, other) if first else (other, variable)
        return getattr(keras.ops, function)(*operands)

    return operate


def _unary(recorder: Recorder, original: Anything, function: str) -> Anything:
    def operate(variable: Variable) -> Tensor:
        return getattr(keras.ops, function)(variable) if recorder.follows else original(variable)

    return operate


def _item(recorder: Recorder, original: Anything) -> Anything:
    def operate(variable: Variable, index: Nest) -> Tensor:
        if recorder.follows:
            return keras.ops.get_item(variable, _as_tuple(index))
        return original(variable, index)

    return operate


def _symbol_item(original: Anything) -> Anything:
    return lambda symbol, index: original(symbol, _as_tuple(index))


def _as_tuple(index: Nest) -> Nest:
    """Return an index of which Keras can tell the shape: it takes no bare slice."""
    entries = index if isinstance(index, tuple) else (index,)
    whole = tuple(int(one) if isinstance(one, np.integer) else one for one in entries)
    is_plain = all(one is None or isinstance(one, int | slice | EllipsisType) for one in whole)
    return whole if is_plain else index


def _activation_members(recorder: Recorder) -> list[tuple[Nest, str, Nest]]:
    """Return what lets Keras's activations that begin with tensors of the backend take symbols."""
    module = activations_module
    of_tensors = module.backend.convert_to_tensor
    mish = module.Mish.static_call

    def is_followed(x: Tensor) -> bool:
        return recorder.follows and isinstance(x, keras.KerasTensor | keras.Variable)

    def convert_to_tensor(x: Tensor, *args: Nest, **kwargs: Nest) -> Tensor:
        return x if is_followed(x) else of_tensors(x, *args, **kwargs)

    def static_call(x: Tensor) -> Tensor:
        return module.Mish().symbolic_call(x) if is_followed(x) else mish(x)

    backend = SimpleNamespace(**vars(module.backend))
    backend.convert_to_tensor = convert_to_tensor
    return [(module, "backend", backend), (module.Mish, "static_call", staticmethod(static_call))]
