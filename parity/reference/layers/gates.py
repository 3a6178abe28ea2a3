"""What the recurrent layers share: activations, and the products that feed a step's gates."""

from collections.abc import Callable
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from parity.errors import SpecError, describe_nearest
from parity.reference.layers.arrays import Array, widen

Activation = Literal["tanh", "relu", "linear"]
RecurrentActivation = Literal["sigmoid", "hard_sigmoid", "hard_sigmoid_keras2"]
Function = Callable[[Array], Array]


def _sigmoid(inputs: Array) -> Array:
    return 0.5 * (1.0 + np.tanh(0.5 * inputs))


def _hard_sigmoid(slope: float) -> tuple[Function, Function]:
    def function(inputs: Array) -> Array:
        return np.clip(slope * inputs + 0.5, 0.0, 1.0)

    def derivative(inputs: Array) -> Array:
        return np.where(np.abs(slope * inputs) < 0.5, slope, 0.0)

    return function, derivative


# Name -> the function and its derivative, both of what it is applied to.
_ACTIVATIONS: dict[str, tuple[Function, Function]] = {
    "tanh": (np.tanh, lambda inputs: 1.0 - np.tanh(inputs) ** 2),
    "relu": (lambda inputs: np.maximum(inputs, 0.0), lambda inputs: np.where(inputs > 0, 1.0, 0.0)),
    "linear": (lambda inputs: inputs, np.ones_like),
}
_GATE_ACTIVATIONS: dict[str, tuple[Function, Function]] = {
    "sigmoid": (_sigmoid, lambda inputs: _sigmoid(inputs) * _sigmoid(-inputs)),
    # torch.nn.Hardsigmoid and Keras 3 agree; Keras 2 had the slope 1/5.
    "hard_sigmoid": _hard_sigmoid(1.0 / 6.0),
    "hard_sigmoid_keras2": _hard_sigmoid(0.2),
}


def activation_pair(name: str) -> tuple[Function, Function]:
    """Return the activation of a candidate or output, and its derivative.

    Raises:
        SpecError: If the name is unknown.
    """
    return _pair("activation", name, _ACTIVATIONS)


def gate_pair(name: str) -> tuple[Function, Function]:
    """Return the activation of the gates, and its derivative.

    Raises:
        SpecError: If the name is unknown.
    """
    return _pair("recurrent_activation", name, _GATE_ACTIVATIONS)


def _pair(
    what: str, name: str, table: dict[str, tuple[Function, Function]]
) -> tuple[Function, Function]:
    if name not in table:
        message = f"{what} {name!r} not found.{describe_nearest(str(name), table)}"
        raise SpecError(message)
    return table[name]


class GateWeights:
    """The affine maps from a step's inputs and from the state before it to its gates.

    Attributes:
        units: Size `u` of the state.
        ih: `weight_ih`, `(gates * u, f)`.
        hh: `weight_hh`, `(gates * u, u)`.
        b_ih: `bias_ih`, zeros where there is none.
        b_hh: `bias_hh`, zeros where there is none.
    """

    def __init__(
        self,
        gates: int,
        inputs: ArrayLike,
        hidden: ArrayLike,
        weight_ih: ArrayLike,
        weight_hh: ArrayLike,
        bias_ih: ArrayLike | None,
        bias_hh: ArrayLike | None,
    ) -> None:
        self.ih, self.hh = widen(weight_ih), widen(weight_hh)
        rows = self.hh.shape[0]
        self.units = rows // gates
        self.b_ih = np.zeros(rows) if bias_ih is None else widen(bias_ih)
        self.b_hh = np.zeros(rows) if bias_hh is None else widen(bias_hh)
        shape = widen(inputs).shape
        features = shape[-1] if len(shape) == 3 else -1
        expected = {
            "hidden": (shape[0], self.units),
            "weight_ih": (gates * self.units, features),
            "weight_hh": (gates * self.units, self.units),
            "bias_ih": (rows,),
            "bias_hh": (rows,),
        }
        arrays = [widen(hidden), self.ih, self.hh, self.b_ih, self.b_hh]
        came = {name: array.shape for name, array in zip(expected, arrays, strict=True)}
        if len(shape) != 3 or 0 in shape or came != expected:
            message = (
                f"recurrent layer: expected inputs (n, t, f), none of them 0, and for inputs "
                f"{shape} of {gates} gates {expected}; got {came}."
            )
            raise SpecError(message)

    def project(self, inputs: ArrayLike) -> Array:
        """Return the inputs' part of every step's gates, `(n, t, gates * u)`."""
        projected: Array = widen(inputs) @ self.ih.T + self.b_ih
        return projected

    def recur(self, state: Array) -> Array:
        """Return the state's part of the gates, `(..., gates * u)`."""
        recurred: Array = state @ self.hh.T + self.b_hh
        return recurred

    def pull_back(
        self, inputs: ArrayLike, before: Array, d_projected: Array, d_recurred: Array
    ) -> tuple[Array, Array, Array, Array, Array]:
        """Return the gradients of inputs, `weight_ih`, `weight_hh`, `bias_ih` and `bias_hh`.

        Args:
            inputs: `(n, t, f)`.
            before: The state before each step, `(n, t, u)`.
            d_projected: Gradient of `project(inputs)`.
            d_recurred: Gradient of `recur(before)`.
        """
        return (
            d_projected @ self.ih,
            np.einsum("ntg,ntf->gf", d_projected, widen(inputs)),
            np.einsum("ntg,ntu->gu", d_recurred, before),
            d_projected.sum(axis=(0, 1)),
            d_recurred.sum(axis=(0, 1)),
        )


def check_state(state: ArrayLike, *, like: ArrayLike) -> Array:
    """Return a state in float64.

    Raises:
        SpecError: If it has another shape than the hidden state.
    """
    widened, shape = widen(state), widen(like).shape
    if widened.shape != shape:
        message = f"recurrent layer: expected a cell {shape}, like the state; got {widened.shape}."
        raise SpecError(message)
    return widened


def states_before(first: ArrayLike, states: Array) -> Array:
    """Return the state before each step, given the one before the first and that after each."""
    return np.concatenate([widen(first)[:, np.newaxis], states[:, :-1]], axis=1)
