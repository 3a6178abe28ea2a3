"""Stock padding, shuffling and flattening of torch and Keras equal the reference.

`symmetric` padding is Keras's alone, and on torch it is `edge` there; `edge` and `wrap` reach Keras
through jax only (keras 3.15.1).
"""

import dataclasses

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from conversion.layouts import move_axes
from parity.errors import DivergenceError
from parity.reference import layers as reference

# Of the largest element of a quantity.
BOUND = 1e-10

KERAS_EXAMPLES = settings(max_examples=max(6, settings.default.max_examples // 5))

SEEDS = st.integers(0, 2**31)
SIZES = st.tuples(st.integers(1, 9), st.integers(1, 9))
PADS = st.tuples(*[st.tuples(st.integers(0, 3), st.integers(0, 3))] * 2)


def expected_pad(stock, seed, size, pads, mode, value):
    images = stock.array(seed, 2, 2, *size)
    outputs = reference.pad2d(images, pads=pads, mode=mode, value=value)
    d_outputs = stock.array(seed + 1, *outputs.shape)
    d_images = reference.pad2d_backward(d_outputs, images, pads=pads, mode=mode)
    return images, d_outputs, stock.outcome(outputs, d_images)


def is_paddable(size, pads, mode):
    limit = {"reflect": -1, "symmetric": 0, "wrap": 0}.get(mode, 9)
    return all(max(pair) <= n + limit for n, pair in zip(size, pads, strict=True))


def torch_padding(pads, mode, value):
    from torch import nn

    (top, bottom), (left, right) = pads
    order = (left, right, top, bottom)
    if mode == "constant":
        return nn.ConstantPad2d(order, value)
    layers = {
        "reflect": nn.ReflectionPad2d,
        "edge": nn.ReplicationPad2d,
        "wrap": nn.CircularPad2d,
    }
    return layers[mode](order)


@pytest.mark.parametrize("mode", ["constant", "reflect", "edge", "wrap"])
@given(seed=SEEDS, size=SIZES, pads=PADS, value=st.sampled_from([0.0, -1.5]))
def test_torch_padding_matches_reference(stock, mode, seed, size, pads, value):
    assume(is_paddable(size, pads, mode))
    images, d_outputs, expected = expected_pad(stock, seed, size, pads, mode, value)

    actual = stock.run_torch(torch_padding(pads, mode, value), images, d_outputs)

    stock.assert_close(actual, expected, bound=BOUND)


def keras_padding(pads, mode, value):
    import keras

    if mode == "constant" and value == 0.0:
        return keras.layers.ZeroPadding2D(pads)
    given_value = {"constant_values": value} if mode == "constant" else {}
    return lambda images: keras.ops.pad(images, ((0, 0), *pads, (0, 0)), mode=mode, **given_value)


# What Keras is asked for and what its backends make of it; it names the first three only.
KERAS_PADS = {"constant": "constant", "reflect": "reflect", "symmetric": "symmetric"}
KERAS_PADS_BY_BACKEND = {
    "tensorflow": KERAS_PADS,
    "jax": KERAS_PADS | {"edge": "edge", "wrap": "wrap"},
    "torch": KERAS_PADS | {"symmetric": "edge"},
}


@pytest.mark.backend
@KERAS_EXAMPLES
@given(data=st.data(), seed=SEEDS, size=SIZES, pads=PADS, value=st.sampled_from([0.0, -1.5]))
def test_keras_padding_matches_reference(stock, data, seed, size, pads, value):
    modes = KERAS_PADS_BY_BACKEND[stock.keras_backend]
    mode, made = data.draw(st.sampled_from(sorted(modes.items())))
    assume(is_paddable(size, pads, mode) and is_paddable(size, pads, made))
    # keras 3.15.1 on torch refuses modes other than `constant` where no side is padded.
    assume(stock.keras_backend != "torch" or max(map(max, pads)) > 0)
    images, d_outputs, expected = expected_pad(stock, seed, size, pads, made, value)

    actual = stock.run_keras(keras_padding(pads, mode, value), images, d_outputs)

    stock.assert_close(actual, expected, bound=BOUND)


def shuffled(stock, seed, size, channels, factor, order, *, inverse):
    name = "pixel_unshuffle" if inverse else "pixel_shuffle"
    shape = (channels, *(n * factor for n in size)) if inverse else (channels * factor**2, *size)
    images = stock.array(seed, 2, *shape)
    outputs = getattr(reference, name)(images, factor=factor, order=order)
    d_outputs = stock.array(seed + 1, *outputs.shape)
    d_images = getattr(reference, f"{name}_backward")(d_outputs, factor=factor, order=order)
    return images, d_outputs, stock.outcome(outputs, d_images)


SMALL = st.tuples(st.integers(1, 4), st.integers(1, 4))


@pytest.mark.parametrize("inverse", [False, True])
@given(seed=SEEDS, size=SMALL, channels=st.integers(1, 3), factor=st.integers(1, 3))
def test_torch_pixel_shuffle_matches_reference(stock, inverse, seed, size, channels, factor):
    import torch

    images, d_outputs, expected = shuffled(
        stock, seed, size, channels, factor, "cij", inverse=inverse
    )
    layer = (torch.nn.PixelUnshuffle if inverse else torch.nn.PixelShuffle)(factor)

    stock.assert_close(stock.run_torch(layer, images, d_outputs), expected, bound=BOUND)


@pytest.mark.backend
@pytest.mark.parametrize("inverse", [False, True])
@KERAS_EXAMPLES
@given(seed=SEEDS, size=SMALL, channels=st.integers(1, 3), factor=st.integers(2, 3))
def test_keras_depth_to_space_matches_reference(stock, inverse, seed, size, channels, factor):
    from keras import ops

    images, d_outputs, expected = shuffled(
        stock, seed, size, channels, factor, "ijc", inverse=inverse
    )
    function = ops.space_to_depth if inverse else ops.depth_to_space

    actual = stock.run_keras(lambda images: function(images, factor), images, d_outputs)

    stock.assert_close(actual, expected, bound=BOUND)


def flat_linear(stock, seed, size, channels, order):
    """Return a linear layer behind flattened images: its arrays, and what it makes of them."""
    images = stock.array(seed, 2, channels, *size)
    weight = stock.array(seed + 1, 3, images[0].size)
    bias, d_outputs = stock.array(seed + 2, 3), stock.array(seed + 3, 2, 3)
    inputs = reference.flatten(images, order=order)
    d_inputs, d_weight, d_bias = reference.linear_backward(d_outputs, inputs, weight)
    expected = stock.outcome(
        reference.linear(inputs, weight, bias),
        reference.flatten_backward(d_inputs, images, order=order),
        {"weight": d_weight, "bias": d_bias},
    )
    return images, {"weight": weight, "bias": bias}, d_outputs, expected


@given(seed=SEEDS, size=SMALL, channels=st.integers(1, 3))
def test_torch_flatten_and_linear_match_reference(stock, seed, size, channels):
    import torch

    images, weights, d_outputs, expected = flat_linear(stock, seed, size, channels, "chw")
    layer = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(weights["weight"].shape[1], 3))
    named = {f"1.{name}": array for name, array in weights.items()}

    actual = stock.run_torch(layer, images, d_outputs, named)

    gradients = {name.removeprefix("1."): a for name, a in actual.parameter_gradients.items()}
    actual = dataclasses.replace(actual, parameter_gradients=gradients)
    stock.assert_close(actual, expected, bound=BOUND)


def run_keras_flatten_and_dense(stock, images, weights, d_outputs, *, source):
    """Run Keras's two layers, the weight's inputs moved from `source`; give its gradient back."""
    import keras

    sizes = dict(zip("chw", images.shape[1:], strict=True))
    dense, flatten = keras.layers.Dense(3), keras.layers.Flatten()
    dense.build((None, weights["weight"].shape[1]))
    dense.kernel.assign(move_axes(weights["weight"], source=source, target="(hwc)o", sizes=sizes))
    dense.bias.assign(weights["bias"])
    return stock.run_keras(lambda images: dense(flatten(images)), images, d_outputs)


@pytest.mark.backend
@KERAS_EXAMPLES
@given(seed=SEEDS, size=SMALL, channels=st.integers(1, 3))
def test_keras_flatten_and_dense_match_torch_order_once_the_weight_moves(
    stock, seed, size, channels
):
    images, weights, d_outputs, expected = flat_linear(stock, seed, size, channels, "chw")

    actual = run_keras_flatten_and_dense(stock, images, weights, d_outputs, source="o(chw)")

    expected = dataclasses.replace(expected, parameter_gradients={})
    stock.assert_close(actual, expected, bound=BOUND)


def test_flatten_check_catches_a_weight_that_does_not_move(stock):
    images, weights, d_outputs, expected = flat_linear(stock, 0, (2, 3), 2, "chw")

    actual = run_keras_flatten_and_dense(stock, images, weights, d_outputs, source="o(hwc)")

    with pytest.raises(DivergenceError, match=r"^outputs: "):
        stock.assert_close(actual, expected, bound=BOUND)


@pytest.mark.parametrize(("made", "claimed"), [("reflect", "edge"), ("wrap", "reflect")])
def test_padding_check_catches_a_wrong_mode(stock, made, claimed):
    pads = ((1, 2), (2, 1))
    images, d_outputs, expected = expected_pad(stock, 0, (4, 5), pads, claimed, 0.0)

    actual = stock.run_torch(torch_padding(pads, made, 0.0), images, d_outputs)

    with pytest.raises(DivergenceError, match=r"^outputs: "):
        stock.assert_close(actual, expected, bound=BOUND)


def test_shuffle_check_catches_the_other_channel_order(stock):
    from keras import ops

    images, d_outputs, expected = shuffled(stock, 0, (2, 3), 2, 2, "cij", inverse=False)

    actual = stock.run_keras(lambda images: ops.depth_to_space(images, 2), images, d_outputs)

    with pytest.raises(DivergenceError, match=r"^outputs: "):
        stock.assert_close(actual, expected, bound=BOUND)
