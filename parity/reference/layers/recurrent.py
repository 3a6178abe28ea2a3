"""Recurrence over time in one direction, forward and backward: the simple one and the LSTM.

Inputs are `(n, t, f)`, states `(n, u)`. Weights are PyTorch's: the gates of a layer are stacked in
its order, `i f g o` of an LSTM and `r z n` of a GRU, and there is a bias of the inputs and one of
the states; Keras' order and its single bias are a matter of `conversion.recurrent_layouts`. The
gates of every step follow from the states, so backward only the chain through the states is walked
step by step (Werbos 1990, backpropagation through time).
"""

import numpy as np
from numpy.typing import ArrayLike

from parity.reference.layers.arrays import Array, widen
from parity.reference.layers.gates import (
    Activation,
    GateWeights,
    RecurrentActivation,
    activation_pair,
    check_state,
    gate_pair,
    states_before,
)

# Of inputs, h_0, weight_ih, weight_hh, bias_ih, bias_hh.
SimpleGradients = tuple[Array, Array, Array, Array, Array, Array]
# Of inputs, h_0, c_0, weight_ih, weight_hh, bias_ih, bias_hh.
LstmGradients = tuple[Array, Array, Array, Array, Array, Array, Array]


def simple_rnn(
    inputs: ArrayLike,
    hidden: ArrayLike,
    weight_ih: ArrayLike,
    weight_hh: ArrayLike,
    bias_ih: ArrayLike | None,
    bias_hh: ArrayLike | None,
    *,
    activation: Activation,
) -> Array:
    """Return the state after every step, `(n, t, u)`.

    `h_t = activation(W_ih x_t + b_ih + W_hh h_(t-1) + b_hh)` (Elman 1990).

    Args:
        inputs: `(n, t, f)`.
        hidden: `h_0`, `(n, u)`.
        weight_ih: `(u, f)`.
        weight_hh: `(u, u)`.
        bias_ih: `(u,)`, or None.
        bias_hh: `(u,)`, or None.
        activation: `tanh` in either framework's default; torch also has `relu`.

    Raises:
        SpecError: If shapes do not fit or the activation is unknown.

    Source: torch 2.13.0, nn.RNN; keras 3.15.1, SimpleRNNCell.call, whose one bias is `b_ih + b_hh`.
    """
    weights = GateWeights(1, inputs, hidden, weight_ih, weight_hh, bias_ih, bias_hh)
    function, _ = activation_pair(activation)
    state, states = widen(hidden), []
    for projected in np.moveaxis(weights.project(inputs), 1, 0):
        state = function(projected + weights.recur(state))
        states.append(state)
    return np.stack(states, axis=1)


def simple_rnn_backward(
    d_hiddens: ArrayLike,
    inputs: ArrayLike,
    hidden: ArrayLike,
    weight_ih: ArrayLike,
    weight_hh: ArrayLike,
    bias_ih: ArrayLike | None,
    bias_hh: ArrayLike | None,
    *,
    activation: Activation,
) -> SimpleGradients:
    """Return the gradients of `simple_rnn`: of inputs, `h_0`, both weights and both biases.

    With `a_t` what the activation is applied to: `d_a_t = activation'(a_t) (dh_t + W_hh^T
    d_a_(t+1))`; the rest follows from `a_t = W_ih x_t + W_hh h_(t-1) + b_ih + b_hh`.
    """
    arguments = (inputs, hidden, weight_ih, weight_hh, bias_ih, bias_hh)
    weights = GateWeights(1, *arguments)
    _, derivative = activation_pair(activation)
    before = states_before(hidden, simple_rnn(*arguments, activation=activation))
    slopes = derivative(weights.project(inputs) + weights.recur(before))
    d_state, d_gates = np.zeros_like(before[:, 0]), np.zeros_like(slopes)
    d_hiddens = widen(d_hiddens)
    for t in reversed(range(before.shape[1])):
        d_gates[:, t] = slopes[:, t] * (d_hiddens[:, t] + d_state)
        d_state = d_gates[:, t] @ weights.hh
    gradients = weights.pull_back(inputs, before, d_gates, d_gates)
    return gradients[0], d_state, *gradients[1:]


def lstm(
    inputs: ArrayLike,
    hidden: ArrayLike,
    cell: ArrayLike,
    weight_ih: ArrayLike,
    weight_hh: ArrayLike,
    bias_ih: ArrayLike | None,
    bias_hh: ArrayLike | None,
    *,
    activation: Activation,
    recurrent_activation: RecurrentActivation,
) -> tuple[Array, Array]:
    """Return the hidden state and the cell after every step, `(n, t, u)` each.

    With `i f o = s(gates)`, `g = activation(gate)` and gates `W_ih x_t + b_ih + W_hh h_(t-1) +
    b_hh`: `c_t = f c_(t-1) + i g` and `h_t = o activation(c_t)` (Gers et al. 2000).

    Args:
        inputs: `(n, t, f)`.
        hidden: `h_0`, `(n, u)`.
        cell: `c_0`, `(n, u)`.
        weight_ih: `(4 u, f)`, gates `i f g o`. Keras' order is the same; it calls `g` `c`.
        weight_hh: `(4 u, u)`.
        bias_ih: `(4 u,)`, or None.
        bias_hh: `(4 u,)`, or None.
        activation: Of candidate and output; torch has `tanh` only.
        recurrent_activation: `s`, of the gates; torch has `sigmoid` only. `hard_sigmoid` is
            `clip(x / 6 + 1/2, 0, 1)`, `hard_sigmoid_keras2` `clip(x / 5 + 1/2, 0, 1)`.

    Raises:
        SpecError: If shapes do not fit or an activation is unknown.

    Source: torch 2.13.0, nn.LSTM; keras 3.15.1, LSTMCell.call, whose one bias is `b_ih + b_hh`.
    """
    weights = GateWeights(4, inputs, hidden, weight_ih, weight_hh, bias_ih, bias_hh)
    act, _ = activation_pair(activation)
    gate, _ = gate_pair(recurrent_activation)
    state, kept = widen(hidden), check_state(cell, like=hidden)
    states, cells = [], []
    for projected in np.moveaxis(weights.project(inputs), 1, 0):
        i, f, g, o = np.split(projected + weights.recur(state), 4, axis=-1)
        kept = gate(f) * kept + gate(i) * act(g)
        state = gate(o) * act(kept)
        states.append(state)
        cells.append(kept)
    return np.stack(states, axis=1), np.stack(cells, axis=1)


def lstm_backward(
    d_hiddens: ArrayLike,
    d_cells: ArrayLike,
    inputs: ArrayLike,
    hidden: ArrayLike,
    cell: ArrayLike,
    weight_ih: ArrayLike,
    weight_hh: ArrayLike,
    bias_ih: ArrayLike | None,
    bias_hh: ArrayLike | None,
    *,
    activation: Activation,
    recurrent_activation: RecurrentActivation,
) -> LstmGradients:
    """Return the gradients of `lstm`: of inputs, `h_0`, `c_0`, both weights and both biases.

    `d_c_t = dc_t + f_(t+1) d_c_(t+1) + dh_t o activation'(c_t)`; each gate's gradient is its own
    slope times what it is multiplied with: `i: d_c g`, `f: d_c c_(t-1)`, `g: d_c i`, `o: dh
    activation(c)`; and `dh_(t-1)` gains `W_hh^T` of them.
    """
    arguments = (weight_ih, weight_hh, bias_ih, bias_hh)
    weights = GateWeights(4, inputs, hidden, *arguments)
    act, act_slope = activation_pair(activation)
    gate, gate_slope = gate_pair(recurrent_activation)
    hiddens, cells = lstm(
        inputs, hidden, cell, *arguments,
        activation=activation, recurrent_activation=recurrent_activation,
    )  # fmt: skip
    before, cells_before = states_before(hidden, hiddens), states_before(cell, cells)
    gates = weights.project(inputs) + weights.recur(before)
    i, f, g, o = np.split(gates, 4, axis=-1)
    # What the gradient of the cell, or of the state, is multiplied with on its way to each gate.
    of_cell = [gate_slope(i) * act(g), gate_slope(f) * cells_before, gate(i) * act_slope(g)]
    to_cell, of_state = gate(o) * act_slope(cells), gate_slope(o) * act(cells)
    d_hiddens, d_cells, d_gates = widen(d_hiddens), widen(d_cells), np.zeros_like(gates)
    d_state, d_cell = np.zeros_like(before[:, 0]), np.zeros_like(before[:, 0])
    for t in reversed(range(before.shape[1])):
        d_state = d_state + d_hiddens[:, t]
        d_cell = d_cell + d_cells[:, t] + d_state * to_cell[:, t]
        parts = [*(d_cell * factor[:, t] for factor in of_cell), d_state * of_state[:, t]]
        d_gates[:, t] = np.concatenate(parts, axis=-1)
        d_state, d_cell = d_gates[:, t] @ weights.hh, d_cell * gate(f[:, t])
    gradients = weights.pull_back(inputs, before, d_gates, d_gates)
    return gradients[0], d_state, d_cell, *gradients[1:]


def lstm_initial_bias(units: int, *, unit_forget_bias: bool) -> Array:
    """Return the bias that Keras starts an LSTM with, `(4 u,)`: zeros, or 1 for the forget gate.

    Torch instead draws both biases uniformly from `+-1 / sqrt(u)`.

    >>> lstm_initial_bias(2, unit_forget_bias=True)
    array([0., 0., 1., 1., 0., 0., 0., 0.])

    Source: keras 3.15.1, LSTMCell.build (Jozefowicz et al. 2015); torch 2.13.0, RNNBase.
    """
    bias = np.zeros(4 * units)
    bias[units : 2 * units] = 1.0 if unit_forget_bias else 0.0
    return bias
