"""The gated recurrent unit over time in one direction, forward and backward.

Arrays are as in `parity.reference.layers.recurrent`; the gates are stacked in PyTorch's order, `r z
n`.
"""

import numpy as np
from numpy.typing import ArrayLike

from parity.reference.layers.arrays import Array, widen
from parity.reference.layers.gates import (
    Activation,
    Function,
    GateWeights,
    RecurrentActivation,
    activation_pair,
    gate_pair,
    states_before,
)
from parity.reference.layers.recurrent import SimpleGradients


def gru(
    inputs: ArrayLike,
    hidden: ArrayLike,
    weight_ih: ArrayLike,
    weight_hh: ArrayLike,
    bias_ih: ArrayLike | None,
    bias_hh: ArrayLike | None,
    *,
    activation: Activation,
    recurrent_activation: RecurrentActivation,
    reset_after: bool,
) -> Array:
    """Return the state after every step, `(n, t, u)`.

    With `r z = s(W_ih x_t + b_ih + W_hh h_(t-1) + b_hh)` by gate: `h_t = (1 - z) n + z h_(t-1)`,
    where `n = activation(W_in x_t + b_in + r (W_hn h_(t-1) + b_hn))` if `reset_after`, else `n =
    activation(W_in x_t + b_in + W_hn (r h_(t-1)) + b_hn)` (Cho et al. 2014).

    Args:
        inputs: `(n, t, f)`.
        hidden: `h_0`, `(n, u)`.
        weight_ih: `(3 u, f)`, gates `r z n`. Keras stacks `z r h`.
        weight_hh: `(3 u, u)`.
        bias_ih: `(3 u,)`, or None.
        bias_hh: `(3 u,)`, or None.
        activation: Of the candidate; torch has `tanh` only.
        recurrent_activation: `s`, of the gates, as in `lstm`; torch has `sigmoid` only.
        reset_after: Whether the reset gate multiplies behind the matrix, bias included; torch
            always does, Keras by default.

    Raises:
        SpecError: If shapes do not fit or an activation is unknown.

    Source: torch 2.13.0, nn.GRU; keras 3.15.1, GRUCell.call, whose bias is `(2, 3 u)` if
        `reset_after` and else the sum of both.
    """
    weights = GateWeights(3, inputs, hidden, weight_ih, weight_hh, bias_ih, bias_hh)
    act, _ = activation_pair(activation)
    gate, _ = gate_pair(recurrent_activation)
    state, states = widen(hidden), []
    for projected in np.moveaxis(weights.project(inputs), 1, 0):
        _, update, new, _ = _gru_gates(
            weights, projected, state, gate=gate, reset_after=reset_after
        )
        state = (1.0 - gate(update)) * act(new) + gate(update) * state
        states.append(state)
    return np.stack(states, axis=1)


def gru_backward(
    d_hiddens: ArrayLike,
    inputs: ArrayLike,
    hidden: ArrayLike,
    weight_ih: ArrayLike,
    weight_hh: ArrayLike,
    bias_ih: ArrayLike | None,
    bias_hh: ArrayLike | None,
    *,
    activation: Activation,
    recurrent_activation: RecurrentActivation,
    reset_after: bool,
) -> SimpleGradients:
    """Return the gradients of `gru`: of inputs, `h_0`, both weights and both biases.

    With `a` what an activation is applied to: `d_a_n = dh (1 - z) activation'(a_n)`, `d_a_z = dh
    (h_(t-1) - n) s'(a_z)`, `d_a_r = s'(a_r)` times the gradient of `r`: `d_a_n (W_hn h_(t-1) +
    b_hn)` if `reset_after`, else `(W_hn^T d_a_n) h_(t-1)`. `dh_(t-1)` gains `z dh` and what each
    product with `W_hh` hands back.
    """
    arguments = (inputs, hidden, weight_ih, weight_hh, bias_ih, bias_hh)
    weights = GateWeights(3, *arguments)
    act, act_slope = activation_pair(activation)
    gate, gate_slope = gate_pair(recurrent_activation)
    before = states_before(
        hidden,
        gru(
            *arguments,
            activation=activation,
            recurrent_activation=recurrent_activation,
            reset_after=reset_after,
        ),
    )
    inputs_part = weights.project(inputs)
    reset, update, new, gated = _gru_gates(
        weights, inputs_part, before, gate=gate, reset_after=reset_after
    )
    to_new = (1.0 - gate(update)) * act_slope(new)
    to_update = (before - act(new)) * gate_slope(update)
    to_reset, reset, update = gated * gate_slope(reset), gate(reset), gate(update)
    of_both, of_new = np.split(weights.hh, [2 * weights.units])
    d_hiddens, d_state = widen(d_hiddens), np.zeros_like(before[:, 0])
    d_gates = np.zeros_like(inputs_part)
    for t in reversed(range(before.shape[1])):
        d_state = d_state + d_hiddens[:, t]
        d_new = d_state * to_new[:, t]
        # The product with W_hn stands before the reset gate, or behind it.
        d_product = d_new if reset_after else d_new @ of_new
        d_both = [d_product * to_reset[:, t], d_state * to_update[:, t]]
        d_gates[:, t] = np.concatenate([*d_both, d_new], axis=-1)
        d_gated = d_product * reset[:, t]
        d_state = d_state * update[:, t] + d_gates[:, t, : 2 * weights.units] @ of_both
        d_state = d_state + (d_gated @ of_new if reset_after else d_gated)
    gradients = _gru_pull_back(weights, inputs, before, d_gates, reset, reset_after=reset_after)
    return gradients[0], d_state, *gradients[1:]


def _gru_gates(
    weights: GateWeights,
    inputs_part: Array,
    state: Array,
    *,
    gate: Function,
    reset_after: bool,
) -> tuple[Array, Array, Array, Array]:
    """Return what the activations of `r z n` are applied to, and what the reset gate multiplies."""
    x_reset, x_update, x_new = np.split(inputs_part, 3, axis=-1)
    if reset_after:
        h_reset, h_update, gated = np.split(weights.recur(state), 3, axis=-1)
        return (
            x_reset + h_reset,
            x_update + h_update,
            x_new + gate(x_reset + h_reset) * gated,
            gated,
        )
    of_both, of_new = np.split(weights.hh, [2 * weights.units])
    b_both, b_new = np.split(weights.b_hh, [2 * weights.units])
    h_reset, h_update = np.split(state @ of_both.T + b_both, 2, axis=-1)
    reset = x_reset + h_reset
    new = x_new + (gate(reset) * state) @ of_new.T + b_new
    return reset, x_update + h_update, new, state


def _gru_pull_back(
    weights: GateWeights,
    inputs: ArrayLike,
    before: Array,
    d_gates: Array,
    reset: Array,
    *,
    reset_after: bool,
) -> tuple[Array, Array, Array, Array, Array]:
    d_new, d_products = d_gates[..., 2 * weights.units :], d_gates.copy()
    if reset_after:
        d_products[..., 2 * weights.units :] = d_new * reset
    gradients = weights.pull_back(inputs, before, d_gates, d_products)
    if not reset_after:
        d_weight_hh = gradients[2]
        d_weight_hh[2 * weights.units :] = np.einsum("ntg,ntu->gu", d_new, reset * before)
    return gradients
