"""The stock pooling layers of torch and Keras equal the reference, whatever their knobs.

Torch takes at most half a kernel of pads; Keras takes words. Pads that hold zeros come from a
padding layer before, in either framework. Keras on torch averages over copies of the border where
`same` pads a side more than the other (keras 3.15.1): that is kept out, and shown by a test.
"""

import dataclasses

import numpy as np
import pytest
from hypothesis import assume, given, reject, settings
from hypothesis import strategies as st

from parity.errors import DivergenceError, SpecError
from parity.reference import layers as reference

# Of the largest element of a quantity.
BOUND = 1e-10

KERAS_EXAMPLES = settings(max_examples=max(6, settings.default.max_examples // 5))

SIZES = st.tuples(st.integers(1, 8), st.integers(1, 8))
KERNELS = st.tuples(st.integers(1, 4), st.integers(1, 4))
STRIDES = st.tuples(st.integers(1, 4), st.integers(1, 4))
VALID = ((0, 0), (0, 0))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pool:
    """One pooling; `knobs` as the reference takes them."""

    kind: str
    seed: int
    size: tuple[int, int]
    knobs: dict

    def images(self, stock):
        return stock.array(self.seed, 2, 2, *self.size)


def expected_outcome(case, stock):
    """Return the reference's outcome, or give up the example where there is none."""
    images = case.images(stock)
    forward = getattr(reference, f"{case.kind}_pool2d")
    backward = getattr(reference, f"{case.kind}_pool2d_backward")
    try:
        outputs = forward(images, **case.knobs)
    except SpecError:  # a window that reads nothing but pads
        reject()
    d_outputs = stock.array(case.seed + 1, *outputs.shape)
    return stock.outcome(outputs, backward(d_outputs, images, **case.knobs)), d_outputs


def run_torch(case, stock, d_outputs):
    import torch

    knobs = dict(case.knobs)
    (top, bottom), (left, right) = knobs.pop("padding")
    fill = knobs.pop("fill", -np.inf)
    layer = {"max": torch.nn.MaxPool2d, "average": torch.nn.AvgPool2d}[case.kind]
    kernel, stride = knobs.pop("kernel"), knobs.pop("stride")
    if fill == 0.0:
        padded = torch.nn.ZeroPad2d((left, right, top, bottom))
        layer = torch.nn.Sequential(padded, layer(kernel, stride, **knobs))
    else:
        layer = layer(kernel, stride, padding=(top, left), **knobs)
    return stock.run_torch(layer, case.images(stock), d_outputs)


def run_keras(case, stock, d_outputs):
    import keras

    knobs = case.knobs
    layer = {"max": keras.layers.MaxPooling2D, "average": keras.layers.AveragePooling2D}[case.kind]
    padding = "same" if knobs["padding"] == "end" else "valid"
    layer = layer(knobs["kernel"], knobs["stride"], padding=padding)
    if knobs.get("fill") == 0.0:
        layer = keras.Sequential([keras.layers.ZeroPadding2D(knobs["padding"]), layer])
    return stock.run_keras(layer, case.images(stock), d_outputs)


@st.composite
def half_pads(draw, kernel):
    """Draw what torch's own padding takes: both sides alike, at most half the kernel."""
    rows, columns = (draw(st.integers(0, k // 2)) for k in kernel)
    return (rows, rows), (columns, columns)


@st.composite
def pools(draw, kind, **knobs):
    kernel, stride = draw(KERNELS), draw(STRIDES)
    drawn = {name: draw(values) for name, values in knobs.items() if name != "padding"}
    padding = draw(knobs["padding"] if "padding" in knobs else half_pads(kernel))
    size = draw(SIZES)
    sides = zip(size, ((0, 0),) * 2 if padding == "end" else padding, kernel, strict=True)
    assume(padding == "end" or all(n + sum(pads) >= k for n, pads, k in sides))
    window = {"kernel": kernel, "stride": stride, "padding": padding}
    return Pool(kind=kind, seed=draw(st.integers(0, 2**31)), size=size, knobs=window | drawn)


NEVER = st.sampled_from([False])
ANY_PADS = st.tuples(*[st.tuples(st.integers(0, 3), st.integers(0, 3))] * 2)
TORCH_POOLS = st.one_of(
    pools("max", fill=st.just(-np.inf), ceil_mode=st.booleans()),
    pools("max", fill=st.just(0.0), ceil_mode=NEVER, padding=ANY_PADS),
    pools("average", count_include_pad=st.booleans(), ceil_mode=st.booleans()),
)
WORDS = st.sampled_from(["end", VALID])
KERAS_POOLS = st.one_of(
    pools("max", fill=st.just(-np.inf), ceil_mode=NEVER, padding=WORDS),
    pools("max", fill=st.just(0.0), ceil_mode=NEVER, padding=ANY_PADS),
    pools("average", count_include_pad=NEVER, ceil_mode=NEVER, padding=WORDS),
)


@given(case=TORCH_POOLS)
def test_torch_pooling_matches_reference(stock, case):
    expected, d_outputs = expected_outcome(case, stock)

    stock.assert_close(run_torch(case, stock, d_outputs), expected, bound=BOUND)


@given(case=pools("max", fill=st.just(-np.inf), ceil_mode=st.booleans()), dilation=STRIDES)
def test_torch_dilated_max_pooling_matches_reference(stock, case, dilation):
    extents = ((k - 1) * d + 1 for k, d in zip(case.knobs["kernel"], dilation, strict=True))
    sides = zip(case.size, case.knobs["padding"], extents, strict=True)
    assume(all(n + sum(pads) >= extent for n, pads, extent in sides))
    case = dataclasses.replace(case, knobs=case.knobs | {"dilation": dilation})
    expected, d_outputs = expected_outcome(case, stock)

    stock.assert_close(run_torch(case, stock, d_outputs), expected, bound=BOUND)


def is_lopsided(case):
    if case.kind != "average" or case.knobs["padding"] != "end":
        return False
    sides = zip(case.size, case.knobs["kernel"], case.knobs["stride"], strict=True)
    pads = (reference.window_pads(n, kernel=k, stride=s, stride_offset="end") for n, k, s in sides)
    return any(before != after for before, after in pads)


@pytest.mark.backend
@KERAS_EXAMPLES
@given(case=KERAS_POOLS)
def test_keras_pooling_matches_reference(stock, case):
    assume(stock.keras_backend != "torch" or not is_lopsided(case))
    expected, d_outputs = expected_outcome(case, stock)

    stock.assert_close(run_keras(case, stock, d_outputs), expected, bound=BOUND)


@given(seed=st.integers(0, 2**31), size=SIZES, target=SIZES)
def test_torch_adaptive_average_pooling_matches_reference(stock, seed, size, target):
    import torch

    images = stock.array(seed, 2, 2, *size)
    d_outputs = stock.array(seed + 1, 2, 2, *target)
    expected = stock.outcome(
        reference.adaptive_average_pool2d(images, target),
        reference.adaptive_average_pool2d_backward(d_outputs, images, target),
    )

    actual = stock.run_torch(torch.nn.AdaptiveAvgPool2d(target), images, d_outputs)

    stock.assert_close(actual, expected, bound=BOUND)


@pytest.mark.backend
@KERAS_EXAMPLES
@given(seed=st.integers(0, 2**31), size=SIZES, target=SIZES)
def test_keras_adaptive_average_pooling_matches_reference(stock, seed, size, target):
    import keras

    images = stock.array(seed, 2, 2, *size)
    d_outputs = stock.array(seed + 1, 2, 2, *target)
    expected = stock.outcome(
        reference.adaptive_average_pool2d(images, target),
        reference.adaptive_average_pool2d_backward(d_outputs, images, target),
    )

    actual = stock.run_keras(keras.layers.AdaptiveAveragePooling2D(target), images, d_outputs)

    stock.assert_close(actual, expected, bound=BOUND)


@pytest.mark.backend
def test_keras_average_over_lopsided_same_padding_matches_reference_but_on_torch(stock):
    knobs = {"kernel": 3, "stride": 2, "padding": "end", "count_include_pad": False}
    case = Pool(kind="average", seed=0, size=(6, 6), knobs=knobs | {"ceil_mode": False})
    expected, d_outputs = expected_outcome(case, stock)
    actual = run_keras(case, stock, d_outputs)
    images = np.pad(case.images(stock), ((0, 0), (0, 0), (0, 1), (0, 1)), mode="edge")
    copied = reference.average_pool2d(images, **case.knobs | {"padding": VALID})
    outputs = {"torch": copied}.get(stock.keras_backend, expected.outputs)

    stock.assert_close(
        stock.outcome(actual.outputs, images), stock.outcome(outputs, images), bound=BOUND
    )


MAX = Pool(
    kind="max",
    seed=3,
    size=(7, 8),
    knobs={"kernel": 3, "stride": 2, "padding": "end", "fill": -np.inf, "ceil_mode": False},
)
MEAN = Pool(
    kind="average",
    seed=3,
    size=(7, 7),
    knobs={
        "kernel": 3,
        "stride": 2,
        "padding": ((1, 1), (1, 1)),
        "count_include_pad": False,
        "ceil_mode": False,
    },
)


@pytest.mark.parametrize(
    ("run", "case", "change"),
    [
        (run_torch, MEAN, {"count_include_pad": True}),
        (run_torch, MEAN, {"stride": 3}),
        (run_torch, MAX, {"padding": ((1, 1), (1, 1))}),
        (run_torch, MAX, {"padding": VALID, "ceil_mode": True}),
        (run_keras, MAX, {"padding": VALID}),
        (run_keras, MAX, {"padding": ((1, 1), (1, 1)), "fill": 0.0}),
        (run_keras, MEAN, {"padding": VALID}),
    ],
    ids=lambda value: value.__name__ if callable(value) else str(value),
)
def test_pooling_check_catches_a_wrong_knob(stock, run, case, change):
    expected, _ = expected_outcome(case, stock)
    faulty = dataclasses.replace(case, knobs=case.knobs | change)
    _, d_outputs = expected_outcome(faulty, stock)

    with pytest.raises(DivergenceError, match=r"^outputs: "):
        stock.assert_close(run(faulty, stock, d_outputs), expected, bound=BOUND)


@pytest.mark.parametrize("run", [run_torch, run_keras])
def test_pooling_check_catches_a_gradient_given_to_another_pixel(stock, run):
    case = dataclasses.replace(MAX, knobs=MAX.knobs | {"padding": VALID})
    expected, d_outputs = expected_outcome(case, stock)
    actual = run(case, stock, d_outputs)
    moved = (np.roll(actual.input_gradients[0], 1, axis=3),)
    faulty = dataclasses.replace(actual, input_gradients=moved)

    with pytest.raises(DivergenceError, match=r"^input gradients: "):
        stock.assert_close(faulty, expected, bound=BOUND)
