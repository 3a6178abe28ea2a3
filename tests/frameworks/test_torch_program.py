"""Any PyTorch model as operations that run again: named, replaced, and with torch's gradients."""

import contextlib

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from parity.errors import CaptureError
from parity.frameworks.kinds import KINDS
from parity.frameworks.torch_program import capture_torch
from parity.rng import stream
from parity.testing.assertions import assert_close, assert_identical


def draw(*shape, purpose="inputs"):
    return stream(0, purpose).standard_normal(shape).astype(np.float32)


class Residual(nn.Module):
    """A block as a ResNet's, its activations in place and one of its layers called twice."""

    def __init__(self, channels=4):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x):
        y = self.relu(self.bn(self.conv(x)))
        y = self.bn(self.conv(y))
        y += x
        return self.relu(y)


def resnet():
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding="same"),
        nn.BatchNorm2d(4),
        nn.ReLU(inplace=True),
        Residual(),
        nn.MaxPool2d(2),
        nn.Dropout(0.25),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 5),
    )


class Masked(nn.Module):
    """Writes into a slice, and adds in place to another view of the same memory."""

    def __init__(self):
        super().__init__()
        self.dense = nn.Linear(4, 4)

    def forward(self, x):
        y = self.dense(x)
        y[:, 0] = x[:, 1]
        y[:, 2] += 1
        view = y[:, 3]
        view.mul_(2)
        return y * 3


class Parametrized(nn.Module):
    """Uses a parameter, a buffer, a constant and weights that are normed on the way."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor([1.0, 2.0, 3.0, 4.0]))
        self.register_buffer("shift", torch.tensor([0.5, 0.25, 0.125, 1.0]))
        self.dense = nn.utils.parametrizations.weight_norm(nn.Linear(4, 4))
        self.plain = torch.tensor([2.0, 2.0, 1.0, 1.0])

    def forward(self, x):
        return self.dense(x) * self.scale + self.shift - self.plain * torch.arange(4)


class WrongBackward(torch.autograd.Function):
    """Doubles, with a backward that triples."""

    @staticmethod
    def forward(context, x):
        return 2 * x

    @staticmethod
    def backward(context, gradient):
        return 3 * gradient


doubled = WrongBackward.apply


class Custom(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.dense = nn.Linear(4, 4)
        self.function = function

    def forward(self, x):
        return self.dense(self.function(self.dense(x)))


def sequence_model():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = nn.Embedding(7, 8)
            self.block = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
            self.lstm = nn.LSTM(8, 3, batch_first=True, bidirectional=True)

        def forward(self, ids):
            features, (hidden, _) = self.lstm(self.block(self.embedding(ids)))
            return {"features": features, "last": hidden[-1]}

    return Model()


X = draw(2, 4)
MODELS = {
    "resnet": (resnet, (draw(2, 3, 8, 8),)),
    "in place": (Masked, (draw(2, 4),)),
    "parameters": (Parametrized, (draw(2, 4),)),
    "transformer": (sequence_model, (stream(0, "ids").integers(0, 7, (2, 5)),)),
    "custom backward": (lambda: Custom(WrongBackward.apply), (draw(2, 4),)),
}


@pytest.fixture(params=MODELS)
def model(request):
    """A model in evaluation mode, and its inputs."""
    build, inputs = MODELS[request.param]
    torch.manual_seed(0)
    return build().eval(), inputs


@contextlib.contextmanager
def plain_attention():
    """Turn off the fused kernel that torch uses for a transformer's layer where it may."""
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(True)


def outputs_of(result):
    return list(result.values()) if isinstance(result, dict) else [result]


def test_run_returns_the_models_own_outputs_to_the_bit(model):
    module, inputs = model
    program = capture_torch(module, inputs)

    run = program.run(inputs, keep=program.trace.outputs.values())

    with torch.no_grad(), plain_attention():
        expected = outputs_of(module(*map(torch.as_tensor, inputs)))
    for value, tensor in zip(program.trace.outputs.values(), expected, strict=True):
        assert_identical(run.values[value], tensor.detach().numpy())


@pytest.mark.parametrize("keeps_all", [False, True], ids=["outputs", "every value"])
def test_run_returns_autograds_own_gradients(model, keeps_all):
    module, inputs = model
    program = capture_torch(module, inputs)
    outputs = outputs_of(module(*map(torch.as_tensor, inputs)))
    cotangents = {
        value: draw(*program.trace.shapes[value], purpose=name)
        for name, value in program.trace.outputs.items()
    }
    gradients = torch.autograd.grad(
        outputs, list(module.parameters()), list(map(torch.as_tensor, cotangents.values()))
    )

    run = program.run(inputs, keep=program.trace.shapes if keeps_all else (), cotangents=cotangents)

    names = [name for name, _ in module.named_parameters()]
    assert list(run.parameter_gradients) == names
    for name, gradient in zip(names, gradients, strict=True):
        assert_close(run.parameter_gradients[name], gradient, atol=1e-7, rtol=1e-6, where=name)


def test_values_replaced_by_themselves_change_nothing(model):
    module, inputs = model
    program = capture_torch(module, inputs)
    values = program.run(inputs, keep=program.trace.shapes).values

    run = program.run(inputs, keep=program.trace.shapes, replaced=values)

    for value, array in values.items():
        assert_identical(run.values[value], array)


def test_values_between_replaced_ones_do_not_see_the_inputs(model):
    module, inputs = model
    program = capture_torch(module, inputs)
    values = program.run(inputs, keep=program.trace.shapes).values
    others = [np.flip(array, axis=0) for array in inputs]

    run = program.run(others, keep=program.trace.shapes, replaced=values)

    for value in set(values) - set(program.trace.inputs):
        assert_identical(run.values[value], values[value])


def test_float64_runs_close_to_float32(model):
    module, inputs = model
    program = capture_torch(module, inputs)
    values = program.run(inputs, keep=program.trace.shapes).values

    run = program.astype("float64").run(inputs, keep=program.trace.shapes)

    for value, array in values.items():
        assert run.values[value].dtype in (np.float64, np.int64)
        assert_close(array, run.values[value], atol=1e-5, rtol=1e-4)


def test_kinds_are_words_of_the_table_with_all_their_attributes(model):
    module, inputs = model

    for operation in capture_torch(module, inputs).trace.operations:
        asked = KINDS.get(operation.kind, "").partition("|")[0].split()
        required = {name for name in asked if "[" not in name and "]" not in name}
        assert required <= set(operation.attributes), operation


def test_operations_bear_the_paths_of_their_layers():
    names = [
        operation.name
        for operation in capture_torch(resnet(), MODELS["resnet"][1]).trace.operations
    ]

    assert names == [
        "0",
        "1",
        "2",
        "3.conv",
        "3.bn",
        "3.relu",
        "3.conv#2",
        "3.bn#2",
        "3/add",
        "3.relu#2",
        "4",
        "5",
        "6",
        "7",
        "8",
    ]


def test_batch_may_differ_from_the_one_traced(model):
    module, inputs = model
    program = capture_torch(module, inputs)
    single = [array[:1] for array in inputs]

    run = program.run(single, keep=program.trace.outputs.values())

    assert {array.shape[0] for array in run.values.values()} == {1}


@pytest.mark.parametrize("function", [WrongBackward.apply, doubled], ids=["method", "bound early"])
def test_wrong_custom_backward_shows_in_the_gradient_to_its_input(function):
    program = capture_torch(Custom(function), X)
    _, custom, _ = program.trace.operations
    ones = np.ones((2, 4), np.float32)

    values = program.run([X], keep=[1, 2]).values
    run = program.run([X], keep=[1], replaced={1: values[1]}, cotangents={2: ones})

    assert (custom.kind, custom.native) == ("opaque", "WrongBackward")
    assert_identical(run.values[1] * 2, values[2])
    assert_identical(run.gradients[1], 3 * ones)


def test_functions_bound_early_cannot_be_replaced_between_one_another():
    program = capture_torch(lambda x: doubled(doubled(x * 1)), X)

    with pytest.raises(CaptureError, match=r"Call it as WrongBackward\.apply"):
        program.run([X], replaced={2: X})


def tanh_of_exp(x):
    return x.exp().tanh()


@pytest.mark.parametrize("use_reentrant", [False, True])
@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
def test_checkpointed_part_is_followed_and_cut(use_reentrant):
    model = Custom(lambda x: checkpoint(tanh_of_exp, x, use_reentrant=use_reentrant))
    program = capture_torch(model, X)
    zeros = np.zeros_like(X)

    run = program.run([X], keep=[2], replaced={2: zeros}, cotangents={3: zeros + 1})

    assert [o.kind for o in program.trace.operations] == ["dense", "exp", "tanh", "dense"]
    assert_identical(run.gradients[2], zeros + 1)


def test_channels_last_computes_the_same(model):
    module, inputs = model
    program = capture_torch(module, inputs)
    values = program.run(inputs, keep=program.trace.shapes).values

    run = program.channels_last().run(inputs, keep=program.trace.shapes)

    for value, array in values.items():
        assert_close(run.values[value], array, atol=1e-6, rtol=1e-5)
