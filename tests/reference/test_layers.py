"""The reference layers against torch's functionals, autograd and differences, in float64."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from parity.errors import DivergenceError, SpecError
from parity.reference import layers
from parity.testing import cases
from parity.testing.assertions import assert_close, assert_identical
from parity.testing.faults import ARRAY_FAULTS, seed_array_fault

TIGHT = {"atol": 1e-12, "rtol": 1e-12}


# Both frameworks' max pooling layers.
POOL = {"kernel": 3, "stride": 2, "fill": -np.inf, "ceil_mode": False}


def window(case):
    return {"stride": case.stride, "padding": case.stride_offset}


def leaves(arrays):
    return {name: torch.tensor(array, requires_grad=True) for name, array in arrays.items()}


def torch_pads(images, *, kernel, stride, padding):
    """Pads in functional.pad's order; `end` by a brute search for the least total that fits."""
    if padding == "start":
        return (kernel // 2,) * 4
    pads = []
    for size in (images.shape[3], images.shape[2]):
        wanted = len(range(0, size, stride))
        totals = (t for t in range(kernel) if size + t >= kernel)
        total = next(t for t in totals if (size + t - kernel) // stride + 1 >= wanted)
        pads += [total // 2, total - total // 2]
    return tuple(pads)


def torch_conv2d(case, images, weight, bias=None):
    pads = torch_pads(images, kernel=case.kernel, **window(case))
    return functional.conv2d(functional.pad(images, pads), weight, bias, stride=case.stride)


def torch_max_pool2d(case, images):
    pads = torch_pads(images, kernel=3, stride=2, padding=case.stride_offset)
    return functional.max_pool2d(functional.pad(images, pads, value=-torch.inf), 3, stride=2)


def torch_batch_norm2d(case, images, weight, bias, running_mean, running_var):
    return functional.batch_norm(
        images,
        running_mean,
        running_var,
        weight,
        bias,
        training=case.training,
        momentum=1.0 - case.stats_decay,
        eps=case.epsilon,
    )


def batch_norm_arguments(case):
    return {
        "training": case.training,
        "stats_decay": case.stats_decay,
        "variance_correction": case.variance_correction,
        "epsilon": case.epsilon,
    }


def numerical_gradient(loss, array, *, step=1e-6):
    gradient = np.zeros_like(array)
    for index in np.ndindex(array.shape):
        nudge = np.zeros_like(array)
        nudge[index] = step
        gradient[index] = (loss(array + nudge) - loss(array - nudge)) / (2 * step)
    return gradient


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "expected"),
    [
        (8, 3, 2, (0, 1)),
        (7, 3, 2, (1, 1)),
        (8, 7, 2, (2, 3)),
        (8, 1, 2, (0, 0)),
        (5, 2, 1, (0, 1)),
        (1, 7, 2, (3, 3)),
    ],
)
def test_window_pads_put_the_odd_pixel_after_when_offset_is_end(size, kernel, stride, expected):
    pads = layers.window_pads(size, kernel=kernel, stride=stride, stride_offset="end")

    assert pads == expected


@pytest.mark.parametrize(("kernel", "expected"), [(1, 0), (2, 0), (3, 1), (7, 3)])
def test_window_pads_are_symmetric_when_offset_is_start(kernel, expected):
    pads = layers.window_pads(8, kernel=kernel, stride=2, stride_offset="start")

    assert pads == (expected, expected)


def test_window_pads_refuse_an_unknown_offset():
    with pytest.raises(SpecError, match="must be 'start' or 'end'; got 'same'"):
        layers.window_pads(8, kernel=3, stride=2, stride_offset="same")


@pytest.mark.parametrize("case", cases.CONV_CASES, ids=cases.case_name)
def test_conv2d_matches_torch(case):
    arrays = case.arrays()

    actual = layers.conv2d(arrays["images"], arrays["weight"], arrays.get("bias"), **window(case))

    assert_close(actual, torch_conv2d(case, **leaves(arrays)).detach(), **TIGHT)


@pytest.mark.parametrize("case", cases.CONV_CASES, ids=cases.case_name)
def test_conv2d_gradients_match_autograd(case):
    arrays, tensors = case.arrays(), leaves(case.arrays())
    outputs = torch_conv2d(case, **tensors)
    d_outputs = cases.output_gradient(case, tuple(outputs.shape))
    outputs.backward(torch.tensor(d_outputs))

    d_images, d_weight, d_bias = layers.conv2d_backward(
        d_outputs, arrays["images"], arrays["weight"], **window(case)
    )

    assert_close(d_images, tensors["images"].grad, **TIGHT, where="images")
    assert_close(d_weight, tensors["weight"].grad, **TIGHT, where="weight")
    assert_close(d_bias, d_outputs.sum((0, 2, 3)), **TIGHT, where="bias")


def test_conv2d_is_hand_computed_at_both_offsets():
    images, weight = np.arange(1.0, 17.0).reshape(1, 1, 4, 4), np.ones((1, 1, 3, 3))

    start = layers.conv2d(images, weight, None, stride=2, padding="start")
    end = layers.conv2d(images, weight, [100.0], stride=2, padding="end")

    assert_close(start, [[[[14.0, 30.0], [57.0, 99.0]]]], atol=0.0, rtol=0.0)
    assert_close(end, [[[[154.0, 145.0], [172.0, 154.0]]]], atol=0.0, rtol=0.0)


def test_conv2d_refuses_other_channels():
    with pytest.raises(SpecError, match=r"got \(1, 2, 5, 5\) and \(4, 3, 3, 3\)"):
        layers.conv2d(
            np.zeros((1, 2, 5, 5)), np.zeros((4, 3, 3, 3)), None, stride=1, padding="start"
        )


@pytest.mark.parametrize("case", cases.MAX_POOL_CASES, ids=cases.case_name)
def test_max_pool2d_matches_torch(case):
    images = case.arrays()["images"]

    actual = layers.max_pool2d(images, **POOL, padding=case.stride_offset)

    assert_identical(actual, torch_max_pool2d(case, torch.tensor(images)).numpy())


@pytest.mark.parametrize("case", cases.MAX_POOL_CASES, ids=cases.case_name)
def test_max_pool2d_gradient_matches_autograd(case):
    images, tensors = case.arrays()["images"], leaves(case.arrays())
    outputs = torch_max_pool2d(case, **tensors)
    d_outputs = cases.output_gradient(case, tuple(outputs.shape))
    outputs.backward(torch.tensor(d_outputs))

    actual = layers.max_pool2d_backward(d_outputs, images, **POOL, padding=case.stride_offset)

    assert_close(actual, tensors["images"].grad, **TIGHT)


def test_max_pool2d_gradient_goes_to_the_first_of_equal_pixels():
    images, d_outputs = np.zeros((1, 1, 2, 2)), np.ones((1, 1, 1, 1))

    actual = layers.max_pool2d_backward(d_outputs, images, **POOL, padding="start")

    assert_identical(actual, np.array([[[[1.0, 0.0], [0.0, 0.0]]]]))


@pytest.mark.parametrize("case", cases.BATCH_NORM_CASES, ids=cases.case_name)
def test_batch_norm2d_outputs_match_torch(case):
    arrays, tensors = case.arrays(), {k: torch.tensor(v) for k, v in case.arrays().items()}

    actual, _, _ = layers.batch_norm2d(**arrays, **batch_norm_arguments(case))

    assert_close(actual, torch_batch_norm2d(case, **tensors), **TIGHT)


@pytest.mark.parametrize(
    "case",
    [case for case in cases.BATCH_NORM_CASES if case.variance_correction == 1],
    ids=cases.case_name,
)
def test_batch_norm2d_running_statistics_match_torch(case):
    arrays, tensors = case.arrays(), {k: torch.tensor(v) for k, v in case.arrays().items()}
    torch_batch_norm2d(case, **tensors)

    _, running_mean, running_var = layers.batch_norm2d(**arrays, **batch_norm_arguments(case))

    assert_close(running_mean, tensors["running_mean"], **TIGHT, where="running_mean")
    assert_close(running_var, tensors["running_var"], **TIGHT, where="running_var")


def test_batch_norm2d_stores_the_biased_variance_when_uncorrected():
    images, ones = np.array([1.0, 3.0]).reshape(2, 1, 1, 1), np.ones(1)

    _, running_mean, running_var = layers.batch_norm2d(
        images, ones, ones, 0 * ones, ones,
        training=True, stats_decay=0.75, variance_correction=0, epsilon=1e-5,
    )  # fmt: skip

    assert_close(running_mean, [0.5], atol=0.0, rtol=0.0)
    assert_close(running_var, [1.0], atol=0.0, rtol=0.0)


def test_batch_norm2d_stores_the_unbiased_variance_when_corrected():
    images, ones = np.array([1.0, 3.0]).reshape(2, 1, 1, 1), np.ones(1)

    _, _, running_var = layers.batch_norm2d(
        images, ones, ones, 0 * ones, ones,
        training=True, stats_decay=0.75, variance_correction=1, epsilon=1e-5,
    )  # fmt: skip

    assert_close(running_var, [1.25], atol=0.0, rtol=0.0)


@pytest.mark.parametrize("case", cases.BATCH_NORM_CASES, ids=cases.case_name)
def test_batch_norm2d_gradients_match_autograd(case):
    arrays, tensors = case.arrays(), leaves(case.arrays())
    buffers = {name: tensors.pop(name).detach() for name in ("running_mean", "running_var")}
    outputs = torch_batch_norm2d(case, **tensors, **buffers)
    d_outputs = cases.output_gradient(case, tuple(outputs.shape))
    outputs.backward(torch.tensor(d_outputs))
    del arrays["bias"]

    d_images, d_weight, d_bias = layers.batch_norm2d_backward(
        d_outputs, **arrays, training=case.training, epsilon=case.epsilon
    )

    assert_close(d_images, tensors["images"].grad, **TIGHT, where="images")
    assert_close(d_weight, tensors["weight"].grad, **TIGHT, where="weight")
    assert_close(d_bias, tensors["bias"].grad, **TIGHT, where="bias")


def test_batch_norm2d_gradient_matches_differences_in_training():
    case = next(case for case in cases.BATCH_NORM_CASES if case.training)
    arrays, arguments = case.arrays(), batch_norm_arguments(case)
    d_outputs = cases.output_gradient(case, arrays["images"].shape)

    def loss(images):
        outputs, _, _ = layers.batch_norm2d(**arrays | {"images": images}, **arguments)
        return (outputs * d_outputs).sum()

    actual, _, _ = layers.batch_norm2d_backward(
        d_outputs,
        *(arrays[name] for name in ("images", "weight", "running_mean", "running_var")),
        training=True,
        epsilon=case.epsilon,
    )

    assert_close(actual, numerical_gradient(loss, arrays["images"]), atol=1e-7, rtol=1e-7)


def test_batch_norm2d_refuses_an_unbiased_variance_of_one_value():
    one = np.ones(1)

    with pytest.raises(SpecError, match=r"at least 2 values a channel; got 1 from inputs of shape"):
        layers.batch_norm2d(
            np.ones((1, 1, 1, 1)), one, one, one, one,
            training=True, stats_decay=0.9, variance_correction=1, epsilon=1e-5,
        )  # fmt: skip


@pytest.mark.parametrize("case", cases.LINEAR_CASES, ids=cases.case_name)
def test_linear_and_its_gradients_match_torch(case):
    arrays, tensors = case.arrays(), leaves(case.arrays())
    outputs = functional.linear(tensors["inputs"], tensors["weight"], tensors["bias"])
    d_outputs = cases.output_gradient(case, tuple(outputs.shape))
    outputs.backward(torch.tensor(d_outputs))

    gradients = layers.linear_backward(d_outputs, arrays["inputs"], arrays["weight"])

    assert_close(layers.linear(**arrays), outputs.detach(), **TIGHT)
    assert_close(gradients[0], tensors["inputs"].grad, **TIGHT, where="inputs")
    assert_close(gradients[1], tensors["weight"].grad, **TIGHT, where="weight")
    assert_close(gradients[2], tensors["bias"].grad, **TIGHT, where="bias")


def test_relu_and_its_gradient_are_zero_at_zero():
    inputs = np.array([-1.0, 0.0, 2.0])

    assert_identical(layers.relu(inputs), np.array([0.0, 0.0, 2.0]))
    assert_identical(layers.relu_backward(np.full(3, 5.0), inputs), np.array([0.0, 0.0, 5.0]))


def test_relu_keeps_nan():
    assert_identical(layers.relu([np.nan]), np.array([np.nan]))


def test_global_average_pool_and_its_gradient_divide_by_the_pixels():
    images = np.arange(8.0).reshape(1, 2, 2, 2)

    means = layers.global_average_pool(images)
    d_images = layers.global_average_pool_backward([[4.0, 8.0]], images)

    assert_close(means, [[1.5, 5.5]], atol=0.0, rtol=0.0)
    assert_close(d_images, np.repeat([1.0, 2.0], 4).reshape(1, 2, 2, 2), atol=0.0, rtol=0.0)


def test_add_gives_its_gradient_to_both():
    left, right = layers.add_backward([1.0, 2.0])

    assert_identical(layers.add([1.0], [2.0]), np.array([3.0]))
    assert_identical(left, np.array([1.0, 2.0]))
    assert_identical(right, np.array([1.0, 2.0]))


def test_add_refuses_to_broadcast():
    with pytest.raises(SpecError, match=r"got \(2,\) and \(1,\)"):
        layers.add([1.0, 2.0], [1.0])


FLOAT32_CALLS = {
    "conv2d": lambda a: layers.conv2d(
        a["images"], a["weight"], a["bias"], stride=2, padding="end"
    ),
    "max_pool2d": lambda a: layers.max_pool2d(
        a["images"], **POOL, padding="end"
    ),
    "batch_norm2d": lambda a: layers.batch_norm2d(
        a["images"], *([a["bias"][:3]] * 4),
        training=True, stats_decay=0.9, variance_correction=1, epsilon=1e-5,
    )[0],
    "relu": lambda a: layers.relu(a["images"]),
    "global_average_pool": lambda a: layers.global_average_pool(a["images"]),
    "linear": lambda a: layers.linear(a["images"][:, :, 0, 0], a["weight"][:, :, 0, 0], a["bias"]),
}  # fmt: skip


@pytest.mark.parametrize("layer", FLOAT32_CALLS)
def test_layer_computes_in_float64_on_float32_arrays(layer):
    case = next(case for case in cases.CONV_CASES if case.use_bias)
    narrow = {name: array.astype(np.float32) for name, array in case.arrays().items()}
    wide = {name: array.astype(np.float64) for name, array in narrow.items()}

    assert_identical(FLOAT32_CALLS[layer](narrow), FLOAT32_CALLS[layer](wide))


@pytest.mark.parametrize("fault", [name for name in ARRAY_FAULTS if name != "square_transposed"])
def test_conv2d_check_catches_faults_in_the_kernel(fault):
    case = next(case for case in cases.CONV_CASES if case.kernel == 3)
    arrays = case.arrays()
    expected = torch_conv2d(case, **leaves(arrays)).detach()
    faulty = seed_array_fault(fault, arrays["weight"])

    actual = layers.conv2d(arrays["images"], faulty, arrays.get("bias"), **window(case))

    with pytest.raises(DivergenceError, match="elements differ"):
        assert_close(actual, expected, **TIGHT)
