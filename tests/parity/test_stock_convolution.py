"""The stock convolutions of torch and Keras equal the reference, whatever their knobs.

Keras's layers take words for padding: zeros around the images stand in for pixels, an explicit
adapter. `Conv2D` refuses strides together with dilation, and tensorflow unequal strides for
`DepthwiseConv2D`: neither is drawn for Keras.
"""

import dataclasses

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from parity.errors import DivergenceError
from parity.reference import layers as reference
from parity.testing.faults import seed_array_fault

# Of the largest element of a quantity.
BOUND = 1e-10

# What tensorflow and jax compile anew for each shape: `deep` has 200 of each, `ci` fewer of what
# costs more.
KERAS_EXAMPLES = settings(max_examples=max(6, settings.default.max_examples // 5))
IS_DEEP = settings.default.max_examples >= 1000
COSTLY_EXAMPLES = settings(
    max_examples=max(3, settings.default.max_examples // (5 if IS_DEEP else 10))
)

PAIRS = st.tuples(st.integers(1, 3), st.integers(1, 3))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Conv:
    """One convolution; `multiplier` is the output channels a group."""

    seed: int
    count: int
    size: tuple[int, int]
    groups: int
    inputs: int
    multiplier: int
    kernel: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    padding: object
    use_bias: bool

    @property
    def knobs(self):
        return {
            "stride": self.stride,
            "padding": self.padding,
            "dilation": self.dilation,
            "groups": self.groups,
        }

    def arrays(self, stock):
        outputs = self.groups * self.multiplier
        weights = {"weight": stock.array(self.seed + 1, outputs, self.inputs, *self.kernel)}
        if self.use_bias:
            weights["bias"] = stock.array(self.seed + 2, outputs)
        images = stock.array(self.seed, self.count, self.groups * self.inputs, *self.size)
        return images, weights


def expected_outcome(case, stock):
    images, weights = case.arrays(stock)
    outputs = reference.conv2d(images, weights["weight"], weights.get("bias"), **case.knobs)
    d_outputs = stock.array(case.seed + 3, *outputs.shape)
    d_images, d_weight, d_bias = reference.conv2d_backward(
        d_outputs, images, weights["weight"], **case.knobs
    )
    gradients = {"weight": d_weight} | ({"bias": d_bias} if case.use_bias else {})
    return stock.outcome(outputs, d_images, gradients), d_outputs


def image_pads(case):
    """Return the pads of a case in pixels, as torch's and Keras's padding layers need them."""
    if not isinstance(case.padding, str):
        return case.padding
    return tuple(
        reference.window_pads(size, kernel=k, stride=s, stride_offset=case.padding, dilation=d)
        for size, k, s, d in zip(case.size, case.kernel, case.stride, case.dilation, strict=True)
    )


def fits(case):
    extents = ((k - 1) * d + 1 for k, d in zip(case.kernel, case.dilation, strict=True))
    sides = zip(case.size, image_pads(case), extents, strict=True)
    return all(size + sum(pads) >= extent for size, pads, extent in sides)


def run_torch(case, stock, d_outputs, weights=None):
    import torch

    images, drawn = case.arrays(stock)
    (top, bottom), (left, right) = image_pads(case)
    layer = torch.nn.Conv2d(
        case.groups * case.inputs,
        case.groups * case.multiplier,
        case.kernel,
        stride=case.stride,
        padding=(top, left) if (top, left) == (bottom, right) else 0,
        dilation=case.dilation,
        groups=case.groups,
        bias=case.use_bias,
    )
    if (top, left) == (bottom, right):
        return stock.run_torch(layer, images, d_outputs, weights or drawn)
    # Torch's convolution pads both sides alike: a padding layer stands before it.
    padding = torch.nn.ZeroPad2d((left, right, top, bottom))
    whole = torch.nn.Sequential(padding, layer)
    named = {f"1.{name}": array for name, array in (weights or drawn).items()}
    outcome = stock.run_torch(whole, images, d_outputs, named)
    gradients = {name.removeprefix("1."): a for name, a in outcome.parameter_gradients.items()}
    return dataclasses.replace(outcome, parameter_gradients=gradients)


def run_keras(case, stock, d_outputs, weights=None):
    import keras

    images, drawn = case.arrays(stock)
    layer = keras.layers.Conv2D(
        case.groups * case.multiplier,
        case.kernel,
        strides=case.stride,
        padding="same" if case.padding == "end" else "valid",
        dilation_rate=case.dilation,
        groups=case.groups,
        use_bias=case.use_bias,
    )
    return run_padded(layer, case, stock, images, d_outputs, weights or drawn)


def run_padded(layer, case, stock, images, d_outputs, weights, *, sizes=None):
    """Run a Keras layer behind the zeros that its own padding cannot express."""
    if case.padding == "end":
        return stock.run_keras(layer, images, d_outputs, weights, sizes=sizes)
    (top, bottom), (left, right) = image_pads(case)
    padded = np.pad(images, ((0, 0), (0, 0), (top, bottom), (left, right)))
    outcome = stock.run_keras(layer, padded, d_outputs, weights, sizes=sizes)
    height, width = case.size
    d_padded = outcome.input_gradients[0]
    d_images = d_padded[:, :, top : top + height, left : left + width]
    return dataclasses.replace(outcome, input_gradients=(d_images,))


def paddings(*, most):
    pads = st.tuples(st.integers(0, most), st.integers(0, most))
    return st.sampled_from(["start", "end"]) | st.tuples(pads, pads)


@st.composite
def convs(draw):
    case = Conv(
        seed=draw(st.integers(0, 2**31)),
        count=draw(st.integers(1, 2)),
        size=draw(st.tuples(st.integers(1, 7), st.integers(1, 7))),
        groups=draw(st.integers(1, 3)),
        inputs=draw(st.integers(1, 2)),
        multiplier=draw(st.integers(1, 2)),
        kernel=draw(st.tuples(st.integers(1, 4), st.integers(1, 4))),
        stride=draw(PAIRS),
        dilation=draw(PAIRS),
        padding=draw(paddings(most=3)),
        use_bias=draw(st.booleans()),
    )
    assume(fits(case))
    return case


@st.composite
def keras_convs(draw):
    """Draw what Keras's layer takes: strides or dilation, not both."""
    case = draw(convs())
    if max(case.dilation) > 1:
        case = dataclasses.replace(case, stride=(1, 1))
    assume(fits(case))
    return case


@given(case=convs())
def test_torch_convolution_matches_reference(stock, case):
    expected, d_outputs = expected_outcome(case, stock)

    stock.assert_close(run_torch(case, stock, d_outputs), expected, bound=BOUND)


@pytest.mark.backend
@KERAS_EXAMPLES
@given(case=keras_convs().map(lambda case: dataclasses.replace(case, groups=1)))
def test_keras_convolution_matches_reference(stock, case):
    expected, d_outputs = expected_outcome(case, stock)

    stock.assert_close(run_keras(case, stock, d_outputs), expected, bound=BOUND)


# On tensorflow Keras compiles each grouped convolution, for about a second an example.
@pytest.mark.backend
@COSTLY_EXAMPLES
@given(case=keras_convs().filter(lambda case: case.groups > 1))
def test_keras_grouped_convolution_matches_reference(stock, case):
    expected, d_outputs = expected_outcome(case, stock)

    stock.assert_close(run_keras(case, stock, d_outputs), expected, bound=BOUND)


def run_keras_depthwise(case, stock, d_outputs, weights=None):
    import keras

    images, drawn = case.arrays(stock)
    layer = keras.layers.DepthwiseConv2D(
        case.kernel,
        strides=case.stride,
        padding="same" if case.padding == "end" else "valid",
        depth_multiplier=case.multiplier,
        dilation_rate=case.dilation,
        use_bias=case.use_bias,
    )
    sizes = {"c": case.groups}
    return run_padded(layer, case, stock, images, d_outputs, weights or drawn, sizes=sizes)


@st.composite
def depthwise_convs(draw):
    case = draw(convs())
    rows, _ = case.stride
    case = dataclasses.replace(case, inputs=1, stride=(rows, rows))
    assume(fits(case))
    return case


@pytest.mark.backend
@KERAS_EXAMPLES
@given(case=depthwise_convs())
def test_keras_depthwise_convolution_matches_reference(stock, case):
    expected, d_outputs = expected_outcome(case, stock)

    stock.assert_close(run_keras_depthwise(case, stock, d_outputs), expected, bound=BOUND)


@pytest.mark.backend
@COSTLY_EXAMPLES
@given(case=depthwise_convs(), outputs=st.integers(1, 3))
def test_keras_separable_convolution_is_two_convolutions(stock, case, outputs):
    import keras

    case = dataclasses.replace(case, use_bias=False)
    images, weights = case.arrays(stock)
    depthwise = weights["weight"]
    pointwise = stock.array(case.seed + 4, outputs, len(depthwise), 1, 1)
    bias, point = stock.array(case.seed + 5, outputs), {"stride": 1, "padding": "start"}
    between = reference.conv2d(images, depthwise, None, **case.knobs)
    expected = reference.conv2d(between, pointwise, bias, **point)
    d_outputs = stock.array(case.seed + 3, *expected.shape)
    d_between, d_pointwise, d_bias = reference.conv2d_backward(
        d_outputs, between, pointwise, **point
    )
    d_images, d_depthwise, _ = reference.conv2d_backward(d_between, images, depthwise, **case.knobs)
    layer = keras.layers.SeparableConv2D(
        outputs,
        case.kernel,
        strides=case.stride,
        padding="same" if case.padding == "end" else "valid",
        dilation_rate=case.dilation,
        depth_multiplier=case.multiplier,
    )
    names = ("depthwise.weight", "pointwise.weight", "pointwise.bias")
    filled = dict(zip(names, (depthwise, pointwise, bias), strict=True))
    gradients = dict(zip(names, (d_depthwise, d_pointwise, d_bias), strict=True))

    actual = run_padded(layer, case, stock, images, d_outputs, filled, sizes={"c": case.groups})

    stock.assert_close(actual, stock.outcome(expected, d_images, gradients), bound=BOUND)


PLAIN = Conv(
    seed=7,
    count=2,
    size=(6, 7),
    groups=2,
    inputs=1,
    multiplier=2,
    kernel=(3, 2),
    stride=(2, 2),
    dilation=(1, 1),
    padding="end",
    use_bias=True,
)
RUNS = {"torch": run_torch, "keras": run_keras, "keras_depthwise": run_keras_depthwise}


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize(
    ("change", "quantity"),
    [
        ({"padding": ((1, 0), (0, 1))}, "outputs"),
        ({"padding": ((0, 1), (1, 0))}, "outputs"),
        ({"use_bias": False}, "outputs"),
    ],
    ids=str,
)
def test_convolution_check_catches_a_wrong_knob(stock, run, change, quantity):
    expected, d_outputs = expected_outcome(PLAIN, stock)
    faulty = dataclasses.replace(PLAIN, **change)

    with pytest.raises(DivergenceError, match=f"^{quantity}: "):
        stock.assert_close(RUNS[run](faulty, stock, d_outputs), expected, bound=BOUND)


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("weight", "element_bumped"),
        ("weight", "kernel_mirrored"),
        ("weight", "through_float16"),
        ("bias", "channels_swapped"),
    ],
)
def test_convolution_check_catches_a_fault_in_its_arrays(stock, run, name, fault):
    expected, d_outputs = expected_outcome(PLAIN, stock)
    _, weights = PLAIN.arrays(stock)
    damaged = weights | {name: seed_array_fault(fault, weights[name])}

    with pytest.raises(DivergenceError, match=r"^outputs: "):
        stock.assert_close(RUNS[run](PLAIN, stock, d_outputs, damaged), expected, bound=BOUND)


def test_depthwise_check_catches_channels_counted_in_the_other_order(stock):
    expected, d_outputs = expected_outcome(PLAIN, stock)
    _, weights = PLAIN.arrays(stock)
    shape = (PLAIN.groups, PLAIN.multiplier, 1, *PLAIN.kernel)
    swapped = weights["weight"].reshape(shape).swapaxes(0, 1).reshape(weights["weight"].shape)

    outcome = run_keras_depthwise(PLAIN, stock, d_outputs, weights | {"weight": swapped})

    with pytest.raises(DivergenceError, match=r"^outputs: "):
        stock.assert_close(outcome, expected, bound=BOUND)
