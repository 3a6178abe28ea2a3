"""Pooling with every knob against torch's functionals and autograd, in float64."""

import itertools

import numpy as np
import pytest
import torch
from torch.nn import functional

from parity.errors import SpecError
from parity.reference import layers
from parity.testing.assertions import assert_close, assert_identical

TIGHT = {"atol": 1e-12, "rtol": 1e-12}
NO_PADS = ((0, 0), (0, 0))
PLAIN = {"kernel": 2, "stride": 2, "padding": NO_PADS, "ceil_mode": False}


def random(*shape):
    return np.random.default_rng(sum(shape)).standard_normal(shape)


def torch_outcome(function, images, **knobs):
    tensor = torch.tensor(images, requires_grad=True)
    outputs = function(tensor, **knobs)
    d_outputs = random(*outputs.shape)
    outputs.backward(torch.tensor(d_outputs))
    return outputs.detach(), d_outputs, tensor.grad


@pytest.mark.parametrize("ceil_mode", [False, True])
@pytest.mark.parametrize(
    ("kernel", "stride", "pad"), [((3, 3), (2, 2), (1, 1)), ((2, 3), (3, 2), (0, 1))]
)
@pytest.mark.parametrize("size", [(7, 8), (4, 5)])
def test_max_pool2d_and_its_gradient_match_torch(size, kernel, stride, pad, ceil_mode):
    images = random(2, 2, *size)
    expected, d_outputs, d_images = torch_outcome(
        functional.max_pool2d,
        images,
        kernel_size=kernel,
        stride=stride,
        padding=pad,
        ceil_mode=ceil_mode,
    )
    knobs = {"kernel": kernel, "stride": stride, "padding": tuple((p, p) for p in pad)}
    knobs |= {"fill": -np.inf, "ceil_mode": ceil_mode}

    assert_identical(layers.max_pool2d(images, **knobs), expected.numpy())
    assert_close(layers.max_pool2d_backward(d_outputs, images, **knobs), d_images, **TIGHT)


def test_max_pool2d_with_zeros_around_ignores_negative_borders():
    images = np.full((1, 1, 2, 2), -1.0)
    knobs = {"kernel": 3, "stride": 2, "padding": ((1, 1), (1, 1)), "ceil_mode": False}

    zeros = layers.max_pool2d(images, **knobs, fill=0.0)
    d_images = layers.max_pool2d_backward(np.ones((1, 1, 1, 1)), images, **knobs, fill=0.0)
    infinities = layers.max_pool2d(images, **knobs, fill=-np.inf)

    assert_identical(zeros, np.zeros((1, 1, 1, 1)))
    assert_identical(d_images, np.zeros((1, 1, 2, 2)))
    assert_identical(infinities, np.full((1, 1, 1, 1), -1.0))


@pytest.mark.parametrize(
    ("count_include_pad", "ceil_mode", "size"),
    list(itertools.product([False, True], [False, True], [(7, 8), (4, 5), (6, 6)])),
)
@pytest.mark.parametrize(("kernel", "stride", "pad"), [(3, 2, 1), (2, 3, 1), (4, 3, 2)])
def test_average_pool2d_and_its_gradient_match_torch(
    size, kernel, stride, pad, count_include_pad, ceil_mode
):
    images = random(2, 2, *size)
    shared = {"stride": stride, "count_include_pad": count_include_pad, "ceil_mode": ceil_mode}
    expected, d_outputs, d_images = torch_outcome(
        functional.avg_pool2d, images, kernel_size=kernel, padding=pad, **shared
    )
    knobs = shared | {"kernel": kernel, "padding": ((pad, pad),) * 2}

    assert_close(layers.average_pool2d(images, **knobs), expected, **TIGHT)
    assert_close(layers.average_pool2d_backward(d_outputs, images, **knobs), d_images, **TIGHT)


@pytest.mark.parametrize("target", [(1, 1), (3, 2), (5, 7), (8, 9)])
def test_adaptive_average_pool2d_and_its_gradient_match_torch(target):
    images = random(2, 2, 5, 7)
    expected, d_outputs, d_images = torch_outcome(
        functional.adaptive_avg_pool2d, images, output_size=target
    )

    actual = layers.adaptive_average_pool2d(images, target)
    gradient = layers.adaptive_average_pool2d_backward(d_outputs, images, target)

    assert_close(actual, expected, **TIGHT)
    assert_close(gradient, d_images, **TIGHT)


def test_pooling_refuses_windows_of_nothing_but_pads():
    images, knobs = np.ones((1, 1, 2, 2)), PLAIN | {"padding": ((2, 0), (0, 0))}

    with pytest.raises(SpecError, match="reads nothing but pads of -inf"):
        layers.max_pool2d(images, **knobs, fill=-np.inf)
    with pytest.raises(SpecError, match="reads nothing that counts"):
        layers.average_pool2d(images, **knobs, count_include_pad=False)


def test_max_pool2d_refuses_to_mix_zeros_with_what_ceil_mode_reads():
    with pytest.raises(SpecError, match=r"needs a fill of minus infinity; got 0\.0"):
        layers.max_pool2d(np.ones((1, 1, 3, 3)), **PLAIN | {"ceil_mode": True}, fill=0.0)


def test_adaptive_average_pool2d_refuses_an_empty_target():
    with pytest.raises(SpecError, match=r"at least 1x1; got \(0, 1\)"):
        layers.adaptive_average_pool2d(np.ones((1, 1, 2, 2)), (0, 1))
