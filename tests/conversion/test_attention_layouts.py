"""Attention's arrays are exact both ways, and refused where PyTorch's layer has no such form."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conversion.attention_layouts import to_keras_attention, to_torch_attention
from parity.errors import ConversionError
from parity.testing.assertions import assert_identical

sizes = st.integers(1, 4)


def numbered(*shape):
    return np.arange(np.prod(shape), dtype="f8").reshape(shape)


def keras_arrays(heads, dim, *, key=None, value=None, use_bias=True):
    width = heads * dim
    inputs = {"query": width, "key": key or width, "value": value or width}
    arrays = {f"{part}/kernel": numbered(size, heads, dim) for part, size in inputs.items()}
    arrays["attention_output/kernel"] = numbered(heads, dim, width)
    if use_bias:
        arrays |= {f"{part}/bias": numbered(heads, dim) for part in inputs}
        arrays["attention_output/bias"] = numbered(width)
    return arrays


@given(
    heads=sizes,
    dim=sizes,
    key=st.none() | sizes,
    value=st.none() | sizes,
    use_bias=st.booleans(),
)
def test_layout_there_and_back_is_identical(heads, dim, key, value, use_bias):
    stored = keras_arrays(heads, dim, key=key, value=value, use_bias=use_bias)

    back = to_keras_attention(to_torch_attention(stored), heads=heads)

    assert set(back) == set(stored)
    for name, array in stored.items():
        assert_identical(back[name], array, where=name)


def test_packed_matrix_holds_query_key_value_head_by_head():
    weight = numbered(12, 4)

    stored = to_keras_attention(
        {"in_proj_weight": weight, "out_proj.weight": numbered(4, 4)}, heads=2
    )

    assert stored["key/kernel"].shape == (4, 2, 2)
    assert stored["key/kernel"][3, 1, 0] == weight[4 + 2, 3]
    assert stored["attention_output/kernel"][1, 0, 3] == numbered(4, 4)[3, 2]


def test_other_widths_are_kept_in_separate_matrices():
    slots = to_torch_attention(keras_arrays(2, 2, key=3, use_bias=False))

    assert [*slots] == ["q_proj_weight", "k_proj_weight", "v_proj_weight", "out_proj.weight"]
    assert slots["k_proj_weight"].shape == (4, 3)


def test_heads_that_are_not_as_wide_as_the_query_are_refused():
    stored = keras_arrays(2, 2)
    wide = stored | {"query/kernel": numbered(3, 2, 2)}

    with pytest.raises(ConversionError, match=r"as wide as the query, 3; got 4, 4 and 4"):
        to_torch_attention(wide)


@pytest.mark.parametrize("heads", [0, 3])
def test_heads_that_do_not_divide_the_rows_are_refused(heads):
    slots = to_torch_attention(keras_arrays(2, 2))

    with pytest.raises(ConversionError, match=rf"rows that {heads} heads divide"):
        to_keras_attention(slots, heads=heads)


def test_missing_arrays_are_refused():
    with pytest.raises(ConversionError, match=r"expected arrays in_proj_weight, out_proj.weight"):
        to_keras_attention({"in_proj_weight": numbered(3, 1)}, heads=1)
