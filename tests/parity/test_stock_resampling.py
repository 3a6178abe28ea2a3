"""Stock resizing of torch and Keras equals the reference.

Keras resizes with half-pixel centres only. What its backends make of `bicubic` without antialias
differs: a row of `KERAS_BICUBIC` says how.
"""

import dataclasses

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from parity.errors import DivergenceError
from parity.reference import layers as reference
from parity.reference.layers import Resampling

# Of the largest element of a quantity.
BOUND = 1e-10

# Tensorflow computes the weights in float32, and reads those of plain bicubic from a table of 1024
# places between two pixels; measured worst 5.4e-7 and 5.9e-4, outputs of five pairs of sizes.
TENSORFLOW_BOUND = 1e-5
TENSORFLOW_TABLE_BOUND = 5e-3

KERAS_EXAMPLES = settings(max_examples=max(6, settings.default.max_examples // 5))

SEEDS = st.integers(0, 2**31)
SIZES = st.tuples(st.integers(1, 9), st.integers(1, 9))

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
