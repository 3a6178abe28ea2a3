"""Keras models as programs: what is recorded, and that runs of it are the model's own."""

import threading

import numpy as np
import pytest

from parity import runtime
from parity.errors import CaptureError, ConversionError
from parity.reference.layers import activations
from parity.reference.layers import smooth_activations as smooth
from parity.reference.layers.resampling import Resampling, resize2d
from parity.rng import stream
from parity.testing.assertions import assert_close, assert_identical, assert_states_close

runtime.select_keras_backend(None)

import keras  # noqa: E402  # the backend is chosen first
from keras import layers, ops  # noqa: E402

from parity.frameworks.keras_program import capture_keras  # noqa: E402


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


class Branch(layers.Layer):
    """Nests a model in a layer in a model; what it makes first it calls last."""

    def __init__(self, **settings):
        super().__init__(**settings)
        self.last = layers.Dense(5, name="last")
        self.first = keras.Sequential([layers.Dense(5, activation="gelu", name="one")], name="pair")
        self.norm = layers.LayerNormalization(name="norm")

    def build(self, shape):
        self.scale = self.add_weight(shape=(5,), name="scale", initializer="ones")

    def call(self, x):
        x = self.norm(self.first(x)) * self.scale + x
        return self.last(ops.concatenate([x, 2.0 - x], axis=-1)) + ops.transpose(self.scale)


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__(name="subclassed")
        self.branch = Branch(name="branch")
        self.head = layers.Dense(2, name="head")

    def call(self, x):
        return {"logits": self.head(self.branch(x)), "more": [ops.mean(x, axis=-1), x]}


def test_nested_layers_are_followed_in_the_order_of_their_calls():
    program = capture_keras(Subclassed(), ROWS)

    assert names(program) == [
        "branch.pair.one", "branch.pair.one/gelu", "branch.norm", "branch/parameter",
        "branch/multiply", "branch/add", "branch/subtract", "branch/concat", "branch.last",
        "branch/permute", "branch/add#2", "head", "/mean",
    ]  # fmt: skip


def test_number_beside_a_tensor_tells_its_side():
    program = capture_keras(Subclassed(), ROWS)
    (subtract,) = [o for o in program.trace.operations if o.kind == "subtract"]

    assert subtract.attributes == {"constant": 2.0, "constant_first": True}


def test_outputs_are_named_by_their_places():
    program = capture_keras(Subclassed(), ROWS)

    assert list(program.trace.outputs) == ["logits", "more.0", "more.1"]
    assert program.trace.outputs["more.1"] == program.trace.inputs[0]


def test_state_holds_every_array_by_path():
    program = capture_keras(Subclassed(), ROWS)

    assert set(program.state()) == {
        "branch.pair.one.kernel", "branch.pair.one.bias", "branch.norm.gamma", "branch.norm.beta",
        "branch.scale", "branch.last.kernel", "branch.last.bias", "head.kernel", "head.bias",
    }  # fmt: skip


@pytest.mark.backend
@pytest.mark.parametrize("training", [False, True])
def test_gradients_are_the_plain_ones(training):
    from parity.frameworks.keras_layer import run_keras_layer

    model = residual_net()
    program = capture_keras(model, IMAGES)
    end, d_outputs = program.trace.outputs[""], draw(2, 3, name="cotangents")

    run = program.run(
        [IMAGES], keep=program.trace.inputs, cotangents={end: d_outputs}, training=training
    )

    plain = run_keras_layer(model, [IMAGES], d_outputs, arguments={"training": training})
    assert_close(run.gradients[0], plain.input_gradients[0], atol=1e-6, rtol=1e-5)
    gradients = {
        path.replace("-", ".").replace("/", "."): gradient
        for path, gradient in plain.parameter_gradients.items()
    }
    assert_states_close(run.parameter_gradients, gradients, atol=1e-6, rtol=1e-5)


def test_replaced_value_cuts_the_gradient():
    program = capture_keras(residual_net(), IMAGES)
    value = program.trace.operations[2].outputs[0]  # of the batch norm
    settings = {
        "replaced": {value: draw(2, 4, 4, 4, name="replacement")},
        "cotangents": {program.trace.outputs[""]: draw(2, 3)},
    }

    run = program.run([IMAGES], keep=[value, program.trace.inputs[0]], **settings)

    assert not run.parameter_gradients["stem.bn.gamma"].any()
    assert run.gradients[value].any()
    # The way past the batch norm stays open.
    assert run.gradients[0].any()


def test_replaced_value_goes_on_and_the_computed_one_is_kept():
    program = capture_keras(residual_net(), IMAGES)
    norm = program.trace.operations[2]
    given = draw(2, 4, 4, 4, name="replacement")
    after = program.trace.operations[3].outputs[0]

    run = program.run([IMAGES], keep=[norm.outputs[0], after], replaced={norm.outputs[0]: given})

    plain = program.run([IMAGES], keep=norm.outputs)
    assert_identical(run.values[after], np.maximum(given, 0))
    assert_identical(run.values[norm.outputs[0]], plain.values[norm.outputs[0]])


def test_gradient_of_a_value_within_is_that_of_a_cut_there():
    program = capture_keras(residual_net(), IMAGES)
    value = program.trace.operations[4].outputs[0]  # all goes through it
    cotangents = {program.trace.outputs[""]: draw(2, 3)}

    plain = program.run([IMAGES], keep=[value], cotangents=cotangents)

    replaced = {value: plain.values[value]}
    cut = program.run([IMAGES], keep=[value], cotangents=cotangents, replaced=replaced)
    assert plain.gradients[value].any()
    assert_close(plain.gradients[value], cut.gradients[value], atol=1e-7, rtol=1e-5)


def test_batch_may_differ_from_the_one_traced():
    model = residual_net()
    program = capture_keras(model, IMAGES)
    images = draw(3, 8, 8, 3)

    (actual,) = outputs_of(program, images).values()
    run = program.run([images], keep=[5], cotangents={program.trace.outputs[""]: draw(3, 3)})

    assert_close(actual, numpy_of(model(images)), atol=1e-7, rtol=1e-6)
    assert run.gradients[5].shape == (3, 4, 4, 4)


def test_buffers_move_in_training_and_are_put_back():
    program = capture_keras(residual_net(), IMAGES)
    before = program.state()

    run = program.run([IMAGES], training=True)

    assert set(run.buffers) == {"stem.bn.moving_mean", "stem.bn.moving_variance"}
    assert (run.buffers["stem.bn.moving_mean"] != before["stem.bn.moving_mean"]).any()
    assert_states_close(program.state(), before, atol=0, rtol=0)


def test_model_of_the_user_is_not_touched():
    model = keras.Sequential([layers.Dense(4), layers.BatchNormalization(), layers.Dropout(0.5)])
    model.build((2, 5))
    before = [numpy_of(variable.value) for variable in model.variables]
    nodes = [len(layer._inbound_nodes) for layer in model.layers]

    program = capture_keras(model, ROWS)
    program.load_state({name: array + 1 for name, array in program.state().items()})
    program.run([ROWS], training=True, cotangents={program.trace.outputs[""]: draw(2, 4)})
    program.astype("float64").run([ROWS], training=True)

    after = [numpy_of(variable.value) for variable in model.variables]
    assert len(before) == 7  # two of them the state of the dropout's seed and its kind
    for actual, expected in zip(after, before, strict=True):
        assert_identical(actual, expected)
    assert [len(layer._inbound_nodes) for layer in model.layers] == nodes
    assert {keras.backend.standardize_dtype(v.dtype) for v in model.weights} == {"float32"}


def test_loaded_state_is_computed_with():
    program = capture_keras(layers.Dense(4, name="dense"), ROWS)
    state = {"dense.kernel": draw(5, 4, name="kernel"), "dense.bias": draw(4, name="bias")}

    program.load_state(state)

    (actual,) = outputs_of(program, ROWS).values()
    expected = ROWS @ state["dense.kernel"] + state["dense.bias"]
    assert_close(actual, expected, atol=1e-6, rtol=1e-6)
    assert_states_close(program.state(), state, atol=0, rtol=0)


def test_state_that_does_not_fit_is_refused():
    program = capture_keras(layers.Dense(4, name="dense"), ROWS)

    with pytest.raises(ConversionError, match=r"1 unexpected \(kernel\), 1 of another shape"):
        program.load_state({"kernel": draw(5, 4), "dense.bias": draw(5)})


def test_layer_called_twice_has_one_state_and_two_operations():
    shared = layers.Dense(5, activation="relu", name="shared")
    inputs = keras.Input((5,))
    program = capture_keras(keras.Model(inputs, shared(shared(inputs))), ROWS)

    assert names(program) == ["shared", "shared/relu", "shared#2", "shared/relu#2"]
    assert {operation.path for operation in program.trace.operations} == {"shared"}
    assert set(program.state()) == {"shared.kernel", "shared.bias"}


def test_several_inputs_and_outputs_by_name():
    first, second = keras.Input((5,), name="first"), keras.Input((5,), name="second")
    outputs = {"sum": layers.Add()([first, second]), "other": layers.Dense(2)(second)}
    model = keras.Model({"first": first, "second": second}, outputs)
    given = {"first": ROWS, "second": 2 * ROWS}

    program = capture_keras(model, given)

    actual = outputs_of(program, ROWS, 2 * ROWS)
    assert_close(actual["sum"], 3 * ROWS, atol=1e-6, rtol=1e-6)
    assert_close(actual["other"], numpy_of(model(given)["other"]), atol=1e-6, rtol=1e-6)


def test_inputs_are_spread_over_the_arguments_that_a_function_needs():
    program = capture_keras(lambda x, y: ops.matmul(x, ops.transpose(y)), [ROWS, 2 * ROWS])

    (actual,) = outputs_of(program, ROWS, 2 * ROWS).values()

    assert names(program) == ["/permute", "/matmul"]
    assert_close(actual, 2 * ROWS @ ROWS.T, atol=1e-6, rtol=1e-6)


class Raw(layers.Layer):
    """Computes in the backend's own functions, which symbols do not pass."""

    def build(self, shape):
        self.w = self.add_weight(shape=(5,), name="w", initializer="ones")

    def call(self, x):
        if keras.backend.backend() == "tensorflow":
            import tensorflow as tf

            return tf.sin(x) * self.w
        if keras.backend.backend() == "jax":
            import jax

            return jax.numpy.sin(x) * self.w.value
        import torch

        return torch.sin(x) * self.w.value


def raw_net():
    inputs = keras.Input((5,))
    return keras.Model(inputs, layers.Dense(2, name="head")(Raw(name="raw")(inputs)))


@pytest.mark.backend
def test_layer_that_cannot_be_followed_is_one_opaque_operation():
    program = capture_keras(raw_net(), ROWS)
    raw = program.trace.operations[0]

    assert kinds(program) == ["opaque", "dense"]
    assert (raw.name, raw.weights) == ("raw", {"w": "raw.w"})
    assert [note.partition(":")[0] for note in program.trace.notes] == ["raw"]


@pytest.mark.backend
def test_opaque_layer_computes_in_float64_if_keras_can_copy_it():
    program = capture_keras(raw_net(), ROWS).astype("float64")

    run = program.run([ROWS], keep=program.trace.operations[0].outputs)

    assert_close(run.values[1], np.sin(ROWS.astype(np.float64)), atol=1e-15, rtol=1e-15)


class Fixed(Raw):
    """Cannot be made of a config, nor copied with what it holds."""

    def __init__(self, thing, **settings):
        super().__init__(**settings)
        self.thing = thing


@pytest.mark.backend
def test_layer_that_cannot_be_copied_is_used_itself_and_gets_its_arrays_back():
    layer = Fixed(threading.Lock(), name="fixed")
    program = capture_keras(layer, ROWS)

    program.load_state({"fixed.w": np.full(5, 3, np.float32)})
    (actual,) = outputs_of(program, ROWS).values()

    assert_close(actual, 3 * np.sin(ROWS), atol=1e-6, rtol=1e-6)
    assert_identical(numpy_of(layer.w.value), np.ones(5, np.float32))
    with pytest.raises(CaptureError, match="fixed do not"):
        program.astype("float64")


def test_masks_of_tokens_reach_the_layers_that_use_them():
    tokens = keras.Input((None,), dtype="int64")
    vectors = layers.Embedding(6, 4, mask_zero=True, name="tokens")(tokens)
    model = keras.Model(tokens, layers.LSTM(3, name="lstm")(vectors))

    program = capture_keras(model, TOKENS)

    (actual,) = outputs_of(program, TOKENS).values()
    assert kinds(program) == ["embedding", "not_equal", "lstm"]
    assert_close(actual, numpy_of(model(TOKENS)), atol=1e-7, rtol=1e-6)
    longer = np.pad(TOKENS, ((0, 0), (0, 2)))
    assert_close(actual, numpy_of(model(longer)), atol=1e-6, rtol=1e-6)


def test_attention_is_one_operation_of_query_key_and_value():
    inputs = keras.Input((4, 6))
    layer = layers.MultiHeadAttention(2, 3, name="mix")
    model = keras.Model(inputs, layer(inputs, inputs + 1.0, inputs * 2.0))

    mix = capture_keras(model, draw(2, 4, 6)).trace.operations[-1]

    assert (mix.kind, mix.attributes) == ("attention", {"heads": 2})
    assert mix.inputs == (0, 2, 1)  # Keras is given the value, then the key
    assert mix.weights["query.kernel"] == "mix.query.kernel"


@pytest.mark.backend
def test_dropout_keeps_what_the_numbers_say():
    program = capture_keras(layers.Dropout(0.25, name="drop"), ROWS)
    uniforms = stream(0, "uniforms").uniform(size=(2, 5)).astype(np.float32)

    (trained,) = outputs_of(program, ROWS, training=True, uniforms={"drop": uniforms}).values()
    (tested,) = outputs_of(program, ROWS, uniforms={"drop": uniforms}).values()
    (bare,) = outputs_of(program, ROWS, training=True).values()

    assert_close(trained, np.where(uniforms >= 0.25, ROWS / 0.75, 0), atol=1e-7, rtol=1e-6)
    assert_identical(tested, ROWS)
    assert_identical(bare, ROWS)


def test_spatial_dropout_takes_the_first_number_along_its_shared_axes():
    images = draw(2, 3, 3, 4)
    program = capture_keras(layers.SpatialDropout2D(0.5, name="drop"), images)
    uniforms = stream(0, "uniforms").uniform(size=images.shape)

    settings = {"training": True, "uniforms": {"drop": uniforms}}
    (actual,) = outputs_of(program, images, **settings).values()

    kept = uniforms[:, :1, :1] >= 0.5
    assert program.trace.operations[0].attributes == {"rate": 0.5, "shared_axes": (1, 2)}
    assert_close(actual, np.where(kept, 2 * images, 0), atol=1e-7, rtol=1e-6)


def test_layer_that_draws_on_its_own_is_noted_and_draws_nothing():
    program = capture_keras(layers.GaussianNoise(1.0, name="noise"), ROWS)

    (actual,) = outputs_of(program, ROWS, training=True).values()

    assert_identical(actual, ROWS)
    assert program.trace.notes == ("noise: draws random numbers in training; here it draws none.",)


class Switching(layers.Layer):
    def call(self, x, training=None):
        return x * 2.0 if training else ops.relu(x)


def test_model_that_calls_something_else_in_training_is_not_run_in_training():
    program = capture_keras(keras.Sequential([Switching(name="switch")]), ROWS)

    assert_identical(outputs_of(program, ROWS)[""], np.maximum(ROWS, 0))
    with pytest.raises(CaptureError, match="switch/relu is not called alike in training"):
        program.run([ROWS], training=True)


BILINEAR = Resampling(
    method="bilinear",
    centers="half_pixel",
    antialias=False,
    cubic_coefficient=None,
    border="repeat",
)
EXACT = {
    "gelu": (lambda x: ops.gelu(x, approximate=False), lambda x: smooth.gelu(x, form="exact")),
    "tanh gelu": (ops.gelu, lambda x: smooth.gelu(x, form="tanh")),
    "leaky relu": (
        lambda x: ops.leaky_relu(x, negative_slope=0.2),
        lambda x: activations.leaky_relu(x, negative_slope=0.2),
    ),
    "leaky relu layer": (
        layers.LeakyReLU(negative_slope=0.3),
        lambda x: activations.leaky_relu(x, negative_slope=0.3),
    ),
    "elu": (ops.elu, lambda x: activations.elu(x, alpha=1.0)),
    "silu": (ops.silu, smooth.silu),
    "sigmoid": (keras.activations.sigmoid, smooth.sigmoid),
    "selu": (ops.selu, activations.selu),
    "mish": (layers.Activation("mish"), smooth.mish),
    "relu6": (layers.ReLU(max_value=6), lambda x: np.clip(x, 0, 6)),
    "rescaling": (layers.Rescaling(0.1, offset=0.3), lambda x: x * 0.1 + 0.3),
    "number": (lambda x: x * 0.1, lambda x: x * 0.1),
    "cast": (lambda x: ops.cast(x, "float32") / 3.0, lambda x: x / 3.0),
    "constant": (lambda x: x + np.float64(0.1) * np.ones(1), lambda x: x + 0.1),
}


@pytest.mark.backend
@pytest.mark.parametrize(("function", "expected"), EXACT.values(), ids=EXACT)
def test_function_computes_in_float64(function, expected):
    rows = np.linspace(-8, 8, 101)
    program = capture_keras(function, rows).astype("float64")

    assert_close(outputs_of(program, rows)[""], expected(rows), atol=1e-14, rtol=1e-14)


def test_bilinear_resizing_computes_in_float64():
    images = stream(0, "images").standard_normal((2, 4, 5, 3))
    layer = layers.UpSampling2D((2, 3), interpolation="bilinear", name="up")
    program = capture_keras(layer, images).astype("float64")

    (actual,) = outputs_of(program, images).values()

    expected = resize2d(
        images.transpose(0, 3, 1, 2), (8, 15), resampling=BILINEAR, scale_factors=None
    )
    assert_close(actual, expected.transpose(0, 2, 3, 1), atol=1e-14, rtol=1e-14)


def test_net_computes_in_float64_from_the_same_state():
    program = capture_keras(residual_net(), IMAGES)
    double = program.astype("float64")

    (rounded,), (exact,) = outputs_of(program, IMAGES).values(), outputs_of(double, IMAGES).values()

    assert (double.dtype, exact.dtype) == ("float64", np.float64)
    assert double.trace is program.trace
    assert_states_close(double.state(), program.state(), atol=0, rtol=0)
    assert_close(rounded, exact, atol=1e-6, rtol=1e-6)
    assert keras.config.floatx() == "float32"


def test_transformer_block_in_float64_agrees_with_numpy():
    rows = stream(0, "rows").standard_normal((3, 6))
    block = keras.Sequential(
        [layers.LayerNormalization(epsilon=1e-6, name="norm"), layers.Dense(4, name="dense")]
    )
    program = capture_keras(block, rows).astype("float64")
    state = {
        name: stream(0, name).standard_normal(array.shape)
        for name, array in program.state().items()
    }
    program.load_state(state)

    (actual,) = outputs_of(program, rows).values()

    centred = rows - rows.mean(-1, keepdims=True)
    normed = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6)
    normed = normed * state["norm.gamma"] + state["norm.beta"]
    expected = normed @ state["dense.kernel"] + state["dense.bias"]
    assert_close(actual, expected, atol=1e-13, rtol=1e-13)


def test_adapted_statistics_are_computed_with():
    layer = layers.Normalization(name="normal")
    layer.adapt(3 * ROWS + 1)
    program = capture_keras(layer, ROWS).astype("float64")

    (actual,) = outputs_of(program, ROWS).values()

    state = program.state()
    expected = (ROWS - state["normal.mean"]) / np.sqrt(state["normal.variance"])
    assert_close(actual, expected, atol=1e-13, rtol=1e-13)


def test_arrays_without_a_name_keep_theirs_in_another_precision():
    class Scaled(layers.Dense):
        def build(self, shape):
            super().build(shape)
            self.more = self.add_weight(shape=(4,))

    program = capture_keras(Scaled(4, name="scaled"), ROWS)

    assert len(program.state()) == 3
    assert program.astype("float64").state().keys() == program.state().keys()


@pytest.mark.backend
def test_attention_computes_in_float64():
    rows = stream(0, "rows").standard_normal((1, 3, 2))
    layer = layers.MultiHeadAttention(1, 2, name="mix")
    program = capture_keras(lambda x: layer(x, x), rows).astype("float64")
    state = program.state()

    (actual,) = outputs_of(program, rows).values()

    def project(name, values):
        return values @ state[f"mix.{name}.kernel"][:, 0] + state[f"mix.{name}.bias"][0]

    scores = project("query", rows[0]) @ project("key", rows[0]).T / np.sqrt(2)
    weights = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
    mixed = weights @ project("value", rows[0])
    expected = mixed @ state["mix.attention_output.kernel"][0] + state["mix.attention_output.bias"]
    assert_close(actual[0], expected, atol=1e-14, rtol=1e-13)
