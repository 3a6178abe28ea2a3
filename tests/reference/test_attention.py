"""The reference's attention against torch's functional, layer and autograd, and differences."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from parity.errors import DivergenceError, SpecError
from parity.reference import layers
from parity.testing.assertions import assert_close, assert_identical
from parity.testing.faults import seed_array_fault

TIGHT = {"atol": 1e-12, "rtol": 1e-12}
MASK = np.array([[True, False, True, True], [True, True, False, False], [True] * 4])
FULL = np.array([[True, False, True, True], [False] * 4, [True] * 4])
PLAIN = {"scale": 0.5, "mask_meaning": "attend", "fully_masked": "zeros"}


def parts(seed=0):
    draw = np.random.default_rng(seed).standard_normal
    return [draw((2, 3, 5)), draw((2, 4, 5)), draw((2, 4, 6))]


def leaf(array):
    return torch.tensor(array, requires_grad=True)


@pytest.mark.parametrize(
    ("mask", "meaning"),
    [(None, "attend"), (MASK, "attend"), (FULL, "attend"), (np.where(MASK, 0.5, -np.inf), "add")],
)
def test_scaled_dot_products_and_their_gradients_match_torch(mask, meaning):
    leaves = [leaf(part) for part in parts()]
    given = None if mask is None else torch.tensor(mask)
    outputs = functional.scaled_dot_product_attention(*leaves, attn_mask=given, scale=0.5)
    d_outputs = np.random.default_rng(1).standard_normal(outputs.shape)
    outputs.backward(torch.tensor(d_outputs))
    arguments = PLAIN | {"mask_meaning": meaning}

    actual, shares = layers.scaled_dot_product_attention(*parts(), mask, **arguments)
    gradients = layers.scaled_dot_product_attention_backward(
        d_outputs, None, *parts(), mask, **arguments
    )

    assert_close(actual, outputs.detach(), **TIGHT)
    full = np.zeros(3) if mask is None else np.isin(mask, (False, -np.inf)).all(axis=-1)
    assert_close(shares.sum(axis=-1), np.broadcast_to(1.0 - full, (2, 3)), **TIGHT)
    for one, other in zip(gradients, leaves, strict=True):
        assert_close(one, other.grad, **TIGHT)


def test_masks_of_either_meaning_are_each_others_reverse():
    attend = layers.scaled_dot_product_attention(*parts(), MASK, **PLAIN)
    ignore = layers.scaled_dot_product_attention(
        *parts(), ~MASK, **PLAIN | {"mask_meaning": "ignore"}
    )

    assert_identical(attend[0], ignore[0])


@pytest.mark.parametrize(
    ("fully_masked", "expected"),
    [
        ("nan", np.nan),
        ("zeros", 0.0),
        ("uniform", 0.25),
        ("uniform_added", 0.25),
        ("uniform_ones", 0.25),
    ],
)
def test_fully_masked_query_gets_its_convention(fully_masked, expected):
    arguments = PLAIN | {"fully_masked": fully_masked}

    outputs, shares = layers.scaled_dot_product_attention(*parts(), FULL, **arguments)

    assert_identical(shares[:, 1], np.full((2, 4), expected))
    assert_close(outputs[:, 1], expected * parts()[2].sum(axis=1), **TIGHT)


@pytest.mark.parametrize(("fully_masked", "flows"), [("uniform", False), ("uniform_added", True)])
def test_fully_masked_query_has_a_gradient_where_the_mask_is_added(fully_masked, flows):
    arguments = PLAIN | {"fully_masked": fully_masked}

    d_query, _, d_value = layers.scaled_dot_product_attention_backward(
        np.ones((2, 3, 6)), np.eye(3, 4), *parts(), FULL, **arguments
    )

    assert bool(np.any(d_query[:, 1])) is flows
    assert np.all(d_value > 0.0)


def test_fully_masked_query_has_shares_of_one_backward_where_their_sum_is_lost():
    query, key, value = parts()
    d_outputs = np.random.default_rng(6).standard_normal((2, 3, 6))
    added, ones = (
        layers.scaled_dot_product_attention_backward(
            d_outputs, None, query, key, value, FULL, **PLAIN | {"fully_masked": name}
        )
        for name in ("uniform_added", "uniform_ones")
    )

    # Four keys: shares of 1 instead of 1 / 4, in the one query that is fully masked.
    assert_close(ones[0][:, 1], 4.0 * added[0][:, 1], **TIGHT)
    assert_close(ones[0][:, 0], added[0][:, 0], **TIGHT)
    more = np.repeat(0.75 * d_outputs[:, 1:2], 4, axis=1)
    assert_close(ones[2] - added[2], more, **TIGHT)


def weights_of(width, key, value, *, use_bias=True):
    draw = np.random.default_rng(3).standard_normal
    sizes = {"q_proj_weight": width, "k_proj_weight": key, "v_proj_weight": value}
    weights = {name: draw((width, size)) for name, size in sizes.items()}
    if key == value == width:
        weights = {"in_proj_weight": draw((3 * width, width))}
    weights["out_proj.weight"] = draw((width, width))
    if use_bias:
        weights |= {"in_proj_bias": draw(3 * width), "out_proj.bias": draw(width)}
    return weights


def multi_head_inputs(width=4, key=4, value=4):
    draw = np.random.default_rng(4).standard_normal
    return [draw((2, 3, width)), draw((2, 4, key)), draw((2, 4, value))]


SETTINGS = {
    "heads": 2,
    "scale": 2**-0.5,
    "mask_meaning": "ignore",
    "padding_meaning": "ignore",
    "causal": False,
    "fully_masked": "nan",
}
PADDING = np.array([[False, False, True, True], [False, True, False, False]])


@pytest.mark.parametrize(("key", "value"), [(4, 4), (3, 5)])
@pytest.mark.parametrize("use_bias", [True, False])
@pytest.mark.parametrize("padding", [None, PADDING], ids=["all_keys", "padding"])
def test_multi_head_attention_and_its_gradients_match_torch(key, value, use_bias, padding):
    inputs, weights = multi_head_inputs(4, key, value), weights_of(4, key, value, use_bias=use_bias)
    module = torch.nn.MultiheadAttention(
        4, 2, bias=use_bias, kdim=key, vdim=value, batch_first=True
    ).double()
    module.load_state_dict({name: torch.tensor(array) for name, array in weights.items()})
    leaves, mask = [leaf(array) for array in inputs], ~MASK
    outputs, shares = module(
        *leaves,
        attn_mask=torch.tensor(mask),
        key_padding_mask=None if padding is None else torch.tensor(padding),
        average_attn_weights=False,
    )
    draw = np.random.default_rng(5).standard_normal
    d_outputs, d_shares = draw(outputs.shape), draw(shares.shape)
    torch.autograd.backward([outputs, shares], [torch.tensor(d_outputs), torch.tensor(d_shares)])

    actual = layers.multi_head_attention(*inputs, weights, mask, padding, **SETTINGS)
    gradients = layers.multi_head_attention_backward(
        d_outputs, d_shares, *inputs, weights, mask, padding, **SETTINGS
    )

    assert_close(actual[0], outputs.detach(), **TIGHT)
    assert_close(actual[1], shares.detach(), **TIGHT)
    for one, other in zip(gradients[:3], leaves, strict=True):
        assert_close(one, other.grad, **TIGHT)
    for name, parameter in module.named_parameters():
        assert_close(gradients[3][name], parameter.grad, **TIGHT, where=name)


def test_causal_attention_is_a_mask_of_later_keys():
    inputs, weights = multi_head_inputs(), weights_of(4, 4, 4)

    causal = layers.multi_head_attention(
        *inputs, weights, None, None, **SETTINGS | {"causal": True}
    )
    masked = layers.multi_head_attention(
        *inputs, weights, ~np.tri(3, 4, dtype=bool), None, **SETTINGS
    )

    assert_identical(causal[0], masked[0])


def test_heads_wider_than_the_query_match_differences():
    draw = np.random.default_rng(6).standard_normal
    inputs = [draw((1, 2, 3)), draw((1, 2, 2)), draw((1, 2, 2))]
    weights = {
        "q_proj_weight": draw((4, 3)),
        "k_proj_weight": draw((4, 2)),
        "v_proj_weight": draw((6, 2)),
        "in_proj_bias": draw(14),
        "out_proj.weight": draw((5, 6)),
    }
    d_outputs = draw((1, 2, 5))

    def loss(query):
        outputs, _ = layers.multi_head_attention(
            query, *inputs[1:], weights, None, None, **SETTINGS
        )
        return (outputs * d_outputs).sum()

    d_query = layers.multi_head_attention_backward(
        d_outputs, None, *inputs, weights, None, None, **SETTINGS
    )[0]

    for index in np.ndindex(inputs[0].shape):
        nudge = np.zeros_like(inputs[0])
        nudge[index] = 1e-6
        expected = (loss(inputs[0] + nudge) - loss(inputs[0] - nudge)) / 2e-6
        assert_close(d_query[index], expected, atol=1e-7, rtol=1e-7)


def test_gradient_of_the_keys_bias_is_zero_but_for_rounding():
    inputs, weights = multi_head_inputs(), weights_of(4, 4, 4)

    gradients = layers.multi_head_attention_backward(
        np.ones((2, 3, 4)), None, *inputs, weights, ~MASK, None, **SETTINGS
    )[3]

    query, key, value = np.split(gradients["in_proj_bias"], 3)
    assert_close(key, np.zeros(4), atol=1e-13, rtol=0.0)
    assert np.abs(query).min() > 1e-3
    assert np.abs(value).min() > 1e-3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"heads": 3}, r"multiples of 3 heads"),
        ({"heads": 0}, r"expected heads >= 1"),
        ({"mask_meaning": "keep"}, r"mask_meaning must be one of attend, ignore, add; got 'keep'"),
        ({"padding_meaning": "add"}, r"padding_meaning must be attend or ignore; got 'add'"),
        ({"fully_masked": "inf"}, r"fully_masked must be one of nan, zeros"),
    ],
)
def test_multi_head_attention_refuses_impossible_values(change, message):
    inputs, weights = multi_head_inputs(), weights_of(4, 4, 4)

    with pytest.raises(SpecError, match=message):
        layers.multi_head_attention(*inputs, weights, None, None, **SETTINGS | change)


def test_attention_refuses_shapes_that_do_not_fit():
    inputs, weights = multi_head_inputs(), weights_of(4, 4, 4)
    missing = {name: array for name, array in weights.items() if name != "in_proj_weight"}

    with pytest.raises(SpecError, match=r"weights in_proj_weight, or q_proj_weight"):
        layers.multi_head_attention(*inputs, missing, None, None, **SETTINGS)
    with pytest.raises(SpecError, match=r"kernels of as many columns"):
        layers.multi_head_attention(
            inputs[0][..., :3], *inputs[1:], weights, None, None, **SETTINGS
        )
    with pytest.raises(SpecError, match=r"expected query \(..., t, d\)"):
        layers.scaled_dot_product_attention(*parts()[:2], parts()[2][:, :3], None, **PLAIN)


@pytest.mark.parametrize("fault", ["element_bumped", "channels_swapped", "through_float16"])
def test_attention_check_catches_faults_in_the_weights(fault):
    inputs, weights = multi_head_inputs(), weights_of(4, 4, 4)
    expected, _ = layers.multi_head_attention(*inputs, weights, None, None, **SETTINGS)
    faulty = weights | {"in_proj_weight": seed_array_fault(fault, weights["in_proj_weight"])}

    actual, _ = layers.multi_head_attention(*inputs, faulty, None, None, **SETTINGS)

    with pytest.raises(DivergenceError, match="elements differ"):
        assert_close(actual, expected, **TIGHT)


def test_attention_computes_in_float64_on_float32_arrays():
    narrow = [part.astype(np.float32) for part in parts()]
    wide = [part.astype(np.float64) for part in narrow]

    assert_identical(
        layers.scaled_dot_product_attention(*narrow, None, **PLAIN)[0],
        layers.scaled_dot_product_attention(*wide, None, **PLAIN)[0],
    )
