"""What a capture of a PyTorch model names, notes and refuses, and what its runs keep apart."""

import dataclasses
import threading

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from parity.errors import CaptureError, ConversionError
from parity.frameworks.torch_program import capture_torch
from parity.rng import stream
from parity.testing.assertions import assert_close, assert_identical

SINGLE = {"atol": 1e-6, "rtol": 1e-5}


def draw(*shape, purpose="inputs"):
    return stream(0, purpose).standard_normal(shape).astype(np.float32)


class Tied(nn.Module):
    """A head with the weights of the embedding."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(5, 4)
        self.head = nn.Linear(4, 5, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, ids):
        return self.head(self.embedding(ids))


class Casting(nn.Module):
    """Asks for float32 in every way there is."""

    def __init__(self):
        super().__init__()
        self.dense = nn.Linear(4, 4)
        self.matrix = torch.full((4, 4), 1 / 3)

    def forward(self, x):
        y = self.dense(x.float()).to(torch.float32) @ self.matrix
        shift = torch.ones(4, dtype=torch.float32) / 3 + torch.full((4,), 1 / 3)
        return torch.softmax(y, -1, dtype=torch.float32) + shift


class Function(nn.Module):
    """A layer, and a function of it and of what the model is given."""

    def __init__(self, function, layer=None):
        super().__init__()
        self.function = function
        self.layer = nn.Linear(4, 4) if layer is None else layer

    def forward(self, *args, **kwargs):
        return self.function(self.layer, *args, **kwargs)


@dataclasses.dataclass
class Detection:
    boxes: torch.Tensor
    scores: list[torch.Tensor]


X = draw(2, 4)


def kept_outputs(program, inputs=(X,), **settings):
    run = program.run(inputs, keep=program.trace.outputs.values(), **settings)
    return {name: run.values[value] for name, value in program.trace.outputs.items()}


def output_of(program, inputs=(X,), **settings):
    (array,) = kept_outputs(program, inputs, **settings).values()
    return array


def value_of(program, name):
    """Return the first output of an operation."""
    (found,) = [o for o in program.trace.operations if o.name == name]
    return found.outputs[0]


def test_outputs_bear_the_names_of_their_places():
    def detect(_, x, *, shift):
        return {"found": Detection(x, [x + shift, x * shift]), "first": (shift,)}

    program = capture_torch(Function(detect), X, keywords={"shift": X + 1})

    assert list(program.trace.outputs) == [
        "found.boxes",
        "found.scores.0",
        "found.scores.1",
        "first.0",
    ]
    assert_identical(kept_outputs(program, (X, X + 2))["found.scores.1"], X * (X + 2))


def test_functions_and_methods_are_models_too():
    method = nn.Bilinear(4, 4, 2).double().forward

    assert_identical(output_of(capture_torch(torch.neg, X)), -X)
    assert capture_torch(method, (X, X)).parameter_names() == ("weight", "bias")


def test_call_in_place_gives_new_values_to_what_shares_its_memory():
    def call(x):
        y = x * 1
        y[:, 0] += 1
        return y * 3

    operations = capture_torch(call, X).trace.operations

    assert [(o.kind, o.inputs, o.outputs) for o in operations] == [
        ("multiply", (0,), (1,)),
        ("slice", (1,), (2,)),
        ("add_", (2, 1), (3, 4)),
        ("setitem", (4, 3), (5,)),
        ("multiply", (5,), (7,)),
    ]


@pytest.mark.parametrize("layer", [nn.Dropout(0.5), nn.Flatten()], ids=["dropout", "flatten"])
def test_layer_that_returns_its_input_makes_another_value(layer):
    trace = capture_torch(Function(lambda layer, x: layer(x) + x, layer), X).trace

    assert [operation.inputs for operation in trace.operations] == [(0,), (1, 0)]


def test_values_that_reach_no_output_are_left_out():
    program = capture_torch(Function(lambda dense, x: (dense(x), x.exp())[1]), X)

    run = program.run([X], cotangents={program.trace.outputs[""]: X})

    assert [operation.kind for operation in program.trace.operations] == ["exp"]
    assert_identical(run.parameter_gradients["layer.bias"], np.zeros(4, np.float32))


def test_tied_weights_share_their_first_name():
    program = capture_torch(Tied(), stream(0, "ids").integers(0, 5, (2, 3)))

    names = [dict(operation.weights) for operation in program.trace.operations]
    assert names == [{"weight": "embedding.weight"}] * 2
    assert list(program.state()) == ["embedding.weight"]


def test_replaced_value_cuts_the_gradient_and_takes_it():
    program = capture_torch(Function(lambda dense, x: dense(dense(x).tanh()) ** 2), X)
    middle, last = value_of(program, "layer"), program.trace.outputs[""]
    array, ones = draw(2, 4, purpose="middle"), np.ones((2, 4), np.float32)

    run = program.run(
        [X], keep=[0, middle], replaced={middle: array}, cotangents={last: ones, middle: 0 * ones}
    )

    state = {name: torch.from_numpy(array) for name, array in program.state().items()}
    leaf = torch.from_numpy(array).requires_grad_()
    expected = functional.linear(leaf.tanh(), state["layer.weight"], state["layer.bias"]) ** 2
    assert_close(run.gradients[middle], torch.autograd.grad(expected.sum(), leaf)[0], **SINGLE)
    assert_identical(run.gradients[0], np.zeros_like(X))


def test_cotangents_of_replaced_values_reach_what_computed_them():
    program = capture_torch(Function(lambda dense, x: dense(x).exp()), X)
    middle = value_of(program, "layer")
    ones = np.ones((2, 4), np.float32)

    run = program.run([X], keep=[0], replaced={middle: 0 * ones}, cotangents={middle: ones})

    assert_close(run.gradients[0], ones @ program.state()["layer.weight"], **SINGLE)


@pytest.mark.parametrize(
    "wrap",
    [torch.jit.script, lambda layer: torch.compile(layer, backend="eager")],
    ids=["scripted", "compiled"],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:The .grad attribute")
def test_compiled_part_is_one_opaque_operation(wrap):
    program = capture_torch(Function(lambda layer, x: layer(x) + 1, wrap(nn.Linear(4, 4))), X)

    first, _ = program.trace.operations
    assert (first.name, first.kind) == ("layer", "opaque")
    assert sorted(first.weights.values()) == sorted(program.parameter_names())
    assert_close(output_of(program.astype("float64")), output_of(program), atol=1e-6, rtol=1e-5)


def test_dropout_keeps_what_its_numbers_say():
    program = capture_torch(nn.Dropout(0.25), X)
    numbers = stream(0, "numbers").random(X.shape)

    dropped = output_of(program, training=True, uniforms={"/dropout": numbers})

    expected = np.where(numbers >= 0.25, X / np.float32(0.75), np.float32(0))
    assert_identical(dropped, expected)
    assert_identical(output_of(program, training=True), X)
    assert_identical(output_of(program, uniforms={"/dropout": numbers}), X)


def test_spatial_dropout_shares_the_first_number():
    program = capture_torch(nn.Dropout1d(0.5), draw(2, 3, 4))
    numbers = stream(0, "numbers").random((2, 3, 4))

    dropped = output_of(program, (draw(2, 3, 4),), training=True, uniforms={"/dropout": numbers})

    assert_identical(dropped == 0, np.broadcast_to(numbers[..., :1] < 0.5, (2, 3, 4)))


def test_training_moves_buffers_in_the_run_alone():
    module = nn.Sequential(nn.BatchNorm1d(4))
    program = capture_torch(module, X)

    run = program.run([X], training=True)

    module.train()(torch.from_numpy(X))
    assert_identical(run.buffers["0.running_var"], module[0].running_var.numpy())
    assert_identical(program.state()["0.running_var"], np.ones(4, np.float32))
    assert_identical(program.run([X]).buffers["0.running_mean"], np.zeros(4, np.float32))


def test_float64_reaches_explicit_casts_and_constants():
    module = Casting()
    program = capture_torch(module, X).astype("float64")

    state = program.state()
    logits = (X @ state["dense.weight"].T + state["dense.bias"]) @ np.full(
        (4, 4), np.float32(1 / 3), np.float64
    )
    exponents = np.exp(logits)
    expected = exponents / exponents.sum(-1, keepdims=True) + 2 / 3
    assert_close(output_of(program), expected, atol=1e-15, rtol=1e-14)


def test_part_that_stays_narrow_is_refused_by_name():
    program = capture_torch(lambda x: x.type("torch.FloatTensor") * 2, X)

    with pytest.raises(CaptureError, match="/multiply stay in float32"):
        program.astype("float64")


def test_cast_to_the_wider_type_stays_an_operation():
    program = capture_torch(lambda x: x.double().exp(), X)

    assert [o.kind for o in program.trace.operations] == ["cast", "exp"]
    assert_identical(output_of(program.astype("float64")), output_of(program))


NOTES = {
    "control flow": (lambda _, x: x if x.sum() > 0 else -x, "Python reads values by bool"),
    "array": (lambda _, x: x + torch.from_numpy(x.detach().numpy()), "Python reads values by"),
    "draws": (lambda _, x: x + torch.rand(4), "rand draws numbers"),
    "halves": (lambda _, x: x.half().float(), "/cast: computed in 16 bits"),
    "always drops": (lambda _, x: functional.dropout(x), "drops in evaluation too"),
    "training": (lambda layer, x: x * 2 if layer.training else x, "Not to be compared in training"),
}


@pytest.mark.parametrize(("function", "note"), NOTES.values(), ids=NOTES)
def test_what_cannot_be_followed_is_noted(function, note):
    assert any(note in each for each in capture_torch(Function(function), X).trace.notes)


def test_attention_in_training_drops_nothing_and_says_so():
    attention = nn.MultiheadAttention(4, 2, dropout=0.5)
    program = capture_torch(Function(lambda layer, x: layer(x, x, x)[0], attention), X)

    assert any("drops nothing here" in note for note in program.trace.notes)
    assert_identical(output_of(program, training=True), output_of(program, training=True))
    assert_close(output_of(program, training=True), output_of(program), **SINGLE)


def test_numbers_drawn_in_the_model_are_the_same_in_every_run():
    program = capture_torch(lambda x: x + torch.rand_like(x), X)
    before = output_of(program)

    torch.rand(3)

    assert_identical(output_of(program), before)


def test_run_that_branches_otherwise_is_refused():
    program = capture_torch(lambda x: x.exp() if x.sum() > 0 else x.tanh(), np.abs(X))

    with pytest.raises(
        CaptureError, match=r"does not make /exp\. It first makes torch\.Tensor\.tanh"
    ):
        program.run([-np.abs(X)])


REFUSED = {
    "parameters outside": (
        lambda: Function(lambda layers, x: layers[0](x), [nn.Linear(4, 4)]),
        "expected parameters that belong to the model",
    ),
    "no copy": (
        lambda: Function(lambda lock, x: x, threading.Lock()),
        "copy.deepcopy",
    ),
    "other outputs": (lambda: Function(lambda calls, x: x + next(calls), Counting()), "differs"),
    "no tensor": (lambda: Function(lambda _, x: None), "it returns none"),
    "fails": (lambda: nn.Linear(5, 1), r"inputs of shapes \(2, 4\): RuntimeError"),
}


class Counting:
    """Counts its calls."""

    count = 0

    def __next__(self):
        self.count += 1
        return self.count


@pytest.mark.parametrize(("build", "message"), REFUSED.values(), ids=REFUSED)
def test_model_that_cannot_be_followed_is_refused(build, message):
    with pytest.raises(CaptureError, match=message):
        capture_torch(build(), X)


def test_program_and_users_model_change_apart():
    module = nn.Linear(4, 2)
    program = capture_torch(module, X)

    program.load_state({"bias": np.array([3.0, 4.0])})

    assert_identical(program.state()["bias"], np.array([3, 4], np.float32))
    assert_identical(program.astype("float64").state()["bias"], np.array([3.0, 4.0]))
    assert module.bias.abs().max() < 1
    assert module.training


def test_state_that_does_not_fit_is_refused_whole():
    program = capture_torch(nn.Linear(4, 2), X)
    before = program.state()["bias"]

    with pytest.raises(ConversionError, match=r"gain: .* no such array; weight: expected shape"):
        program.load_state({"bias": before + 1, "weight": X.T, "gain": X})

    assert_identical(program.state()["bias"], before)


def test_frozen_parameters_are_state_and_not_trained():
    module = nn.Linear(4, 2)
    module.bias.requires_grad_(requires_grad=False)
    program = capture_torch(module, X)

    run = program.run([X], cotangents={program.trace.outputs[""]: draw(2, 2)})

    assert list(run.parameter_gradients) == ["weight"]
    assert list(run.buffers) == ["bias"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"inputs": [X, X]}, "expected 1 inputs; got 2"),
        ({"inputs": [X], "replaced": {0: X[:1]}}, r"shape \(2, 4\) in the place of value 0"),
        ({"inputs": [X], "keep": [7], "uniforms": {"drop": X}}, "it has no 7, 'drop'"),
        (
            {"inputs": [X], "training": True, "uniforms": {"0": X[0]}},
            r"0: expected numbers of shape \(2, 4\); got \(4,\)",
        ),
    ],
    ids=["inputs", "replacement", "names", "numbers"],
)
def test_arrays_that_do_not_fit_a_run_are_refused(settings, message):
    program = capture_torch(nn.Sequential(nn.Dropout(0.5), nn.Linear(4, 2)), X)

    with pytest.raises(CaptureError, match=message):
        program.run(**settings)
