"""A state is checked whole: every offender of a kind is named at once."""

import numpy as np
import pytest

from conversion.states import StoredState, checked_state
from parity.errors import ConversionError


def test_checked_state_has_the_order_of_the_spec(spec, state):
    shuffled = dict(reversed(state.items()))

    checked = checked_state(shuffled, spec, where="x.pt")

    assert list(checked) == list(spec.state_shapes())


def test_checked_state_lists_names_and_shapes_at_once(spec, state):
    del state["stem.bn.weight"], state["stem.bn.bias"]
    state["head.extra"] = np.zeros(1, np.float32)
    state["head.bias"] = np.zeros(9, np.float32)

    with pytest.raises(ConversionError) as caught:
        checked_state(state, spec, where="x.pt")

    assert str(caught.value).startswith(
        "x.pt: 2 slots missing (stem.bn.weight, stem.bn.bias), 1 slot unexpected (head.extra), "
        "1 slot of another shape (head.bias: expected (5,), got (9,))."
    )


def test_checked_state_recognizes_a_keras_kernel(spec, state):
    state["stem.conv.weight"] = state["stem.conv.weight"].transpose(2, 3, 1, 0)

    with pytest.raises(ConversionError, match=r"got \(3, 3, 3, 4\) which looks like hwio"):
        checked_state(state, spec, where="x.pt")


@pytest.mark.parametrize("dtype", ["float16", "int64", "bool", ">f4", "complex64"])
def test_checked_state_refuses_other_dtypes(spec, state, dtype):
    state["head.bias"] = state["head.bias"].astype(dtype)

    with pytest.raises(ConversionError, match=r"1 slot of another dtype \(head.bias "):
        checked_state(state, spec, where="x.pt")


def test_checked_state_keeps_float64(spec, states):
    checked = checked_state(states(spec, dtype="float64"), spec, where="x.pt")

    assert {array.dtype for array in checked.values()} == {np.dtype("float64")}


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_checked_state_refuses_non_finite_values(spec, state, value):
    state["head.bias"][1:3] = value
    state["stem.bn.running_var"][0] = value

    with pytest.raises(ConversionError, match=r"2 slots .*running_var 1 of 4, head.bias 2 of 5"):
        checked_state(state, spec, where="x.pt")


def test_stored_state_names_groups_by_their_place(spec):
    arrays = {"conv2d.weight": np.zeros(1), "conv2d_2.weight": np.ones(1), "lstm.x": np.ones(2)}
    stored = StoredState(arrays=arrays, by_position=True, conventions={})

    named = stored.named(spec)

    assert list(named) == ["stem.conv.weight", "stages.0.blocks.0.conv2.weight", "lstm.x"]
