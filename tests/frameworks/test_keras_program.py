"""Keras models as programs: what is recorded, and that runs of it are the model's own."""

import numpy as np
import pytest

from parity import runtime
from parity.rng import stream
from parity.testing.assertions import assert_close

runtime.select_keras_backend(None)

import keras  # noqa: E402  # the backend is chosen first
from keras import layers  # noqa: E402

from parity.frameworks.keras_program import capture_keras  # noqa: E402

pytestmark = pytest.mark.backend


def draw(*shape, name="values"):
    return stream(0, name).standard_normal(shape).astype(np.float32)


IMAGES = draw(2, 8, 8, 3)
ROWS = draw(2, 5)
TOKENS = np.array([[3, 1, 0, 0], [4, 2, 5, 0]])


def kinds(program):
    return [operation.kind for operation in program.trace.operations]


def names(program):
    return [operation.name for operation in program.trace.operations]


def outputs_of(program, *inputs, **settings):
    values = program.trace.outputs
    run = program.run(inputs, keep=tuple(values.values()), **settings)
    return {name: run.values[value] for name, value in values.items()}


def numpy_of(tensor):
    return keras.ops.convert_to_numpy(tensor)


def residual_net():
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, strides=2, padding="same", activation="relu", name="stem-conv")(inputs)
    y = layers.BatchNormalization(name="stem-bn")(x)
    x = layers.Add(name="join")([layers.ReLU(name="act")(y), x])
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(inputs, layers.Dense(3, activation="softmax", name="head")(x))


def test_functional_net_is_recorded_in_the_order_of_its_calls():
    program = capture_keras(residual_net(), IMAGES)

    assert names(program) == [
        "stem.conv", "stem.conv/relu", "stem.bn", "act", "join", "pool", "head", "head/softmax",
    ]  # fmt: skip
    assert kinds(program) == [
        "conv", "relu", "batch_norm", "relu", "add", "mean", "dense", "softmax",
    ]  # fmt: skip


def test_run_repeats_the_model():
    model = residual_net()

    (actual,) = outputs_of(capture_keras(model, IMAGES), IMAGES).values()

    assert_close(actual, numpy_of(model(IMAGES)), atol=1e-7, rtol=1e-6)


def test_convolution_tells_its_padding_and_its_weights():
    operation = capture_keras(residual_net(), IMAGES).trace.operations[0]

    assert operation.attributes == {
        "channel_axis": 3, "stride": (2, 2), "padding": ((0, 1), (0, 1)), "dilation": (1, 1),
        "groups": 1,
    }  # fmt: skip
    assert operation.weights == {"weight": "stem.conv.kernel", "bias": "stem.conv.bias"}
    assert operation.layouts == {"weight": "hwio", "bias": "o"}
