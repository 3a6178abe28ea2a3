"""The reference's recurrent layers against torch, autograd, differences and by hand."""

import itertools

import numpy as np
import pytest
import torch

from parity.errors import DivergenceError, SpecError
from parity.reference import layers
from parity.reference.layers import Recurrence
from parity.testing.assertions import assert_close, assert_identical
from parity.testing.faults import seed_array_fault

TIGHT = {"atol": 1e-12, "rtol": 1e-12}
CLASSES = {"simple_rnn": torch.nn.RNN, "lstm": torch.nn.LSTM, "gru": torch.nn.GRU}
GATES = {"simple_rnn": 1, "lstm": 4, "gru": 3}


def recurrence(cell, **changes):
    how = {
        "cell": cell,
        "layers": 2,
        "direction": "both",
        "merge": "concat",
        "returned": "sequence",
        "backward_order": "time",
        "batch_first": True,
        "activation": "tanh",
        "recurrent_activation": None if cell == "simple_rnn" else "sigmoid",
        "reset_after": True if cell == "gru" else None,
    }
    return Recurrence(**how | changes)


def arrays_of(how, *, batch=2, time=3, features=3, units=2, seed=0):
    """Return inputs, first states, first cells or None, and weights by torch's names."""
    draw = np.random.default_rng(seed).standard_normal
    rows, gates = how.layers * len(how.reverses), GATES[how.cell] * units
    state = draw((rows, batch, units))
    cell = draw((rows, batch, units)) if how.cell == "lstm" else None
    merged = units * (2 if how.direction == "both" and how.merge == "concat" else 1)
    weights = {}
    for layer, index in itertools.product(range(how.layers), range(len(how.reverses))):
        suffix = f"_l{layer}" + ("_reverse" if index else "")
        weights[f"weight_ih{suffix}"] = draw((gates, merged if layer else features))
        weights[f"weight_hh{suffix}"] = draw((gates, units))
        weights[f"bias_ih{suffix}"], weights[f"bias_hh{suffix}"] = draw((2, gates))
    size = (batch, time) if how.batch_first else (time, batch)
    return draw((*size, features)), state, cell, weights


def leaf(array):
    return torch.tensor(array, requires_grad=True)


@pytest.mark.parametrize("cell", CLASSES)
@pytest.mark.parametrize("direction", ["forward", "both"])
@pytest.mark.parametrize("layers_", [1, 3])
@pytest.mark.parametrize("batch_first", [True, False])
def test_recurrent_and_its_gradients_match_torch(cell, direction, layers_, batch_first):
    how = recurrence(cell, direction=direction, layers=layers_, batch_first=batch_first)
    inputs, hidden, first_cell, weights = arrays_of(how)
    module = CLASSES[cell](
        3, 2, layers_, batch_first=batch_first, bidirectional=direction == "both"
    ).double()
    module.load_state_dict({name: torch.tensor(array) for name, array in weights.items()})
    leaves = [leaf(array) for array in (inputs, hidden, first_cell) if array is not None]
    outputs, last = module(leaves[0], tuple(leaves[1:]) if cell == "lstm" else leaves[1])
    parts = [outputs, *(last if cell == "lstm" else (last,))]
    draw = np.random.default_rng(1).standard_normal
    d_parts = [draw(part.shape) for part in parts]
    torch.autograd.backward(parts, [torch.tensor(d_part) for d_part in d_parts])

    actual = layers.recurrent(inputs, hidden, first_cell, weights, how=how)
    d_states = d_parts if cell == "lstm" else [*d_parts, None]
    gradients = layers.recurrent_backward(*d_states, inputs, hidden, first_cell, weights, how=how)

    for one, other in zip(actual, parts, strict=False):
        assert_close(one, other.detach(), **TIGHT)
    for one, other in zip(gradients[:3], leaves, strict=False):
        assert_close(one, other.grad, **TIGHT)
    for name, parameter in module.named_parameters():
        assert_close(gradients[3][name], parameter.grad, **TIGHT, where=name)


def numerical_gradient(loss, array, *, step=1e-6):
    gradient = np.zeros_like(array)
    for index in np.ndindex(array.shape):
        nudge = np.zeros_like(array)
        nudge[index] = step
        gradient[index] = (loss(array + nudge) - loss(array - nudge)) / (2 * step)
    return gradient


# What torch's layers cannot be, each knob at least once.
FORMS = [
    recurrence("gru", reset_after=False),
    recurrence("gru", reset_after=False, recurrent_activation="hard_sigmoid", merge="average"),
    recurrence("gru", activation="linear", recurrent_activation="hard_sigmoid_keras2"),
    recurrence("lstm", activation="relu", merge="product", returned="final"),
    recurrence("lstm", recurrent_activation="hard_sigmoid", returned="last_step"),
    recurrence("lstm", direction="backward", backward_order="processing", batch_first=False),
    recurrence("simple_rnn", direction="backward", returned="last_step", activation="relu"),
    recurrence("simple_rnn", merge="sum", activation="linear"),
]


@pytest.mark.parametrize(
    "how", FORMS, ids=lambda how: f"{how.cell}-{how.merge}-{how.returned}-{how.activation}"
)
def test_recurrent_gradients_match_differences(how):
    inputs, hidden, cell, weights = arrays_of(how, time=2)
    parts = layers.recurrent(inputs, hidden, cell, weights, how=how)
    draw = np.random.default_rng(2).standard_normal
    d_parts = [None if part is None else draw(part.shape) for part in parts]

    def loss(inputs=inputs, hidden=hidden, cell=cell, **changed):
        parts = layers.recurrent(inputs, hidden, cell, weights | changed, how=how)
        pairs = zip(parts, d_parts, strict=True)
        return sum((part * d_part).sum() for part, d_part in pairs if part is not None)

    d_inputs, d_hidden, d_cell, d_weights = layers.recurrent_backward(
        *d_parts, inputs, hidden, cell, weights, how=how
    )

    near = {"atol": 1e-7, "rtol": 1e-7}
    assert_close(d_inputs, numerical_gradient(lambda x: loss(inputs=x), inputs), **near)
    assert_close(d_hidden, numerical_gradient(lambda x: loss(hidden=x), hidden), **near)
    if cell is not None:
        assert_close(d_cell, numerical_gradient(lambda x: loss(cell=x), cell), **near)
    for name, array in weights.items():
        expected = numerical_gradient(lambda x, name=name: loss(**{name: x}), array)
        assert_close(d_weights[name], expected, **near, where=name)


def test_gru_is_hand_computed_with_the_reset_gate_on_either_side():
    arguments = {
        "inputs": np.zeros((1, 1, 1)),
        "hidden": np.ones((1, 1)),
        "weight_ih": np.zeros((3, 1)),
        "weight_hh": np.array([[0.0], [0.0], [2.0]]),
        "bias_ih": None,
        "bias_hh": np.array([0.0, 0.0, 1.0]),
        "activation": "linear",
        "recurrent_activation": "sigmoid",
    }

    after = layers.gru(**arguments, reset_after=True)
    before = layers.gru(**arguments, reset_after=False)

    # r = z = 1/2: n = 1/2 (2 + 1), or 2 (1/2) + 1; h = n / 2 + 1 / 2.
    assert_close(after, [[[1.25]]], atol=1e-15, rtol=0.0)
    assert_close(before, [[[1.5]]], atol=1e-15, rtol=0.0)


@pytest.mark.parametrize(
    ("returned", "expected"),
    [("sequence", [[1.0, 7.0], [3.0, 6.0], [7.0, 4.0]]), ("last_step", [7.0, 4.0]),
     ("final", [7.0, 7.0])],
)  # fmt: skip
def test_both_directions_return_their_own_sums(returned, expected):
    # A linear recurrence with weights of 1 adds up what it has seen.
    how = recurrence("simple_rnn", layers=1, activation="linear", returned=returned)
    weights = {
        f"weight_{part}_l0{side}": np.ones((1, 1))
        for part in ("ih", "hh")
        for side in ("", "_reverse")
    }
    inputs = np.array([[[1.0], [2.0], [4.0]]])

    outputs, hidden, _ = layers.recurrent(inputs, np.zeros((2, 1, 1)), None, weights, how=how)

    assert_identical(outputs[0], np.array(expected))
    assert_identical(hidden, np.full((2, 1, 1), 7.0))


@pytest.mark.parametrize(
    ("order", "expected"), [("time", [7.0, 6.0, 4.0]), ("processing", [4.0, 6.0, 7.0])]
)
def test_backward_direction_returns_either_order(order, expected):
    how = recurrence(
        "simple_rnn",
        layers=1,
        activation="linear",
        direction="backward",
        backward_order=order,
    )
    weights = {"weight_ih_l0": np.ones((1, 1)), "weight_hh_l0": np.ones((1, 1))}
    inputs = np.array([[[1.0], [2.0], [4.0]]])

    outputs, _, _ = layers.recurrent(inputs, np.zeros((1, 1, 1)), None, weights, how=how)

    assert_identical(outputs.ravel(), np.array(expected))


@pytest.mark.parametrize("unit_forget_bias", [True, False])
def test_initial_bias_of_an_lstm_opens_the_forget_gate_or_none(unit_forget_bias):
    bias = layers.lstm_initial_bias(2, unit_forget_bias=unit_forget_bias)

    assert_identical(bias, np.array([0, 0, 1, 1, 0, 0, 0, 0]) * float(unit_forget_bias))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"direction": "up"}, r"direction must be one of forward, backward, both; got 'up'"),
        ({"layers": 0}, r"layers must be >= 1; got 0"),
        ({"merge": "max"}, r"merge must be one of"),
        ({"reset_after": True}, r"reset_after belongs to gru"),
        ({"recurrent_activation": None}, r"recurrent_activation belongs to lstm and gru"),
        ({"activation": "tahn"}, r"activation 'tahn' not found. Nearest: tanh"),
        ({"recurrent_activation": "tanh"}, r"recurrent_activation 'tanh' not found"),
    ],
)
def test_recurrence_refuses_impossible_values(change, message):
    with pytest.raises(SpecError, match=message):
        recurrence("lstm", **change)


def test_recurrent_refuses_arrays_that_do_not_fit():
    how = recurrence("lstm")
    inputs, hidden, cell, weights = arrays_of(how)
    short = {name: array for name, array in weights.items() if name != "weight_hh_l1"}
    wide = weights | {"weight_ih_l0": np.ones((8, 4))}

    with pytest.raises(SpecError, match=r"expected weights weight_hh_l1"):
        layers.recurrent(inputs, hidden, cell, short, how=how)
    with pytest.raises(SpecError, match=r"'weight_ih': \(8, 4\)"):
        layers.recurrent(inputs, hidden, cell, wide, how=how)
    with pytest.raises(SpecError, match=r"expected states \(4, n, u\); got \(3, 2, 2\)"):
        layers.recurrent(inputs, hidden[:3], cell, weights, how=how)
    with pytest.raises(SpecError, match=r"a cell belongs to an LSTM"):
        layers.recurrent(inputs, hidden, None, weights, how=how)
    with pytest.raises(SpecError, match=r"expected a cell \(2, 2\), like the state; got \(1, 2\)"):
        layers.recurrent(inputs, hidden, cell[:, :1], weights, how=how)
    with pytest.raises(SpecError, match=r"expected a sequence of 3 axes"):
        layers.recurrent(inputs[0], hidden, cell, weights, how=how)


@pytest.mark.parametrize("cell", CLASSES)
@pytest.mark.parametrize("fault", ["element_bumped", "channels_swapped", "through_float16"])
def test_recurrent_check_catches_faults_in_the_weights(cell, fault):
    how = recurrence(cell)
    inputs, hidden, first_cell, weights = arrays_of(how)
    expected = layers.recurrent(inputs, hidden, first_cell, weights, how=how)[0]
    faulty = weights | {"weight_hh_l0": seed_array_fault(fault, weights["weight_hh_l0"])}

    actual = layers.recurrent(inputs, hidden, first_cell, faulty, how=how)[0]

    with pytest.raises(DivergenceError, match="elements differ"):
        assert_close(actual, expected, **TIGHT)


@pytest.mark.parametrize("cell", CLASSES)
def test_recurrent_computes_in_float64_on_float32_arrays(cell):
    how = recurrence(cell)
    inputs, hidden, first_cell, weights = arrays_of(how)
    narrow = [
        None if array is None else array.astype(np.float32)
        for array in (inputs, hidden, first_cell)
    ]
    narrow_weights = {name: array.astype(np.float32) for name, array in weights.items()}
    wide = [None if array is None else array.astype(np.float64) for array in narrow]
    wide_weights = {name: array.astype(np.float64) for name, array in narrow_weights.items()}

    assert_identical(
        layers.recurrent(*narrow, narrow_weights, how=how)[0],
        layers.recurrent(*wide, wide_weights, how=how)[0],
    )
