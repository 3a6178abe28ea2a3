"""How Keras' recurrent layers store the arrays of one direction of one layer of PyTorch's.

PyTorch's arrays go without their suffix: `weight_ih` `(gates * u, f)`, `weight_hh` `(gates * u, u)`
and, both or none, `bias_ih` and `bias_hh` `(gates * u,)`. Keras' are `kernel` `(f, gates * u)`,
`recurrent_kernel` `(u, gates * u)` and `bias`: one row, or for a GRU with `reset_after` two. Gates
are stacked `i f g o` by both in an LSTM (Keras calls `g` `c`), `r z n` by PyTorch and `z r h` by
Keras in a GRU.

A bias of one row is the sum of PyTorch's two, which cannot be told apart afterwards: on the way
back all of it is `bias_ih`, and `bias_hh` is zeros. So Keras to PyTorch and back is identical to
the bit, and PyTorch to Keras and back keeps what the layer computes, not the two biases;
`describe_merge` says so. Imports numpy and `parity.errors` only.

Source: torch 2.13.0, nn.RNN, nn.LSTM and nn.GRU; keras 3.15.1, SimpleRNNCell.build, LSTMCell.build
and GRUCell.build.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parity.errors import ConversionError, describe_nearest

Array = NDArray[Any]
Arrays = dict[str, Array]

# Keras layer class -> the place in PyTorch's stack of each gate that Keras stacks, in its order.
GATE_ORDERS: dict[str, tuple[int, ...]] = {
    "SimpleRNN": (0,),
    "LSTM": (0, 1, 2, 3),
    "GRU": (1, 0, 2),
}
_SLOTS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
_VARIABLES = ("kernel", "recurrent_kernel", "bias")


def recurrent_suffix(layer: int, *, reverse: bool) -> str:
    """Return what PyTorch's names end with.

    >>> recurrent_suffix(1, reverse=True)
    '_l1_reverse'
    """
    return f"_l{layer}" + ("_reverse" if reverse else "")


def to_keras_recurrent(kind: str, slots: Mapping[str, Array], *, two_biases: bool) -> Arrays:
    """Return Keras' variables of one direction of one layer.

    Args:
        kind: Keras layer class.
        slots: PyTorch's arrays.
        two_biases: Whether Keras keeps two rows of biases: a GRU with `reset_after`.

    Raises:
        ConversionError: If the class is unknown, or arrays are missing, unknown or do not fit.
    """
    order = _gate_order(kind, two_biases=two_biases)
    _check_names(kind, slots, _SLOTS, optional=("bias_ih", "bias_hh"))
    reordered = {name: _reorder(kind, name, array, order, axis=0) for name, array in slots.items()}
    variables = {
        "kernel": np.ascontiguousarray(reordered["weight_ih"].T),
        "recurrent_kernel": np.ascontiguousarray(reordered["weight_hh"].T),
    }
    if "bias_ih" in reordered:
        biases = [reordered["bias_ih"], reordered["bias_hh"]]
        variables["bias"] = np.stack(biases) if two_biases else biases[0] + biases[1]
    return variables


def to_torch_recurrent(kind: str, variables: Mapping[str, Array], *, two_biases: bool) -> Arrays:
    """Return PyTorch's arrays; a bias of one row becomes `bias_ih`, and `bias_hh` zeros.

    Raises:
        ConversionError: As `to_keras_recurrent`.
    """
    slots = _split_variables(kind, variables, two_biases=two_biases)
    if "bias_ih" in slots and not two_biases:
        slots["bias_hh"] = np.zeros_like(slots["bias_hh"])
    return slots


def to_torch_recurrent_gradients(
    kind: str, variables: Mapping[str, Array], *, two_biases: bool
) -> Arrays:
    """Return the gradients of PyTorch's arrays, given those of Keras' variables.

    A bias of one row is a sum, so its gradient is that of both summands.

    Raises:
        ConversionError: As `to_keras_recurrent`.
    """
    return _split_variables(kind, variables, two_biases=two_biases)


def describe_merge(kind: str, slots: Mapping[str, Array], *, two_biases: bool) -> str | None:
    """Return what `to_keras_recurrent` does not keep of PyTorch's arrays, or None if it keeps all.

    >>> zeros, ones = np.zeros(2), np.ones(2)
    >>> describe_merge("LSTM", {"bias_ih": ones, "bias_hh": zeros}, two_biases=False) is None
    True
    >>> print(describe_merge("LSTM", {"bias_ih": ones, "bias_hh": ones}, two_biases=False))
    LSTM: bias_ih and bias_hh were added to one bias; back in PyTorch, bias_hh is zeros.
    """
    _gate_order(kind, two_biases=two_biases)
    if two_biases or not np.any(slots.get("bias_hh", 0)):
        return None
    return f"{kind}: bias_ih and bias_hh were added to one bias; back in PyTorch, bias_hh is zeros."


def _split_variables(kind: str, variables: Mapping[str, Array], *, two_biases: bool) -> Arrays:
    """Return the arrays in PyTorch's layout, a bias of one row in both places."""
    order = _gate_order(kind, two_biases=two_biases)
    _check_names(kind, variables, _VARIABLES, optional=("bias",))
    inverse = tuple(int(place) for place in np.argsort(order))
    reordered = {
        name: _reorder(kind, name, array, inverse, axis=-1) for name, array in variables.items()
    }
    slots = {
        "weight_ih": np.ascontiguousarray(reordered["kernel"].T),
        "weight_hh": np.ascontiguousarray(reordered["recurrent_kernel"].T),
    }
    if "bias" in reordered:
        bias = reordered["bias"]
        expected = (2, *bias.shape[1:]) if two_biases else bias.shape[-1:]
        if bias.shape != expected:
            rows = "two rows" if two_biases else "one row"
            message = f"{kind}.bias: expected {rows} of biases; got shape {bias.shape}."
            raise ConversionError(message)
        slots["bias_ih"], slots["bias_hh"] = bias if two_biases else (bias, bias.copy())
    return {name: np.array(array, order="C", copy=True) for name, array in slots.items()}


def _gate_order(kind: str, *, two_biases: bool) -> tuple[int, ...]:
    if kind not in GATE_ORDERS:
        message = (
            f"Keras layer class {kind!r} has no known gates.{describe_nearest(kind, GATE_ORDERS)}"
        )
        raise ConversionError(message)
    if two_biases and kind != "GRU":
        message = f"{kind}: expected one row of biases; two rows are a GRU's with reset_after."
        raise ConversionError(message)
    return GATE_ORDERS[kind]


def _check_names(
    kind: str, arrays: Mapping[str, Array], known: tuple[str, ...], *, optional: tuple[str, ...]
) -> None:
    required = tuple(name for name in known if name not in optional)
    if set(arrays) not in ({*required}, {*known}):
        message = (
            f"{kind}: expected arrays {', '.join(required)} and, all or none, "
            f"{', '.join(optional)}; got {', '.join(arrays)}."
        )
        raise ConversionError(message)


def _reorder(kind: str, name: str, array: Array, order: tuple[int, ...], *, axis: int) -> Array:
    if array.ndim not in (1, 2) or array.shape[axis] % len(order):
        message = (
            f"{kind}.{name}: expected 1 or 2 axes and a multiple of {len(order)} gates; "
            f"got shape {array.shape}."
        )
        raise ConversionError(message)
    gates = np.split(array, len(order), axis=axis)
    return np.concatenate([gates[place] for place in order], axis=axis)
