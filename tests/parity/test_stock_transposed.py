"""The stock transposed convolutions of torch and Keras equal the reference, whatever their knobs.

Torch takes pixels and groups; Keras takes words, no groups, and refuses strides together with
dilation. Tensorflow has no dilation for it on processors, so there it is 1.
"""

import dataclasses

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from parity.errors import DivergenceError
from parity.reference import layers as reference
from parity.testing.faults import seed_array_fault

# Of the largest element of a quantity.
BOUND = 1e-10

KERAS_EXAMPLES = settings(max_examples=max(6, settings.default.max_examples // 5))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Transposed:
    """One transposed convolution; `outputs` and `inputs` are channels a group."""

    seed: int
    size: tuple[int, int]
    groups: int
    inputs: int
    outputs: int
    kernel: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    padding: object
    output_padding: tuple[int, int] | None
    use_bias: bool

    @property
    def knobs(self):
        added = self.output_padding or (None, None)
        pixels = (self.padding,) * 2 if isinstance(self.padding, str) else self.padding
        crops = tuple(
            reference.transposed_crops(kernel=k, stride=s, dilation=d, padding=p, output_padding=o)
            for k, s, d, p, o in zip(
                self.kernel, self.stride, self.dilation, pixels, added, strict=True
            )
        )
        common = {"stride": self.stride, "dilation": self.dilation, "groups": self.groups}
        return common | {"crops": crops}

    def arrays(self, stock):
        channels = self.groups * self.inputs
        weights = {"weight": stock.array(self.seed + 1, channels, self.outputs, *self.kernel)}
        if self.use_bias:
            weights["bias"] = stock.array(self.seed + 2, self.groups * self.outputs)
        return stock.array(self.seed, 2, channels, *self.size), weights


def is_possible(case):
    """Return whether a pixel is left of the outputs."""
    natural = (
        (n - 1) * s + (k - 1) * d + 1
        for n, k, s, d in zip(case.size, case.kernel, case.stride, case.dilation, strict=True)
    )
    return all(n > sum(crop) for n, crop in zip(natural, case.knobs["crops"], strict=True))


def expected_outcome(case, stock):
    images, weights = case.arrays(stock)
    weight, bias = weights["weight"], weights.get("bias")
    outputs = reference.conv_transpose2d(images, weight, bias, **case.knobs)
    d_outputs = stock.array(case.seed + 3, *outputs.shape)
    d_images, d_weight, d_bias = reference.conv_transpose2d_backward(
        d_outputs, images, weight, **case.knobs
    )
    gradients = {"weight": d_weight} | ({"bias": d_bias} if case.use_bias else {})
    return stock.outcome(outputs, d_images, gradients), d_outputs


def run_torch(case, stock, d_outputs, weights=None):
    import torch

    images, drawn = case.arrays(stock)
    layer = torch.nn.ConvTranspose2d(
        case.groups * case.inputs,
        case.groups * case.outputs,
        case.kernel,
        stride=case.stride,
        padding=case.padding,
        output_padding=case.output_padding,
        dilation=case.dilation,
        groups=case.groups,
        bias=case.use_bias,
    )
    return stock.run_torch(layer, images, d_outputs, weights or drawn)


def run_keras(case, stock, d_outputs, weights=None):
    import keras

    images, drawn = case.arrays(stock)
    layer = keras.layers.Conv2DTranspose(
        case.outputs,
        case.kernel,
        strides=case.stride,
        padding=case.padding,
        output_padding=case.output_padding,
        dilation_rate=case.dilation,
        use_bias=case.use_bias,
    )
    return stock.run_keras(layer, images, d_outputs, weights or drawn)


def common_knobs():
    return {
        "seed": st.integers(0, 2**31),
        "size": st.tuples(st.integers(1, 4), st.integers(1, 4)),
        "inputs": st.integers(1, 3),
        "outputs": st.integers(1, 3),
        "kernel": st.tuples(st.integers(1, 5), st.integers(1, 5)),
        "stride": st.tuples(st.integers(1, 3), st.integers(1, 3)),
        "use_bias": st.booleans(),
    }


@st.composite
def torch_cases(draw):
    knobs = {name: draw(values) for name, values in common_knobs().items()}
    dilation = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    most = zip(knobs["stride"], dilation, strict=True)
    case = Transposed(
        **knobs,
        groups=draw(st.integers(1, 3)),
        dilation=dilation,
        padding=draw(st.tuples(st.integers(0, 3), st.integers(0, 3))),
        output_padding=draw(st.tuples(*(st.integers(0, max(pair) - 1) for pair in most))),
    )
    assume(is_possible(case))
    return case


@st.composite
def keras_cases(draw, *, most_dilation=1):
    knobs = {name: draw(values) for name, values in common_knobs().items()}
    dilation = draw(st.tuples(st.integers(1, most_dilation), st.integers(1, most_dilation)))
    if max(dilation) > 1:
        knobs["stride"] = (1, 1)
    given_padding = st.tuples(*(st.integers(0, stride - 1) for stride in knobs["stride"]))
    case = Transposed(
        **knobs,
        groups=1,
        dilation=dilation,
        padding=draw(st.sampled_from(["valid", "same"])),
        output_padding=draw(st.none() | given_padding),
    )
    assume(is_possible(case))
    return case


@given(case=torch_cases())
def test_torch_transposed_convolution_matches_reference(stock, case):
    expected, d_outputs = expected_outcome(case, stock)

    stock.assert_close(run_torch(case, stock, d_outputs), expected, bound=BOUND)


@pytest.mark.backend
@KERAS_EXAMPLES
@given(data=st.data())
def test_keras_transposed_convolution_matches_reference(stock, data):
    most_dilation = 1 if stock.keras_backend == "tensorflow" else 3
    case = data.draw(keras_cases(most_dilation=most_dilation))
    expected, d_outputs = expected_outcome(case, stock)
    # Tensorflow takes the transpose of a convolution that would give back as many pixels.
    sides = zip(case.size, expected.outputs.shape[2:], case.stride, strict=True)
    assume(case.padding == "valid" or all(n == -(-m // s) for n, m, s in sides))

    stock.assert_close(run_keras(case, stock, d_outputs), expected, bound=BOUND)


PLAIN = Transposed(
    seed=7,
    size=(3, 4),
    groups=1,
    inputs=2,
    outputs=2,
    kernel=(3, 3),
    stride=(2, 2),
    dilation=(1, 1),
    padding="same",
    output_padding=None,
    use_bias=True,
)
# What torch's own paddings make of the same size.
IN_TORCH = dataclasses.replace(PLAIN, padding=(1, 1), output_padding=(1, 1))


def test_same_padding_and_torch_output_padding_differ_by_a_shift(stock):
    expected, d_outputs = expected_outcome(PLAIN, stock)

    with pytest.raises(DivergenceError, match=r"^outputs: "):
        stock.assert_close(run_torch(IN_TORCH, stock, d_outputs), expected, bound=BOUND)


@pytest.mark.parametrize(("run", "case"), [(run_torch, IN_TORCH), (run_keras, PLAIN)])
@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("weight", "element_bumped"),
        ("weight", "kernel_mirrored"),
        ("weight", "through_float16"),
        ("bias", "channels_swapped"),
    ],
)
def test_transposed_check_catches_a_fault_in_its_arrays(stock, run, case, name, fault):
    expected, d_outputs = expected_outcome(case, stock)
    _, weights = case.arrays(stock)
    damaged = weights | {name: seed_array_fault(fault, weights[name])}

    with pytest.raises(DivergenceError, match=r"^outputs: "):
        stock.assert_close(run(case, stock, d_outputs, damaged), expected, bound=BOUND)


@pytest.mark.parametrize(
    ("run", "case", "change"),
    [
        (run_torch, IN_TORCH, {"padding": (0, 1), "output_padding": (1, 1)}),
        (run_torch, IN_TORCH, {"use_bias": False}),
        (run_keras, PLAIN, {"padding": "valid"}),
        (run_keras, PLAIN, {"output_padding": (0, 0)}),
    ],
)
def test_transposed_check_catches_a_wrong_knob(stock, run, case, change):
    expected, _ = expected_outcome(case, stock)
    faulty = dataclasses.replace(case, **change)
    _, d_outputs = expected_outcome(faulty, stock)

    with pytest.raises(DivergenceError, match=r"^outputs: "):
        stock.assert_close(run(faulty, stock, d_outputs), expected, bound=BOUND)
