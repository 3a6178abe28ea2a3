"""Generalized and transposed convolutions against torch's functionals and autograd, in float64."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from parity.errors import SpecError
from parity.reference import layers
from parity.testing.assertions import assert_close, assert_identical

TIGHT = {"atol": 1e-12, "rtol": 1e-12}
NO_PADS = ((0, 0), (0, 0))

CONVS = {
    "plain": {"stride": 1, "dilation": 1, "groups": 1},
    "unequal strides": {"stride": (2, 3), "dilation": 1, "groups": 1},
    "dilated": {"stride": 1, "dilation": (2, 3), "groups": 1},
    "strided and dilated": {"stride": (2, 1), "dilation": (2, 1), "groups": 1},
    "grouped": {"stride": 2, "dilation": 1, "groups": 2},
    "depthwise": {"stride": 1, "dilation": 1, "groups": 4},
}


def random(*shape):
    return np.random.default_rng(sum(shape)).standard_normal(shape)


def gradients_of(outputs, d_outputs, *tensors):
    return torch.autograd.grad(outputs, tensors, torch.tensor(d_outputs))


def leaves(*arrays):
    return [torch.tensor(array, requires_grad=True) for array in arrays]


@pytest.mark.parametrize("name", CONVS)
@pytest.mark.parametrize("kernel", [(3, 3), (2, 4), (1, 2)])
def test_conv2d_and_its_gradients_match_torch(name, kernel):
    knobs = CONVS[name]
    images, weight = random(2, 4, 8, 9), random(8, 4 // knobs["groups"], *kernel)
    bias, pads = random(8), ((2, 1), (0, 2))
    tensors = leaves(images, weight, bias)
    padded = functional.pad(tensors[0], (0, 2, 2, 1))
    expected = functional.conv2d(padded, *tensors[1:], **knobs)
    d_outputs = random(*expected.shape)

    actual = layers.conv2d(images, weight, bias, padding=pads, **knobs)
    gradients = layers.conv2d_backward(d_outputs, images, weight, padding=pads, **knobs)

    assert_close(actual, expected.detach(), **TIGHT)
    wanted = gradients_of(expected, d_outputs, *tensors)
    assert_close(gradients[0], wanted[0], **TIGHT, where="images")
    assert_close(gradients[1], wanted[1], **TIGHT, where="weight")
    assert_close(gradients[2], wanted[2], **TIGHT, where="bias")


@pytest.mark.parametrize("kernel", [2, 3, 4, 5])
@pytest.mark.parametrize("dilation", [1, 2])
def test_end_padding_is_torch_same_at_stride_1(kernel, dilation):
    images, weight = random(1, 2, 9, 8), random(3, 2, kernel, kernel)
    tensors = torch.tensor(images), torch.tensor(weight)
    expected = functional.conv2d(*tensors, padding="same", dilation=dilation)

    actual = layers.conv2d(images, weight, None, stride=1, padding="end", dilation=dilation)

    assert_close(actual, expected, **TIGHT)


@pytest.mark.parametrize(
    ("kernel", "dilation", "offset", "expected"),
    [
        (3, 2, "start", (2, 2)),
        (2, 3, "start", (1, 1)),
        (4, 1, "start", (1, 1)),
        (3, 2, "end", (1, 2)),
        (4, 1, "end", (1, 1)),
    ],
)
def test_window_pads_count_the_extent_of_a_dilated_or_even_kernel(
    kernel, dilation, offset, expected
):
    pads = layers.window_pads(8, kernel=kernel, stride=2, stride_offset=offset, dilation=dilation)

    assert pads == expected


def test_start_padding_loses_a_window_of_an_even_kernel():
    images, weight = np.ones((1, 1, 4, 4)), np.ones((1, 1, 2, 2))

    start = layers.conv2d(images, weight, None, stride=1, padding="start")
    end = layers.conv2d(images, weight, None, stride=1, padding="end")

    assert (start.shape, end.shape) == ((1, 1, 3, 3), (1, 1, 4, 4))


TRANSPOSED = {
    "plain": {"stride": 1, "dilation": 1, "groups": 1, "padding": 0, "output_padding": 0},
    "strided": {"stride": 2, "dilation": 1, "groups": 1, "padding": 1, "output_padding": 1},
    "dilated": {"stride": 1, "dilation": 2, "groups": 1, "padding": 2, "output_padding": 1},
    "grouped": {"stride": 3, "dilation": 1, "groups": 2, "padding": 0, "output_padding": 2},
}


@pytest.mark.parametrize("name", TRANSPOSED)
@pytest.mark.parametrize("kernel", [2, 3, 4])
def test_conv_transpose2d_and_its_gradients_match_torch(name, kernel):
    knobs = dict(TRANSPOSED[name])
    images, weight = random(2, 4, 3, 5), random(4, 3, kernel, kernel)
    bias = random(3 * knobs["groups"])
    tensors = leaves(images, weight, bias)
    expected = functional.conv_transpose2d(*tensors, **knobs)
    d_outputs = random(*expected.shape)
    crops = layers.transposed_crops(
        kernel=kernel,
        stride=knobs["stride"],
        dilation=knobs["dilation"],
        padding=knobs.pop("padding"),
        output_padding=knobs.pop("output_padding"),
    )
    knobs["crops"] = (crops, crops)

    actual = layers.conv_transpose2d(images, weight, bias, **knobs)
    gradients = layers.conv_transpose2d_backward(d_outputs, images, weight, **knobs)

    assert_close(actual, expected.detach(), **TIGHT)
    wanted = gradients_of(expected, d_outputs, *tensors)
    assert_close(gradients[0], wanted[0], **TIGHT, where="images")
    assert_close(gradients[1], wanted[1], **TIGHT, where="weight")
    assert_close(gradients[2], wanted[2], **TIGHT, where="bias")


@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "output_padding", "expected"),
    [
        (3, 2, 1, 1, (1, 0)),
        (3, 2, "same", None, (0, 1)),
        (4, 2, "same", None, (1, 1)),
        (3, 2, "same", 1, (0, 1)),
        (3, 2, "same", 0, (1, 1)),
        (2, 3, "same", None, (0, -1)),
        (3, 2, "valid", None, (0, 0)),
        (2, 3, "valid", None, (0, -1)),
        (2, 3, "valid", 2, (0, -2)),
    ],
)
def test_transposed_crops_follow_either_framework(
    kernel, stride, padding, output_padding, expected
):
    crops = layers.transposed_crops(
        kernel=kernel, stride=stride, dilation=1, padding=padding, output_padding=output_padding
    )

    assert crops == expected


def test_same_transposed_convolution_is_the_gradient_of_an_end_padded_convolution():
    images, weight = random(1, 2, 4, 4), random(2, 3, 3, 3)
    crops = layers.transposed_crops(
        kernel=3, stride=2, dilation=1, padding="same", output_padding=None
    )

    actual = layers.conv_transpose2d(images, weight, None, stride=2, crops=(crops, crops))
    expected, _, _ = layers.conv2d_backward(
        images, np.zeros((1, 3, 8, 8)), weight, stride=2, padding="end"
    )

    assert_identical(actual, expected)


def test_negative_crops_add_pixels_that_hold_the_bias():
    actual = layers.conv_transpose2d(
        np.ones((1, 1, 1, 1)), np.ones((1, 1, 1, 1)), [2.0], stride=3, crops=((-1, 0), (0, -1))
    )

    assert_identical(actual, np.array([[[[2.0, 2.0], [3.0, 2.0]]]]))


@pytest.mark.parametrize(
    ("shapes", "knobs", "described"),
    [
        (((1, 4, 5, 5), (4, 4, 3, 3)), {"groups": 2}, "groups 2"),
        (((1, 4, 5, 5), (3, 2, 3, 3)), {"groups": 2}, "that groups divide; got 3 and groups 2"),
        (((1, 1, 5, 5), (1, 1, 3, 3)), {"stride": 0}, "of at least 1"),
        (((1, 1, 5, 5), (1, 1, 3, 3)), {"dilation": 3}, "dilated by \\(3, 3\\), does not fit"),
        (((1, 1, 5, 5), (1, 1, 3, 3)), {"padding": ((0, -1), (0, 0))}, "pads of at least 0"),
    ],
    ids=str,
)
def test_conv2d_refuses_what_does_not_fit(shapes, knobs, described):
    images, weight = map(np.zeros, shapes)

    with pytest.raises(SpecError, match=described):
        layers.conv2d(images, weight, None, **{"stride": 1, "padding": NO_PADS} | knobs)


@pytest.mark.parametrize(
    ("shape", "knobs", "described"),
    [
        ((2, 1, 1, 1), {}, "of the same c"),
        ((3, 1, 1, 1), {"groups": 2}, "got 3 and groups 2"),
        ((3, 1, 1, 1), {"crops": ((1, 1), (0, 0))}, "leave nothing"),
    ],
)
def test_conv_transpose2d_refuses_what_does_not_fit(shape, knobs, described):
    with pytest.raises(SpecError, match=described):
        layers.conv_transpose2d(
            np.zeros((1, 3, 2, 2)), np.zeros(shape), None, **{"stride": 1, "crops": NO_PADS} | knobs
        )


@pytest.mark.parametrize(
    ("padding", "described"), [(1, "needs an output_padding"), ("full", "got 'full'")]
)
def test_transposed_crops_refuse_what_no_framework_has(padding, described):
    with pytest.raises(SpecError, match=described):
        layers.transposed_crops(
            kernel=3, stride=2, dilation=1, padding=padding, output_padding=None
        )


@pytest.mark.parametrize("length", [1, 3])
@pytest.mark.parametrize(
    ("layer", "arguments"),
    [
        (layers.conv2d, {"padding": "start"}),
        (layers.conv_transpose2d, {"crops": ((0, 0), (0, 0))}),
    ],
    ids=["conv2d", "conv_transpose2d"],
)
def test_convolution_refuses_a_bias_of_another_length(layer, arguments, length):
    images, weight = np.ones((1, 2, 4, 4)), np.ones((2, 2, 3, 3))

    with pytest.raises(SpecError, match=rf"a bias of shape \(2,\); got \({length},\)"):
        layer(images, weight, np.zeros(length), stride=1, **arguments)
