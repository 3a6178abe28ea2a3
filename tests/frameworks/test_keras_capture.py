"""What users of Keras write in the `call` of a layer, and which words it becomes."""

import numpy as np
import pytest

from parity import runtime
from parity.rng import stream
from parity.testing.assertions import assert_close, assert_states_close

runtime.select_keras_backend(None)

import keras  # noqa: E402  # the backend is chosen first
from keras import layers, ops  # noqa: E402

from parity.frameworks.keras_program import capture_keras  # noqa: E402

TABLE = stream(0, "table").standard_normal((9, 6)).astype(np.float32)
STEPS = stream(0, "steps").standard_normal((2, 5, 6)).astype(np.float32)


class Own(layers.Layer):
    """A user's layer with a table, and what it does with it."""

    def __init__(self, body):
        super().__init__(name="own")
        self.body = body

    def build(self, shape):
        self.table = self.add_weight(shape=TABLE.shape, name="table")
        self.table.assign(TABLE)

    def call(self, x):
        return self.body(x, self.table)


def kinds(program):
    return [operation.kind for operation in program.trace.operations]


def output_of(program, *inputs):
    (value,) = program.trace.outputs.values()
    return program.run(inputs, keep=[value]).values[value]


BODIES = {
    "bare slice": (lambda x, t: x + t[: x.shape[1]], ["parameter", "slice", "add"]),
    "slice of a size": (lambda x, t: x + t[: ops.shape(x)[1]], ["parameter", "slice", "add"]),
    "slice of a slice": (
        lambda x, t: x + t[:, 1:][2:7, :5][..., :1],
        ["parameter", "slice", "slice", "slice", "add"],
    ),
    "last row": (lambda x, t: x * t[-1], ["parameter", "slice", "multiply"]),
    "row of an integer of NumPy": (
        lambda x, t: x * t[np.int64(2)],
        ["parameter", "slice", "multiply"],
    ),
    "new axis": (lambda x, t: x - t[None, :5], ["parameter", "slice", "subtract"]),
    "steps of the input": (lambda x, t: x[1:][:, ::2, 1:-1], ["slice", "slice"]),
    "first step": (lambda x, t: x[:, 0], ["slice"]),
    "ellipsis": (lambda x, t: x[..., None], ["slice"]),
    "product": (lambda x, t: -x @ ops.transpose(t), ["negative", "parameter", "permute", "matmul"]),
    "power": (
        lambda x, t: x**2 / (1 + abs(t[0])),
        ["power", "parameter", "slice", "abs", "add", "divide"],
    ),
    "comparison of a parameter": (
        lambda x, t: ops.where(t > 0, 0.2 * t, 0.1 * t)[:5] + x,
        ["parameter", "greater", "multiply", "multiply", "where", "slice", "add"],
    ),
    "comparison with a parameter": (
        lambda x, t: ops.where((x >= 0) & (t[:5] < x), x, -x),
        ["greater_equal", "parameter", "slice", "less", "logical_and", "negative", "where"],
    ),
    "remainder": (
        lambda x, t: x + (t // 2 + t % 2)[0],
        ["parameter", "floor_divide", "mod", "add", "slice", "add"],
    ),
    "numbers of the steps": (
        lambda x, t: x + ops.take(t, ops.arange(ops.shape(x)[1]), axis=0),
        ["parameter", "constant", "take", "add"],
    ),
    "tensor of a parameter": (
        lambda x, t: x + ops.convert_to_tensor(t)[0],
        ["parameter", "slice", "add"],
    ),
}


@pytest.mark.backend
@pytest.mark.parametrize(("body", "expected"), BODIES.values(), ids=BODIES)
def test_body_of_a_users_layer_is_followed(body, expected):
    layer = Own(body)

    program = capture_keras(layer, STEPS)

    assert kinds(program) == expected
    assert_close(
        output_of(program, STEPS), ops.convert_to_numpy(layer(STEPS)), atol=1e-6, rtol=1e-6
    )


def test_slice_tells_its_index():
    (operation,) = capture_keras(lambda x: x[:, 1:-1], STEPS).trace.operations

    assert operation.attributes == {"index": (slice(None), slice(1, -1))}


ACTIVATIONS = {
    "hard_silu": ("hard_silu", lambda x: x * np.clip(x / 6 + 0.5, 0, 1)),
    "hard_swish": ("hard_silu", lambda x: x * np.clip(x / 6 + 0.5, 0, 1)),
    "hard_tanh": ("clip", lambda x: np.clip(x, -1, 1)),
    "mish": ("mish", lambda x: x * np.tanh(np.log1p(np.exp(x)))),
}


@pytest.mark.backend
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation_is_its_word_wherever_it_is_called(name):
    function = keras.activations.get(name)
    word, formula = ACTIVATIONS[name]
    rows = np.linspace(-8, 8, 101)

    program = capture_keras(lambda x: layers.Activation(name)(function(x)), rows)

    assert kinds(program) == [word, word]
    exact = output_of(program.astype("float64"), rows)
    assert_close(exact, formula(formula(rows)), atol=1e-14, rtol=1e-14)


def test_activation_of_the_users_own_is_what_it_calls():
    def quick_gelu(x):
        return x * ops.sigmoid(1.702 * x)

    program = capture_keras(layers.Dense(3, activation=quick_gelu, name="dense"), STEPS)

    assert kinds(program) == ["dense", "multiply", "sigmoid", "multiply"]
    assert {operation.path for operation in program.trace.operations} == {"dense"}


IMAGES = stream(0, "images").standard_normal((2, 8, 8, 3)).astype(np.float32)
SPLIT = {
    "separable": (
        layers.SeparableConv2D(4, 3, padding="same", depth_multiplier=2, activation="relu"),
        ["conv", "conv", "relu"],
    ),
    "separable without a bias": (
        layers.SeparableConv2D(4, 3, strides=2, use_bias=False),
        ["conv", "conv"],
    ),
    "rescaling": (layers.Rescaling(0.1, offset=-1.0), ["multiply", "add"]),
    "offset alone": (layers.Rescaling(1, offset=0.5), ["add"]),
    "given statistics": (
        layers.Normalization(mean=[0.1, 0.2, 0.3], variance=[1.0, 2.0, 3.0]),
        ["constant", "subtract", "constant", "divide"],
    ),
    "flatten of channels first": (layers.Flatten("channels_first"), ["permute", "reshape"]),
}


@pytest.mark.parametrize(("layer", "expected"), SPLIT.values(), ids=SPLIT)
def test_layer_that_is_several_operations_shows_them(layer, expected):
    program = capture_keras(layer, IMAGES)

    assert kinds(program) == expected
    more = np.concatenate([IMAGES, 2 * IMAGES])
    assert_close(output_of(program, more), ops.convert_to_numpy(layer(more)), atol=1e-6, rtol=1e-6)
    exact = output_of(program.astype("float64"), more)
    assert_close(output_of(program, more), exact, atol=1e-6, rtol=1e-6)


@pytest.mark.backend
def test_separable_convolution_called_twice_has_one_state():
    layer = layers.SeparableConv1D(6, 3, padding="same", name="separable")

    program = capture_keras(lambda x: layer(layer(x)), STEPS)

    assert [operation.name for operation in program.trace.operations] == [
        "separable/depthwise", "separable", "separable/depthwise#2", "separable#2",
    ]  # fmt: skip
    expected = {
        f"separable.{variable.name}": ops.convert_to_numpy(variable) for variable in layer.weights
    }
    assert_states_close(program.state(), expected, atol=0, rtol=0)


def test_integers_are_cast_before_they_are_rescaled():
    integers = np.arange(12, dtype="uint8").reshape(3, 4)

    program = capture_keras(layers.Rescaling(1 / 127.5, offset=-1.0), integers)

    assert kinds(program) == ["cast", "multiply", "add"]
    exact = output_of(program.astype("float64"), integers)
    assert_close(exact, integers / 127.5 - 1, atol=1e-15, rtol=1e-15)


def test_resizing_with_a_filter_is_not_taken_for_plain_interpolation():
    layer = layers.Resizing(4, 4, antialias=True)

    assert kinds(capture_keras(layer, IMAGES)) == ["resizing"]


def bidirectional(**settings):
    inner = layers.GRU(3, return_sequences=True, **settings)
    return layers.Bidirectional(inner, name="both")


@pytest.mark.parametrize("settings", [{}, {"name": "below"}, {"name": "both"}], ids=str)
def test_slots_of_both_directions_are_told_apart(settings):
    (operation,) = capture_keras(bidirectional(**settings), STEPS).trace.operations

    slots = ("kernel", "recurrent_kernel", "bias")
    assert operation.weights == {slot: f"both.forward_layer.{slot}" for slot in slots} | {
        f"reverse.{slot}": f"both.backward_layer.{slot}" for slot in slots
    }


def test_arrays_of_the_backward_direction_are_those_of_its_layer():
    layer = bidirectional()
    state = capture_keras(layer, STEPS).state()

    for slot, variable in zip(
        ("kernel", "recurrent_kernel", "bias"), layer.backward_layer.weights, strict=True
    ):
        assert_close(
            state[f"both.backward_layer.{slot}"], ops.convert_to_numpy(variable), atol=0, rtol=0
        )
