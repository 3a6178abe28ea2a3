"""Layers whose arrays one framework packs, cuts or adds otherwise than the other.

Recurrent layers and attention: each form is recognised by the names of its arrays, and goes over
into the other through `conversion.recurrent_layouts` and `conversion.attention_layouts`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from conversion.attention_layouts import to_keras_attention, to_torch_attention
from conversion.recurrent_layouts import (
    to_keras_recurrent,
    to_torch_recurrent,
    to_torch_recurrent_gradients,
)
from parity.compare.attention import is_written
from parity.compare.attention_arrays import from_layer, to_layer
from parity.frameworks.program import Array, Operation, State

Form = Literal["torch", "keras", "written"]
# Kind -> the Keras class whose gates it has.
_CLASSES = {"lstm": "LSTM", "gru": "GRU", "rnn": "SimpleRNN"}
_DIRECTIONS = (("_l0", ""), ("_l0_reverse", "reverse."))


@dataclass(frozen=True, kw_only=True)
class CompositeMove:
    """How the arrays of one layer become its counterpart's, by slot.

    Attributes:
        arrays: Takes and gives arrays by slot.
        gradients: The same for gradients with respect to them.
        settled: The counterpart's own arrays, by slot, in the form that `arrays` gives, of what is
            the same function: two biases that are added are one.
    """

    arrays: Callable[[Mapping[str, Array]], State]
    gradients: Callable[[Mapping[str, Array]], State]
    settled: Callable[[Mapping[str, Array]], State] = dict


def form_of(operation: Operation) -> Form | None:
    """Return in which framework's form a layer keeps its arrays; `None` for plain layers."""
    if operation.kind in _CLASSES:
        return "keras" if any("kernel" in slot for slot in operation.weights) else "torch"
    if operation.kind == "attention":
        if is_written(operation):
            return "written"
        return "keras" if "query.kernel" in operation.weights else "torch"
    return None


def composite_move(source: Operation, target: Operation) -> CompositeMove | None:
    """Return how the arrays go over; `None` where both sides keep them alike.

    Raises:
        ConversionError: By the functions returned, where the arrays have no such form.
    """
    forms = form_of(source), form_of(target)
    are_alike = forms[0] == forms[1] != "written"
    if None in forms or are_alike or source.kind != target.kind:
        return None
    if source.kind == "attention":
        return _attention_move(source, target)
    return _recurrent_move(source, target, to_keras=forms[1] == "keras")


def _attention_move(source: Operation, target: Operation) -> CompositeMove:
    """Return the move by way of the form of PyTorch's layer."""

    def move(arrays: Mapping[str, Array]) -> State:
        form = form_of(source)
        if form == "written":
            slots = to_layer(source, arrays)
        elif form == "keras":
            slots = to_torch_attention({name.replace(".", "/"): arrays[name] for name in arrays})
        else:
            slots = dict(arrays)
        if form_of(target) == "written":
            return from_layer(target, slots)
        if form_of(target) == "torch":
            return slots
        made = to_keras_attention(slots, heads=source.attributes["heads"])
        return {name.replace("/", "."): array for name, array in made.items()}

    return CompositeMove(arrays=move, gradients=move)


def _recurrent_move(source: Operation, target: Operation, *, to_keras: bool) -> CompositeMove:
    kind = _CLASSES[source.kind]
    keras_side = target if to_keras else source
    two_biases = kind == "GRU" and bool(keras_side.attributes.get("reset_after"))

    def move(arrays: Mapping[str, Array]) -> State:
        if to_keras:
            return _to_keras(kind, arrays, two_biases=two_biases)
        return _to_torch(kind, arrays, two_biases=two_biases, gradients=False)

    def move_gradients(arrays: Mapping[str, Array]) -> State:
        if not to_keras:
            return _to_torch(kind, arrays, two_biases=two_biases, gradients=True)
        if not two_biases:
            # A sum of two biases has the gradient of either.
            arrays = {
                name: np.zeros_like(array) if name.startswith("bias_hh") else array
                for name, array in arrays.items()
            }
        return _to_keras(kind, arrays, two_biases=two_biases)

    is_summed = not to_keras and not two_biases
    return CompositeMove(
        arrays=move, gradients=move_gradients, settled=_with_summed_biases if is_summed else dict
    )


def _with_summed_biases(arrays: Mapping[str, Array]) -> State:
    """Return PyTorch's arrays with the sum of both biases in the first, as Keras's become."""
    settled = dict(arrays)
    for name in arrays:
        if name.startswith("bias_hh"):
            first = name.replace("bias_hh", "bias_ih")
            settled[first] = arrays[first] + arrays[name]
            settled[name] = np.zeros_like(arrays[name])
    return settled


def _to_keras(kind: str, arrays: Mapping[str, Array], *, two_biases: bool) -> State:
    moved: State = {}
    for suffix, prefix in _DIRECTIONS:
        slots = {
            name.removesuffix(suffix): array
            for name, array in arrays.items()
            if name.endswith(suffix)
        }
        if slots:
            made = to_keras_recurrent(kind, slots, two_biases=two_biases)
            moved |= {f"{prefix}{name}": array for name, array in made.items()}
    return moved


def _to_torch(
    kind: str, arrays: Mapping[str, Array], *, two_biases: bool, gradients: bool
) -> State:
    convert = to_torch_recurrent_gradients if gradients else to_torch_recurrent
    moved: State = {}
    for suffix, prefix in _DIRECTIONS:
        variables = {
            name.removeprefix(prefix): array
            for name, array in arrays.items()
            if name.startswith("reverse.") == bool(prefix)
        }
        if variables:
            made = convert(kind, variables, two_biases=two_biases)
            moved |= {f"{name}{suffix}": array for name, array in made.items()}
    return moved
