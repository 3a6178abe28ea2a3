"""Resizing, padding, shuffling and flattening against torch's functionals, in float64."""

import dataclasses

import numpy as np
import pytest
import torch
from torch.nn import functional

from parity.errors import SpecError
from parity.reference import layers
from parity.reference.layers import Resampling
from parity.testing.assertions import assert_close, assert_identical

TIGHT = {"atol": 1e-12, "rtol": 1e-12}
BILINEAR = Resampling(
    method="bilinear",
    centers="half_pixel",
    antialias=False,
    cubic_coefficient=None,
    border="repeat",
)
NEAREST = dataclasses.replace(BILINEAR, method="nearest", centers="origin")
BICUBIC = dataclasses.replace(BILINEAR, method="bicubic", cubic_coefficient=-0.75)
KEYS = dataclasses.replace(BICUBIC, cubic_coefficient=-0.5, border="drop")


def random(*shape):
    return np.random.default_rng(sum(shape)).standard_normal(shape)


def torch_outcome(function, images, *arguments, **knobs):
    tensor = torch.tensor(images, requires_grad=True)
    outputs = function(tensor, *arguments, **knobs)
    d_outputs = random(*outputs.shape)
    outputs.backward(torch.tensor(d_outputs))
    return outputs.detach(), d_outputs, tensor.grad


@pytest.mark.parametrize("target", [(3, 4), (5, 7), (9, 8), (1, 1), (12, 2)])
@pytest.mark.parametrize(
    ("resampling", "knobs"),
    [
        (NEAREST, {"mode": "nearest"}),
        (dataclasses.replace(NEAREST, centers="half_pixel"), {"mode": "nearest-exact"}),
        (BILINEAR, {"mode": "bilinear"}),
        (
            dataclasses.replace(BILINEAR, centers="corners"),
            {"mode": "bilinear", "align_corners": True},
        ),
        (
            dataclasses.replace(BILINEAR, antialias=True, border="drop"),
            {"mode": "bilinear", "antialias": True},
        ),
        (BICUBIC, {"mode": "bicubic"}),
        (
            dataclasses.replace(BICUBIC, centers="corners"),
            {"mode": "bicubic", "align_corners": True},
        ),
        (dataclasses.replace(KEYS, antialias=True), {"mode": "bicubic", "antialias": True}),
    ],
)
def test_resize2d_and_its_gradient_match_torch(target, resampling, knobs):
    images = random(2, 2, 5, 7)
    expected, d_outputs, d_images = torch_outcome(functional.interpolate, images, target, **knobs)
    shared = {"resampling": resampling, "scale_factors": None}

    assert_close(layers.resize2d(images, target, **shared), expected, **TIGHT)
    actual = layers.resize2d_backward(d_outputs, images, target, **shared)
    assert_close(actual, d_images, **TIGHT)


@pytest.mark.parametrize(
    "resampling", [BICUBIC, KEYS, BILINEAR], ids=["torch", "keras", "bilinear"]
)
@pytest.mark.parametrize(("size", "target"), [(4, 9), (9, 4), (1, 5)])
def test_resize_matrix_keeps_a_constant(resampling, size, target):
    matrix = layers.resize_matrix(size, target, resampling=resampling, scale_factor=None)

    assert_close(matrix.sum(axis=1), np.ones(target), **TIGHT)


def test_keys_kernel_halfway_is_hand_computed():
    inner = layers.resize_matrix(8, 16, resampling=KEYS, scale_factor=None)[7]
    border = layers.resize_matrix(8, 16, resampling=KEYS, scale_factor=None)[0]
    # A quarter and three quarters of a pixel away, a = -1/2; at the border two of them remain.
    near, far, before, beyond = 0.8671875, 0.2265625, -0.0703125, -0.0234375

    assert_close(inner[2:6], [before, near, far, beyond][::1], **TIGHT)
    total = near + before
    assert_close(border[:2], np.array([near, before]) / total, **TIGHT)


def test_scale_factor_is_taken_as_given():
    images = np.arange(5.0).reshape(1, 1, 1, 5)
    sized = layers.resize2d(images, (1, 8), resampling=BILINEAR, scale_factors=None)
    factored = layers.resize2d(images, (1, 8), resampling=BILINEAR, scale_factors=(1.7, 1.7))
    expected = functional.interpolate(
        torch.tensor(images), scale_factor=(1.0, 1.7), mode="bilinear"
    )

    assert_close(factored, expected, **TIGHT)
    assert_close(sized[0, 0, 0, :2], [0.0, 0.4375], **TIGHT)
    assert_close(factored[0, 0, 0, :2], [0.0, 1.5 / 1.7 - 0.5], **TIGHT)


@pytest.mark.parametrize(
    ("change", "described"),
    [
        ({"method": "linear"}, "method must be one of nearest, bilinear, bicubic; got 'linear'"),
        ({"method": "bicubic"}, "cubic_coefficient is for bicubic"),
        ({"cubic_coefficient": -0.5}, "cubic_coefficient is for bicubic"),
        ({"method": "nearest", "antialias": True}, "antialias is for bilinear and bicubic"),
        ({"centers": "corners", "antialias": True}, "with half_pixel centers"),
        ({"centers": "origin"}, "no framework has bilinear with origin centers"),
        ({"method": "nearest", "centers": "corners"}, "nearest with corners centers"),
    ],
    ids=str,
)
def test_resampling_refuses_what_no_framework_has(change, described):
    with pytest.raises(SpecError, match=described):
        dataclasses.replace(BILINEAR, **change)


def test_resize_matrix_refuses_an_empty_target():
    with pytest.raises(SpecError, match="at least 1; got 3 to 0"):
        layers.resize_matrix(3, 0, resampling=BILINEAR, scale_factor=None)


@pytest.mark.parametrize(
    ("mode", "torch_mode"),
    [("constant", "constant"), ("reflect", "reflect"), ("edge", "replicate"), ("wrap", "circular")],
)
def test_pad2d_and_its_gradient_match_torch(mode, torch_mode):
    images, value = random(2, 2, 4, 5), 3.0 if mode == "constant" else 0.0
    expected, d_outputs, d_images = torch_outcome(
        functional.pad, images, (1, 3, 2, 0), mode=torch_mode, value=value
    )
    pads = ((2, 0), (1, 3))

    actual = layers.pad2d(images, pads=pads, mode=mode, value=value)
    gradient = layers.pad2d_backward(d_outputs, images, pads=pads, mode=mode)

    assert_identical(actual, expected.numpy())
    assert_close(gradient, d_images, **TIGHT)


@pytest.mark.parametrize("mode", ["constant", "reflect", "symmetric", "edge", "wrap"])
def test_pad2d_places_pixels_as_numpy_does(mode):
    images = random(1, 1, 4, 5)

    actual = layers.pad2d(images, pads=((2, 1), (3, 2)), mode=mode, value=0.0)

    assert_identical(actual, np.pad(images, ((0, 0), (0, 0), (2, 1), (3, 2)), mode=mode))


def test_symmetric_padding_gives_each_copy_s_gradient_to_its_pixel():
    images, d_outputs = np.zeros((1, 1, 1, 2)), np.arange(6.0).reshape(1, 1, 1, 6)

    actual = layers.pad2d_backward(d_outputs, images, pads=((0, 0), (2, 2)), mode="symmetric")

    assert_identical(actual, np.array([[[[1.0 + 2.0 + 5.0, 0.0 + 3.0 + 4.0]]]]))


def test_negative_pads_drop_pixels():
    images = np.arange(4.0).reshape(1, 1, 1, 4)

    actual = layers.pad2d(images, pads=((0, 0), (-1, 1)), mode="constant", value=9.0)

    assert_identical(actual, np.array([[[[1.0, 2.0, 3.0, 9.0]]]]))


@pytest.mark.parametrize(
    ("mode", "pads"),
    [("reflect", (2, 0)), ("symmetric", (3, 0)), ("wrap", (0, 3)), ("edge", (-1, -1))],
)
def test_pad2d_refuses_more_pixels_than_there_are(mode, pads):
    with pytest.raises(SpecError, match=f"{mode} cannot pad 2 pixels"):
        layers.pad2d(np.zeros((1, 1, 5, 2)), pads=((0, 0), pads), mode=mode, value=0.0)


def test_pad2d_refuses_an_unknown_mode():
    with pytest.raises(SpecError, match="got 'replicate'"):
        layers.pad2d(np.zeros((1, 1, 2, 2)), pads=((0, 0), (0, 0)), mode="replicate", value=0.0)


@pytest.mark.parametrize("factor", [1, 2, 3])
def test_pixel_shuffle_matches_torch_and_back(factor):
    images = random(2, 2 * factor**2, 3, 2)

    actual = layers.pixel_shuffle(images, factor=factor, order="cij")
    back = layers.pixel_unshuffle(actual, factor=factor, order="cij")

    assert_identical(actual, functional.pixel_shuffle(torch.tensor(images), factor).numpy())
    assert_identical(back, images)


def test_pixel_shuffle_orders_are_hand_computed():
    images = np.arange(8.0).reshape(1, 8, 1, 1)

    outer = layers.pixel_shuffle(images, factor=2, order="cij")
    inner = layers.pixel_shuffle(images, factor=2, order="ijc")

    assert_identical(outer, np.array([[[[0.0, 1], [2, 3]], [[4, 5], [6, 7]]]]))
    assert_identical(inner, np.array([[[[0.0, 2], [4, 6]], [[1, 3], [5, 7]]]]))


@pytest.mark.parametrize("order", ["cij", "ijc"])
def test_shuffle_gradients_move_back(order):
    images = random(1, 8, 2, 3)
    outputs = layers.pixel_shuffle(images, factor=2, order=order)

    moved = layers.pixel_shuffle_backward(outputs, factor=2, order=order)
    again = layers.pixel_unshuffle_backward(images, factor=2, order=order)

    assert_identical(moved, images)
    assert_identical(again, outputs)


def test_flatten_orders_are_hand_computed_and_gradients_move_back():
    images = np.arange(4.0).reshape(1, 2, 1, 2)

    outer, inner = (layers.flatten(images, order=order) for order in ("chw", "hwc"))

    assert_identical(outer, np.array([[0.0, 1.0, 2.0, 3.0]]))
    assert_identical(inner, np.array([[0.0, 2.0, 1.0, 3.0]]))
    assert_identical(layers.flatten_backward(outer, images, order="chw"), images)
    assert_identical(layers.flatten_backward(inner, images, order="hwc"), images)


@pytest.mark.parametrize(
    ("call", "described"),
    [
        (lambda x: layers.pixel_shuffle(x, factor=2, order="cij"), "2x2 does not divide 3"),
        (lambda x: layers.pixel_unshuffle(x, factor=2, order="ijc"), "2 does not divide images"),
        (lambda x: layers.pixel_shuffle(x, factor=1, order="cji"), "got 'cji'"),
        (lambda x: layers.flatten(x, order="whc"), "got 'whc'"),
        (lambda x: layers.flatten_backward(x, x, order="cwh"), "got 'cwh'"),
    ],
)
def test_rearrangement_refuses_what_does_not_fit(call, described):
    with pytest.raises(SpecError, match=described):
        call(np.zeros((1, 3, 3, 3)))
