"""Layers of users that nothing can make anew from a config, in programs of their own."""

import numpy as np
import pytest

from parity import runtime
from parity.errors import CaptureError
from parity.rng import stream
from parity.testing.assertions import assert_close, assert_identical

runtime.select_keras_backend(None)

import keras  # noqa: E402  # the backend is chosen first
from keras import layers  # noqa: E402

from parity.frameworks.keras_program import capture_keras  # noqa: E402

ROWS = stream(0, "rows").standard_normal((2, 5)).astype(np.float32)


def raw_sine(x):
    """Return the sine by the backend's own function, which symbols do not pass."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.sin(x)
    if keras.backend.backend() == "jax":
        import jax

        return jax.numpy.sin(x)
    import torch

    return torch.sin(x)


class Unlisted(layers.Layer):
    """Takes a thing that no config can hold; has layers, a list of them and a variable."""

    def __init__(self, thing):
        super().__init__(name="unlisted")
        self.thing = thing
        self.dense = layers.Dense(4, name="dense")
        self.more = [layers.Dropout(0.5), layers.Dense(5, name="last")]

    def build(self, shape):
        self.scale = self.add_weight(shape=(5,), name="scale", initializer="ones")

    def call(self, x, training=None):
        x = self.dense(raw_sine(x))
        for layer in self.more:
            x = layer(x)
        return raw_sine(x) * self.scale.value


class Enclosing(Unlisted):
    """Calls a layer through a function that keeps it."""

    def __init__(self, thing):
        super().__init__(thing)
        dense = self.dense
        self.project = lambda x: dense(x)

    def call(self, x, training=None):
        return raw_sine(self.project(x))


class Nesting(Unlisted):
    """Holds a model, which casts what it is given."""

    def __init__(self, thing):
        super().__init__(thing)
        self.more.append(keras.Sequential([layers.Dense(5)]))


def by_hand(state):
    rows = np.sin(ROWS.astype(np.float64)) @ state["unlisted.dense.kernel"]
    rows = rows + state["unlisted.dense.bias"]
    rows = rows @ state["unlisted.last.kernel"] + state["unlisted.last.bias"]
    return np.sin(rows) * state["unlisted.scale"]


@pytest.mark.backend
def test_layer_without_a_config_computes_in_float64_with_its_own_variables():
    program = capture_keras(Unlisted(object()), ROWS).astype("float64")
    state = {name: stream(0, name).standard_normal(a.shape) for name, a in program.state().items()}
    program.load_state(state)
    (value,) = program.trace.outputs.values()

    run = program.run([ROWS], keep=[value], cotangents={value: np.ones((2, 5))})

    assert_close(run.values[value], by_hand(state), atol=1e-14, rtol=1e-13)
    assert set(run.parameter_gradients) == set(state)
    assert all(np.any(gradient) for gradient in run.parameter_gradients.values())


def test_layer_of_the_user_keeps_its_arrays_and_their_dtype():
    layer = Unlisted(object())
    program = capture_keras(layer, ROWS)
    before = [keras.ops.convert_to_numpy(variable) for variable in layer.variables]

    program.load_state({name: array + 1 for name, array in program.state().items()})
    program.astype("float64").run([ROWS], training=True)

    for variable, array in zip(layer.variables, before, strict=True):
        assert_identical(keras.ops.convert_to_numpy(variable), array)


def test_stock_layer_whose_class_takes_more_is_copied_without_its_activation():
    class Taking(layers.Dense):
        def __init__(self, thing):
            super().__init__(3, activation="relu", name="taking")
            self.thing = thing

    layer = Taking(object())
    program = capture_keras(layer, ROWS)

    dense, relu = program.astype("float64").trace.operations
    assert (dense.kind, relu.kind) == ("dense", "relu")
    run = program.run([ROWS], keep=dense.outputs)
    assert (run.values[dense.outputs[0]] < 0).any()


@pytest.mark.backend
@pytest.mark.parametrize("kind", [Enclosing, Nesting])
def test_layer_of_which_no_twin_stands_alone_is_refused_in_float64(kind):
    layer = kind(object())
    program = capture_keras(layer, ROWS)
    before = keras.ops.convert_to_numpy(layer.dense.kernel)

    with pytest.raises(CaptureError, match="unlisted do not"):
        program.astype("float64")

    assert_identical(keras.ops.convert_to_numpy(layer.dense.kernel), before)
