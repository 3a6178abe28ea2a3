"""Recurrent arrays are exact both ways, but for biases that Keras adds, and refused if unknown."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conversion.recurrent_layouts import (
    GATE_ORDERS,
    describe_merge,
    recurrent_suffix,
    to_keras_recurrent,
    to_torch_recurrent,
    to_torch_recurrent_gradients,
)
from parity.errors import ConversionError
from parity.testing.assertions import assert_identical

FORMS = [("SimpleRNN", False), ("LSTM", False), ("GRU", False), ("GRU", True)]
sizes = st.integers(1, 4)


def numbered(shape, dtype="f8"):
    return np.arange(1, 1 + np.prod(shape), dtype=dtype).reshape(shape)


def keras_arrays(kind, units, features, *, two_biases, use_bias=True, dtype="f8"):
    gates = len(GATE_ORDERS[kind]) * units
    shapes = {"kernel": (features, gates), "recurrent_kernel": (units, gates)}
    if use_bias:
        shapes["bias"] = (2, gates) if two_biases else (gates,)
    return {name: numbered(shape, dtype) for name, shape in shapes.items()}


def assert_same(actual, expected):
    assert list(actual) == list(expected)
    for name, array in expected.items():
        assert_identical(actual[name], array, where=name)


@pytest.mark.parametrize(("kind", "two_biases"), FORMS)
@given(units=sizes, features=sizes, use_bias=st.booleans(), dtype=st.sampled_from(["f4", "f8"]))
def test_keras_arrays_there_and_back_are_identical(
    kind, two_biases, units, features, use_bias, dtype
):
    stored = keras_arrays(
        kind, units, features, two_biases=two_biases, use_bias=use_bias, dtype=dtype
    )

    slots = to_torch_recurrent(kind, stored, two_biases=two_biases)

    assert_same(to_keras_recurrent(kind, slots, two_biases=two_biases), stored)


@given(units=sizes, features=sizes)
def test_gru_of_two_biases_from_torch_and_back_is_identical(units, features):
    slots = {
        "weight_ih": numbered((3 * units, features)),
        "weight_hh": numbered((3 * units, units)),
        "bias_ih": numbered(3 * units),
        "bias_hh": -numbered(3 * units),
    }

    stored = to_keras_recurrent("GRU", slots, two_biases=True)

    assert_same(to_torch_recurrent("GRU", stored, two_biases=True), slots)
    assert describe_merge("GRU", slots, two_biases=True) is None


def test_gru_gates_swap_reset_and_update():
    slots = {"weight_ih": np.array([[1.0], [2.0], [3.0]]), "weight_hh": np.eye(3)[:, :1]}

    stored = to_keras_recurrent("GRU", slots, two_biases=False)

    assert_identical(stored["kernel"], np.array([[2.0, 1.0, 3.0]]))
    assert_identical(stored["recurrent_kernel"], np.array([[0.0, 1.0, 0.0]]))


def test_lstm_gates_stay_in_place():
    slots = {"weight_ih": numbered((4, 2)), "weight_hh": numbered((4, 1))}

    stored = to_keras_recurrent("LSTM", slots, two_biases=False)

    assert_identical(stored["kernel"], numbered((4, 2)).T.copy())


@pytest.mark.parametrize("kind", ["SimpleRNN", "LSTM", "GRU"])
def test_two_biases_become_their_sum_and_come_back_as_the_first(kind):
    gates = len(GATE_ORDERS[kind])
    slots = {
        "weight_ih": np.ones((gates, 1)),
        "weight_hh": np.ones((gates, 1)),
        "bias_ih": np.full(gates, 2.0),
        "bias_hh": np.full(gates, 3.0),
    }

    stored = to_keras_recurrent(kind, slots, two_biases=False)
    back = to_torch_recurrent(kind, stored, two_biases=False)

    assert_identical(stored["bias"], np.full(gates, 5.0))
    assert_identical(back["bias_ih"], np.full(gates, 5.0))
    assert_identical(back["bias_hh"], np.zeros(gates))
    assert "bias_hh is zeros" in describe_merge(kind, slots, two_biases=False)
    assert describe_merge(kind, back, two_biases=False) is None


def test_gradient_of_a_sum_is_that_of_both_biases():
    gradients = keras_arrays("LSTM", 2, 3, two_biases=False)

    slots = to_torch_recurrent_gradients("LSTM", gradients, two_biases=False)

    assert_identical(slots["bias_ih"], numbered(8))
    assert_identical(slots["bias_hh"], numbered(8))


@pytest.mark.parametrize(
    ("kind", "two_biases", "message"),
    [
        ("LTSM", False, r"'LTSM' has no known gates. Nearest: LSTM"),
        ("LSTM", True, r"two rows are a GRU's with reset_after"),
    ],
)
def test_layout_refuses_an_unknown_form(kind, two_biases, message):
    with pytest.raises(ConversionError, match=message):
        to_keras_recurrent(kind, {}, two_biases=two_biases)


def test_layout_refuses_arrays_that_do_not_fit():
    good = keras_arrays("GRU", 2, 3, two_biases=True)

    with pytest.raises(ConversionError, match=r"expected arrays kernel, recurrent_kernel"):
        to_torch_recurrent("GRU", {"kernel": np.ones((1, 3))}, two_biases=True)
    with pytest.raises(ConversionError, match=r"a multiple of 3 gates; got shape \(3, 5\)"):
        to_torch_recurrent("GRU", good | {"kernel": np.ones((3, 5))}, two_biases=True)
    with pytest.raises(ConversionError, match=r"expected one row of biases; got shape \(2, 6\)"):
        to_torch_recurrent("GRU", good, two_biases=False)


def test_suffix_is_that_of_torch():
    assert recurrent_suffix(0, reverse=False) == "_l0"
