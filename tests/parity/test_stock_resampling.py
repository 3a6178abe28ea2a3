"""Stock resizing, padding, shuffling and flattening of torch and Keras equal the reference.

Keras resizes with half-pixel centres only. What its backends make of `bicubic` without antialias
differs: a row of `KERAS_BICUBIC` says how. `symmetric` padding is Keras's alone, and on torch it is
`edge` there; `edge` and `wrap` reach Keras through jax only (keras 3.15.1).
"""

import dataclasses

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from conversion.layouts import move_axes
from parity.errors import DivergenceError
from parity.reference import layers as reference
from parity.reference.layers import Resampling

# Of the largest element of a quantity.
BOUND = 1e-10

# Tensorflow computes the weights in float32, and reads those of plain bicubic from a table of 1024
# places between two pixels; measured worst 1.5e-6 and 1.7e-3 over 400 examples.
TENSORFLOW_BOUND = 1e-5
TENSORFLOW_TABLE_BOUND = 5e-3

KERAS_EXAMPLES = settings(max_examples=max(6, settings.default.max_examples // 5))

SEEDS = st.integers(0, 2**31)
SIZES = st.tuples(st.integers(1, 9), st.integers(1, 9))
PADS = st.tuples(*[st.tuples(st.integers(0, 3), st.integers(0, 3))] * 2)

NEAREST = Resampling(
    method="nearest", centers="half_pixel", antialias=False, cubic_coefficient=None, border="repeat"
)
BILINEAR = dataclasses.replace(NEAREST, method="bilinear")
BICUBIC = dataclasses.replace(NEAREST, method="bicubic", cubic_coefficient=-0.75)
KEYS = dataclasses.replace(BICUBIC, cubic_coefficient=-0.5, border="drop")

TORCH_RESAMPLINGS = {
    "nearest": dataclasses.replace(NEAREST, centers="origin"),
    "nearest-exact": NEAREST,
    "bilinear": BILINEAR,
    "bilinear-corners": dataclasses.replace(BILINEAR, centers="corners"),
    "bilinear-antialias": dataclasses.replace(BILINEAR, antialias=True, border="drop"),
    "bicubic": BICUBIC,
    "bicubic-corners": dataclasses.replace(BICUBIC, centers="corners"),
    "bicubic-antialias": dataclasses.replace(KEYS, antialias=True),
}
KERAS_BICUBIC = {"tensorflow": KEYS, "jax": KEYS, "torch": BICUBIC}


def expected_resize(stock, seed, size, target, resampling, scale_factors=None):
    knobs = {"resampling": resampling, "scale_factors": scale_factors}
    images = stock.array(seed, 2, 2, *size)
    d_outputs = stock.array(seed + 1, 2, 2, *target)
    outputs = reference.resize2d(images, target, **knobs)
    d_images = reference.resize2d_backward(d_outputs, images, target, **knobs)
    return images, d_outputs, stock.outcome(outputs, d_images)


def torch_upsample(resampling, **size):
    import torch

    exact = "-exact" if resampling.centers == "half_pixel" else ""
    if resampling.method == "nearest":
        return torch.nn.Upsample(mode=f"nearest{exact}", **size)
    return lambda images: torch.nn.functional.interpolate(
        images,
        mode=resampling.method,
        align_corners=resampling.centers == "corners",
        antialias=resampling.antialias,
        **size,
    )


@pytest.mark.parametrize("name", TORCH_RESAMPLINGS)
@given(seed=SEEDS, size=SIZES, target=SIZES)
def test_torch_resize_matches_reference(stock, name, seed, size, target):
    resampling = TORCH_RESAMPLINGS[name]
    # torch 2.13.0: on a target one pixel wide, antialias repeats its first row.
    assume(not resampling.antialias or target[1] > 1)
    images, d_outputs, expected = expected_resize(stock, seed, size, target, resampling)

    actual = stock.run_torch(torch_upsample(resampling, size=target), images, d_outputs)

    stock.assert_close(actual, expected, bound=BOUND)


@pytest.mark.parametrize("name", ["nearest", "bilinear", "bicubic"])
@given(seed=SEEDS, size=SIZES, factors=st.tuples(*[st.sampled_from([0.6, 1.3, 1.7, 2.45])] * 2))
def test_torch_resize_by_a_factor_matches_reference(stock, name, seed, size, factors):
    target = tuple(int(n * factor) for n, factor in zip(size, factors, strict=True))
    assume(min(target) > 0)
    # torch 2.13.0: where bicubic keeps both sides, its gradient leaves the factors aside and its
    # forward pass does not.
    assume(name != "bicubic" or target != size)
    resampling = TORCH_RESAMPLINGS[name]
    images, d_outputs, expected = expected_resize(stock, seed, size, target, resampling, factors)

    actual = stock.run_torch(torch_upsample(resampling, scale_factor=factors), images, d_outputs)

    stock.assert_close(actual, expected, bound=BOUND)


def keras_resampling(method, *, antialias, backend):
    if antialias:
        return TORCH_RESAMPLINGS[f"{method}-antialias"]
    return {"nearest": NEAREST, "bilinear": BILINEAR, "bicubic": KERAS_BICUBIC[backend]}[method]


def keras_resizing(target, method, *, antialias, backend):
    import keras

    layer = keras.layers.Resizing(*target, interpolation=method, antialias=antialias)
    if not (antialias and backend == "tensorflow"):
        return layer
    # Tensorflow has no float64 gradient of it (`ScaleAndTranslateGrad`): its input is narrowed.
    narrow = keras.layers.Resizing(
        *target, interpolation=method, antialias=antialias, dtype="float32"
    )
    return lambda images: keras.ops.cast(narrow(keras.ops.cast(images, "float32")), "float64")


def keras_bound(method, *, antialias, backend):
    if backend != "tensorflow" or method == "nearest":
        return BOUND
    return TENSORFLOW_TABLE_BOUND if method == "bicubic" and not antialias else TENSORFLOW_BOUND


KERAS_RESIZES = [
    ("nearest", False),
    ("bilinear", False),
    ("bilinear", True),
    ("bicubic", False),
    ("bicubic", True),
]


@pytest.mark.backend
@pytest.mark.parametrize(("method", "antialias"), KERAS_RESIZES)
@KERAS_EXAMPLES
@given(seed=SEEDS, size=SIZES, target=SIZES)
def test_keras_resize_matches_reference(stock, method, antialias, seed, size, target):
    chosen = {"antialias": antialias, "backend": stock.keras_backend}
    resampling = keras_resampling(method, **chosen)
    images, d_outputs, expected = expected_resize(stock, seed, size, target, resampling)

    actual = stock.run_keras(keras_resizing(target, method, **chosen), images, d_outputs)

    stock.assert_close(actual, expected, bound=keras_bound(method, **chosen))


@pytest.mark.backend
@pytest.mark.parametrize("method", ["nearest", "bilinear", "bicubic"])
@KERAS_EXAMPLES
@given(seed=SEEDS, size=SIZES, factors=st.tuples(st.integers(1, 3), st.integers(1, 3)))
def test_keras_up_sampling_matches_reference(stock, method, seed, size, factors):
    import keras

    chosen = {"antialias": False, "backend": stock.keras_backend}
    target = tuple(n * factor for n, factor in zip(size, factors, strict=True))
    resampling = keras_resampling(method, **chosen)
    images, d_outputs, expected = expected_resize(stock, seed, size, target, resampling)
    layer = keras.layers.UpSampling2D(factors, interpolation=method)

    actual = stock.run_keras(layer, images, d_outputs)

    stock.assert_close(actual, expected, bound=keras_bound(method, **chosen))


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


@pytest.mark.parametrize(
    ("made", "claimed"),
    [
        ("nearest", "nearest-exact"),
        ("bilinear", "bilinear-corners"),
        ("bilinear", "bilinear-antialias"),
        ("bicubic", "bicubic-corners"),
        ("bicubic", "bicubic-antialias"),
    ],
)
def test_resize_check_catches_a_wrong_knob(stock, made, claimed):
    images, d_outputs, expected = expected_resize(
        stock, 0, (7, 8), (5, 4), TORCH_RESAMPLINGS[claimed]
    )
    layer = torch_upsample(TORCH_RESAMPLINGS[made], size=(5, 4))

    with pytest.raises(DivergenceError, match=r"^outputs: "):
        stock.assert_close(stock.run_torch(layer, images, d_outputs), expected, bound=BOUND)


@pytest.mark.backend
@pytest.mark.parametrize(
    "change", [{"cubic_coefficient": -0.75}, {"border": "repeat"}, {"antialias": False}], ids=str
)
def test_keras_resize_check_catches_a_wrong_knob_within_the_bound_of_the_table(stock, change):
    wrong = dataclasses.replace(TORCH_RESAMPLINGS["bicubic-antialias"], **change)
    images, d_outputs, expected = expected_resize(stock, 0, (7, 8), (5, 4), wrong)
    layer = keras_resizing((5, 4), "bicubic", antialias=True, backend=stock.keras_backend)
    actual = stock.run_keras(layer, images, d_outputs)

    with pytest.raises(DivergenceError, match=r"^outputs: "):
        stock.assert_close(actual, expected, bound=TENSORFLOW_TABLE_BOUND)


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
