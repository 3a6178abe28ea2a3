"""The reference's normalizations against torch's functionals and autograd, in float64."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from parity.errors import DivergenceError, SpecError
from parity.reference import layers
from parity.rng import stream
from parity.testing.assertions import assert_close
from parity.testing.faults import seed_array_fault

TIGHT = {"atol": 1e-12, "rtol": 1e-12}
SHAPES = [(5, 4), (3, 4, 5), (2, 4, 3, 5), (2, 4, 2, 3, 2)]


def normal(*shape, name="inputs"):
    return stream(0, "test", name, *shape).standard_normal(shape)


def affine(shape, *, is_affine):
    if not is_affine:
        return None, None
    return normal(*shape, name="weight"), normal(*shape, name="bias")


def torch_gradients(function, *arrays):
    """Return torch's outputs, the gradient that they are given, and those of the arrays."""
    leaves = [None if array is None else torch.tensor(array) for array in arrays]
    present = [leaf.requires_grad_() for leaf in leaves if leaf is not None]
    outputs = function(*leaves)
    d_outputs = normal(*outputs.shape, name="d_outputs")
    outputs.backward(torch.tensor(d_outputs))
    return outputs.detach().numpy(), d_outputs, [leaf.grad.numpy() for leaf in present]


def assert_gradients(gradients, expected):
    names = ("input gradient", "weight gradient", "bias gradient")
    for actual, wanted, name in zip(gradients, expected, names, strict=False):
        assert_close(actual, wanted, **TIGHT, where=name)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("is_affine", [True, False], ids=["affine", "plain"])
@pytest.mark.parametrize("training", [True, False], ids=["training", "inference"])
def test_batch_norm_matches_torch(shape, is_affine, training):
    inputs, (weight, bias) = normal(*shape), affine((4,), is_affine=is_affine)
    stored = normal(4, name="mean"), np.exp(normal(4, name="var"))
    buffers = [torch.tensor(array) for array in stored]
    outputs, d_outputs, expected = torch_gradients(
        lambda x, w=None, b=None: functional.batch_norm(
            x, *buffers, w, b, training=training, momentum=0.3, eps=1e-3
        ),
        inputs,
        weight,
        bias,
    )

    mode = {"training": training, "epsilon": 1e-3}
    actual = layers.batch_norm(
        inputs, weight, bias, *stored, **mode, stats_decay=0.7, variance_correction=1
    )
    gradients = layers.batch_norm_backward(d_outputs, inputs, weight, *stored, **mode)

    assert_close(actual[0], outputs, **TIGHT, where="outputs")
    assert_close(actual[1], buffers[0], **TIGHT, where="running_mean")
    assert_close(actual[2], buffers[1], **TIGHT, where="running_var")
    assert_gradients(gradients, expected)


@pytest.mark.parametrize("batches", [1, 2, 5])
def test_batch_norm_with_a_growing_decay_is_torchs_cumulative_average(batches):
    layer = torch.nn.BatchNorm1d(3, momentum=None).double()
    mean, var = np.zeros(3), np.ones(3)
    for batch in range(1, batches + 1):
        inputs = normal(4, 3, name=f"batch {batch}")
        layer(torch.tensor(inputs))
        _, mean, var = layers.batch_norm(
            inputs, None, None, mean, var,
            training=True, stats_decay=1.0 - 1.0 / batch, variance_correction=1, epsilon=1e-5,
        )  # fmt: skip

    assert_close(mean, layer.running_mean, **TIGHT, where="running_mean")
    assert_close(var, layer.running_var, **TIGHT, where="running_var")


@pytest.mark.parametrize("axes", [(-1,), (-2, -1), (1, 2, 3)], ids=str)
@pytest.mark.parametrize("is_affine", [True, False], ids=["affine", "plain"])
def test_layer_norm_matches_torch(axes, is_affine):
    inputs = normal(2, 3, 4, 5)
    shape = inputs.shape[4 - len(axes) :]
    weight, bias = affine(shape, is_affine=is_affine)
    outputs, d_outputs, expected = torch_gradients(
        lambda x, w=None, b=None: functional.layer_norm(x, shape, w, b, 1e-3), inputs, weight, bias
    )

    knobs = {"axes": axes, "epsilon": 1e-3}
    assert_close(layers.layer_norm(inputs, weight, bias, **knobs), outputs, **TIGHT)
    assert_gradients(layers.layer_norm_backward(d_outputs, inputs, weight, **knobs), expected)


def test_layer_norm_over_an_inner_axis_is_that_of_the_moved_axis():
    inputs, d_outputs = normal(2, 3, 4), normal(2, 3, 4, name="d_outputs")
    weight, bias = affine((3,), is_affine=True)
    last, d_last = np.moveaxis(inputs, 1, -1), np.moveaxis(d_outputs, 1, -1)

    inner = layers.layer_norm(inputs, weight, bias, axes=(1,), epsilon=1e-3)
    outer = layers.layer_norm(last, weight, bias, axes=(2,), epsilon=1e-3)
    inner_gradients = layers.layer_norm_backward(d_outputs, inputs, weight, axes=(1,), epsilon=1e-3)
    outer_gradients = layers.layer_norm_backward(d_last, last, weight, axes=(2,), epsilon=1e-3)

    assert_close(np.moveaxis(inner, 1, -1), outer, **TIGHT)
    assert_close(np.moveaxis(inner_gradients[0], 1, -1), outer_gradients[0], **TIGHT)
    assert_gradients(inner_gradients[1:], outer_gradients[1:])


@pytest.mark.parametrize("axes", [(-1,), (2, 3)], ids=str)
@pytest.mark.parametrize("is_affine", [True, False], ids=["affine", "plain"])
def test_rms_norm_matches_torch(axes, is_affine):
    inputs = normal(2, 3, 4, 5)
    shape = inputs.shape[4 - len(axes) :]
    weight, _ = affine(shape, is_affine=is_affine)
    outputs, d_outputs, expected = torch_gradients(
        lambda x, w=None: functional.rms_norm(x, shape, w, 1e-3), inputs, weight
    )

    knobs = {"axes": axes, "epsilon": 1e-3}
    assert_close(layers.rms_norm(inputs, weight, **knobs), outputs, **TIGHT)
    assert_gradients(layers.rms_norm_backward(d_outputs, inputs, weight, **knobs), expected)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("is_affine", [True, False], ids=["affine", "plain"])
def test_group_norm_matches_torch(shape, groups, is_affine):
    inputs, (weight, bias) = normal(*shape), affine((4,), is_affine=is_affine)
    outputs, d_outputs, expected = torch_gradients(
        lambda x, w=None, b=None: functional.group_norm(x, groups, w, b, 1e-3),
        inputs,
        weight,
        bias,
    )

    knobs = {"groups": groups, "epsilon": 1e-3}
    assert_close(layers.group_norm(inputs, weight, bias, **knobs), outputs, **TIGHT)
    assert_gradients(layers.group_norm_backward(d_outputs, inputs, weight, **knobs), expected)


def test_group_norm_groups_neighbouring_channels():
    inputs = np.array([[[1.0], [3.0], [10.0], [30.0]]])

    outputs = layers.group_norm(inputs, None, None, groups=2, epsilon=0.0)

    assert_close(outputs, [[[-1.0], [1.0], [-1.0], [1.0]]], **TIGHT)


@pytest.mark.parametrize("shape", SHAPES[1:], ids=str)
def test_instance_norm_matches_torch(shape):
    inputs, (weight, bias) = normal(*shape), affine((4,), is_affine=True)
    outputs, d_outputs, expected = torch_gradients(
        lambda x, w, b: functional.instance_norm(x, None, None, w, b, eps=1e-3),
        inputs,
        weight,
        bias,
    )

    assert_close(layers.instance_norm(inputs, weight, bias, epsilon=1e-3), outputs, **TIGHT)
    assert_gradients(
        layers.instance_norm_backward(d_outputs, inputs, weight, epsilon=1e-3), expected
    )


@pytest.mark.parametrize("scale", [1.0, 1e-7], ids=["above the floor", "below it"])
def test_unit_norm_matches_torch(scale):
    inputs = scale * normal(2, 3, 4)
    outputs, d_outputs, (expected,) = torch_gradients(
        lambda x: functional.normalize(x, dim=1, eps=1e-5), inputs
    )

    d_inputs = layers.unit_norm_backward(d_outputs, inputs, axis=1, floor=1e-5)

    assert_close(layers.unit_norm(inputs, axis=1, floor=1e-5), outputs, **TIGHT)
    assert_close(d_inputs, expected, atol=1e-12, rtol=1e-11)


@pytest.mark.parametrize("epsilon", [1e-5, 1e-3])
def test_normalizations_of_a_constant_are_its_bias(epsilon):
    inputs, bias = np.full((2, 4, 3), 7.0), normal(4, name="bias")
    expected = np.broadcast_to(bias[:, np.newaxis], inputs.shape)

    grouped = layers.group_norm(inputs, bias, bias, groups=2, epsilon=epsilon)
    by_layer = layers.layer_norm(inputs, bias, bias, axes=(1,), epsilon=epsilon)

    assert_close(grouped, expected, atol=0.0, rtol=0.0)
    assert_close(by_layer, expected, atol=0.0, rtol=0.0)


@pytest.mark.parametrize("fault", ["element_bumped", "scaled", "channels_swapped"])
@pytest.mark.parametrize("name", ["batch", "group", "layer", "rms"])
def test_normalization_check_catches_faults_in_the_weight(name, fault):
    inputs, weight = normal(3, 4), normal(4, name="weight")
    ones, zeros = np.ones(4), np.zeros(4)
    run = {
        "batch": lambda weight: layers.batch_norm(
            inputs, weight, zeros, zeros, ones,
            training=True, stats_decay=0.9, variance_correction=1, epsilon=1e-5,
        )[0],
        "group": lambda weight: layers.group_norm(inputs, weight, zeros, groups=2, epsilon=1e-5),
        "layer": lambda weight: layers.layer_norm(inputs, weight, zeros, axes=(1,), epsilon=1e-5),
        "rms": lambda weight: layers.rms_norm(inputs, weight, axes=(1,), epsilon=1e-5),
    }[name]  # fmt: skip

    with pytest.raises(DivergenceError, match="elements differ"):
        assert_close(run(seed_array_fault(fault, weight)), run(weight), **TIGHT)


IMAGES = np.zeros((2, 4, 3, 3))
FOUR, THREE = np.ones(4), np.ones(3)
REFUSED = {
    "channels": (
        lambda: layers.batch_norm(
            IMAGES, THREE, FOUR, FOUR, FOUR,
            training=True, stats_decay=0.9, variance_correction=1, epsilon=1e-5,
        ),
        r"one value a channel; got \(2, 4, 3, 3\) and \(3,\)",
    ),
    "no channels": (
        lambda: layers.group_norm(FOUR, None, None, groups=1, epsilon=1e-5),
        r"expected inputs \(n, c, ...\) and one value a channel; got \(4,\)",
    ),
    "images": (
        lambda: layers.batch_norm2d_backward(
            IMAGES[0], IMAGES[0], FOUR, FOUR, FOUR, training=True, epsilon=1e-5
        ),
        r"expected images \(n, c, h, w\); got \(4, 3, 3\)",
    ),
    "groups": (
        lambda: layers.group_norm(IMAGES, FOUR, FOUR, groups=3, epsilon=1e-5),
        "groups that divide 4 channels; got 3",
    ),
    "no groups": (
        lambda: layers.group_norm(IMAGES, FOUR, FOUR, groups=0, epsilon=1e-5),
        "groups that divide 4 channels; got 0",
    ),
    "epsilon": (
        lambda: layers.layer_norm(IMAGES, None, None, axes=(1,), epsilon=-1e-5),
        "an epsilon >= 0 and finite; got -1e-05",
    ),
    "axis": (
        lambda: layers.rms_norm(IMAGES, None, axes=(4,), epsilon=1e-5),
        r"rising axes of inputs of shape \(2, 4, 3, 3\), each once; got \(4,\)",
    ),
    "axis twice": (
        lambda: layers.layer_norm(IMAGES, None, None, axes=(3, -1), epsilon=1e-5),
        r"each once; got \(3, -1\)",
    ),
    "no axis": (
        lambda: layers.layer_norm(IMAGES, None, None, axes=(), epsilon=1e-5),
        r"each once; got \(\)",
    ),
    "weight of an axis": (
        lambda: layers.layer_norm(IMAGES, FOUR, None, axes=(-1,), epsilon=1e-5),
        r"weight and bias of shape \(3,\); got \(4,\)",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("call", "message"), REFUSED.values(), ids=REFUSED)
def test_normalization_refuses_what_cannot_be(call, message):
    with pytest.raises(SpecError, match=message):
        call()
