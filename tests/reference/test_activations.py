"""The reference's activations against torch's functionals and autograd, in float64."""

import functools

import numpy as np
import pytest
import torch
from torch.nn import functional

from parity.errors import SpecError
from parity.reference import layers
from parity.rng import stream
from parity.testing.assertions import assert_close, assert_identical

TIGHT = {"atol": 1e-13, "rtol": 1e-12}
# Every kink of the table below is among them: 0, the edges -3, -1, 1, 3 and 6, and the thresholds.
POINTS = np.concatenate([np.linspace(-7.0, 7.0, 57), [-60.0, -20.5, 20.5, 60.0, 700.0]])

# Forward, backward and torch's function, with the same knobs.
ELEMENTWISE = {
    "relu": (layers.relu, layers.relu_backward, functional.relu),
    "leaky_relu": (
        functools.partial(layers.leaky_relu, negative_slope=0.3),
        functools.partial(layers.leaky_relu_backward, negative_slope=0.3, at_zero="below"),
        lambda x: functional.leaky_relu(x, 0.3),
    ),
    "elu": (
        functools.partial(layers.elu, alpha=0.7),
        functools.partial(layers.elu_backward, alpha=0.7),
        lambda x: functional.elu(x, 0.7),
    ),
    "selu": (
        layers.selu,
        functools.partial(layers.selu_backward, at_zero="below"),
        functional.selu,
    ),
    "celu": (
        functools.partial(layers.celu, alpha=0.5),
        functools.partial(layers.celu_backward, alpha=0.5, slope_at_zero=1.0),
        lambda x: functional.celu(x, 0.5),
    ),
    "relu6": (layers.relu6, layers.relu6_backward, functional.relu6),
    "hard_tanh": (
        functools.partial(layers.hard_tanh, low=-1.0, high=3.0),
        functools.partial(layers.hard_tanh_backward, low=-1.0, high=3.0, pass_at_edges=False),
        lambda x: functional.hardtanh(x, -1.0, 3.0),
    ),
    "hard_sigmoid": (
        functools.partial(layers.hard_sigmoid, slope=1.0 / 6.0),
        functools.partial(layers.hard_sigmoid_backward, slope=1.0 / 6.0),
        functional.hardsigmoid,
    ),
    "hard_swish": (layers.hard_swish, layers.hard_swish_backward, functional.hardswish),
    "soft_shrink": (
        functools.partial(layers.soft_shrink, threshold=0.5),
        functools.partial(layers.soft_shrink_backward, threshold=0.5),
        functional.softshrink,
    ),
    "hard_shrink": (
        functools.partial(layers.hard_shrink, threshold=0.5),
        functools.partial(layers.hard_shrink_backward, threshold=0.5),
        functional.hardshrink,
    ),
    "sigmoid": (layers.sigmoid, layers.sigmoid_backward, torch.sigmoid),
    "log_sigmoid": (layers.log_sigmoid, layers.log_sigmoid_backward, functional.logsigmoid),
    "tanh": (layers.tanh, layers.tanh_backward, torch.tanh),
    "softsign": (layers.softsign, layers.softsign_backward, functional.softsign),
    "softplus": (
        functools.partial(layers.softplus, beta=2.0, threshold=5.0),
        functools.partial(layers.softplus_backward, beta=2.0, threshold=5.0),
        lambda x: functional.softplus(x, 2.0, 5.0),
    ),
    "silu": (layers.silu, layers.silu_backward, functional.silu),
    "mish": (layers.mish, layers.mish_backward, functional.mish),
    "gelu_exact": (
        functools.partial(layers.gelu, form="exact"),
        functools.partial(layers.gelu_backward, form="exact"),
        functional.gelu,
    ),
    "gelu_tanh": (
        functools.partial(layers.gelu, form="tanh"),
        functools.partial(layers.gelu_backward, form="tanh"),
        lambda x: functional.gelu(x, approximate="tanh"),
    ),
}
# torch keeps the slope 1/6 of its hard sigmoid's backward, and 1 / alpha of its CELU's, in float32,
# whatever the dtype of the tensor: 3e-8 of the gradient. An alpha of 0.5 has an exact inverse.
GRADIENT_BOUNDS = {"hard_sigmoid": {"atol": 1e-13, "rtol": 4e-8}}
ALONG_AXIS = {
    "softmax": (layers.softmax, layers.softmax_backward, torch.softmax),
    "log_softmax": (layers.log_softmax, layers.log_softmax_backward, torch.log_softmax),
    "glu": (layers.glu, layers.glu_backward, functional.glu),
}


def normal(*shape, name="inputs"):
    return stream(0, "test", name, *shape).standard_normal(shape)


def torch_gradients(function, d_outputs_of, *arrays):
    """Return torch's outputs, the gradient that they are given, and those of the arrays."""
    leaves = [torch.tensor(array, requires_grad=True) for array in arrays]
    outputs = function(*leaves)
    d_outputs = d_outputs_of(*outputs.shape, name="d_outputs")
    outputs.backward(torch.tensor(d_outputs))
    return outputs.detach().numpy(), d_outputs, [leaf.grad.numpy() for leaf in leaves]


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_activation_matches_torch_at_its_kinks_too(name):
    forward, backward, function = ELEMENTWISE[name]
    outputs, d_outputs, (d_inputs,) = torch_gradients(function, normal, POINTS)

    bounds = GRADIENT_BOUNDS.get(name, TIGHT)
    assert_close(forward(POINTS), outputs, **TIGHT, where="outputs")
    assert_close(backward(d_outputs, POINTS), d_inputs, **bounds, where="input gradient")


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_activation_gradient_matches_differences_beside_its_kinks(name):
    forward, backward, _ = ELEMENTWISE[name]
    points, step = POINTS[np.abs(POINTS) < 7.0] + 0.03, 1e-5

    slopes = (forward(points + step) - forward(points - step)) / (2 * step)

    assert_close(backward(np.ones_like(points), points), slopes, atol=2e-9, rtol=0.0)


@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("name", ALONG_AXIS)
def test_activation_along_an_axis_matches_torch(name, axis):
    forward, backward, function = ALONG_AXIS[name]
    inputs = 3.0 * normal(2, 4, 6)
    outputs, d_outputs, (d_inputs,) = torch_gradients(lambda x: function(x, axis), normal, inputs)

    assert_close(forward(inputs, axis=axis), outputs, **TIGHT, where="outputs")
    assert_close(backward(d_outputs, inputs, axis=axis), d_inputs, **TIGHT, where="input gradient")


@pytest.mark.parametrize("shape", [(3, 4), (3, 4, 5), (2, 4, 3, 5)], ids=str)
@pytest.mark.parametrize("count", [1, 4])
def test_prelu_matches_torch(shape, count):
    inputs, weight = normal(*shape), normal(count, name="weight")
    inputs.reshape(-1)[0] = 0.0
    outputs, d_outputs, (d_inputs, d_weight) = torch_gradients(
        functional.prelu, normal, inputs, weight
    )

    gradients = layers.prelu_backward(d_outputs, inputs, weight, at_zero="below")

    assert_close(layers.prelu(inputs, weight), outputs, **TIGHT, where="outputs")
    assert_close(gradients[0], d_inputs, **TIGHT, where="input gradient")
    assert_close(gradients[1], d_weight, **TIGHT, where="weight gradient")


def test_prelu_takes_a_slope_for_each_element_of_a_sample():
    inputs, weight = -np.ones((2, 2, 1, 2)), np.arange(4.0).reshape(2, 1, 2)

    outputs = layers.prelu(inputs, weight)
    _, d_weight = layers.prelu_backward(np.ones((2, 2, 1, 2)), inputs, weight, at_zero="below")

    assert_identical(outputs, -np.stack([weight, weight]))
    assert_identical(d_weight, np.full((2, 1, 2), -2.0))


@pytest.mark.parametrize(("at_zero", "expected"), [("below", 0.3), ("above", 1.0), ("zero", 0.0)])
def test_slope_at_zero_is_the_one_that_is_asked_for(at_zero, expected):
    one, zero = np.ones((1, 1)), np.zeros((1, 1))

    leaky = layers.leaky_relu_backward(one, zero, negative_slope=0.3, at_zero=at_zero)
    trained, _ = layers.prelu_backward(one, zero, [0.3], at_zero=at_zero)

    assert_identical(leaky, np.array([[expected]]))
    assert_identical(trained, np.array([[expected]]))


def test_selu_has_either_slope_at_zero():
    below, above = (layers.selu_backward([1.0], [0.0], at_zero=side) for side in ("below", "above"))

    assert_close(below, [1.7580993408473766], **TIGHT)
    assert_close(above, [1.0507009873554805], **TIGHT)


def test_celu_has_the_slope_at_zero_that_is_asked_for():
    assert_identical(
        layers.celu_backward([3.0], [0.0], alpha=0.5, slope_at_zero=2.0), np.array([6.0])
    )


def test_hard_tanh_passes_its_edges_where_asked():
    edges = {"low": -1.0, "high": 1.0}

    passed = layers.hard_tanh_backward([1.0, 1.0], [-1.0, 1.0], **edges, pass_at_edges=True)

    assert_identical(passed, np.ones(2))


def test_hard_sigmoid_has_the_slope_of_keras_2_where_asked():
    inputs = np.array([-2.5, -1.0, 0.0, 1.0, 2.5])

    outputs = layers.hard_sigmoid(inputs, slope=0.2)

    assert_close(outputs, [0.0, 0.3, 0.5, 0.7, 1.0], **TIGHT)


def test_softplus_without_a_threshold_is_exact_beyond_torchs():
    exact = layers.softplus([21.0], beta=1.0, threshold=None)
    cut = layers.softplus([21.0], beta=1.0, threshold=20.0)

    assert_close(exact - cut, [np.exp(-21.0)], atol=4e-15, rtol=0.0)


def test_gelu_forms_differ_by_their_known_distance():
    inputs = np.linspace(-6.0, 6.0, 12001)
    gaps = np.abs(layers.gelu(inputs, form="exact") - layers.gelu(inputs, form="tanh"))

    assert_close(gaps.max(), 4.73e-4, atol=1e-6, rtol=0.0)


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_activation_keeps_nan(name):
    forward, _, _ = ELEMENTWISE[name]

    assert_close(forward([np.nan]), [np.nan], atol=0.0, rtol=0.0)


@pytest.mark.parametrize("inputs", [[1e4, -1e4, 0.0], [700.0, 710.0, 720.0]], ids=str)
def test_softmax_does_not_overflow(inputs):
    assert_close(layers.softmax(inputs, axis=0).sum(), 1.0, **TIGHT)


REFUSED = {
    "slope side": (
        lambda: layers.leaky_relu_backward([1.0], [0.0], negative_slope=0.1, at_zero="left"),
        "at_zero must be 'below', 'above' or 'zero'; got 'left'",
    ),
    "prelu weight": (
        lambda: layers.prelu(np.zeros((2, 3, 4)), np.zeros(2)),
        r"of shape \(3, 4\) with 1 where it is shared; got \(2, 1\)",
    ),
    "celu alpha": (lambda: layers.celu([1.0], alpha=0.0), "an alpha other than 0"),
    "gelu form": (lambda: layers.gelu([1.0], form="erf"), "'exact' or 'tanh'; got 'erf'"),
    "softplus beta": (
        lambda: layers.softplus([1.0], beta=0.0, threshold=None),
        "a beta above 0; got 0.0",
    ),
    "hard tanh edges": (
        lambda: layers.hard_tanh([1.0], low=1.0, high=1.0),
        "low < high; got 1.0 and 1.0",
    ),
    "hard sigmoid slope": (
        lambda: layers.hard_sigmoid([1.0], slope=-0.2),
        "a slope above 0; got -0.2",
    ),
    "odd glu": (
        lambda: layers.glu(np.zeros((2, 3)), axis=1),
        r"an even length along axis 1; got shape \(2, 3\)",
    ),
}


@pytest.mark.parametrize(("call", "message"), REFUSED.values(), ids=REFUSED)
def test_activation_refuses_what_cannot_be(call, message):
    with pytest.raises(SpecError, match=message):
        call()
