"""The layers of PyTorch's recurrent stacks, each an operation of its own."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

from parity.frameworks.torch_program import capture_torch
from parity.rng import stream
from parity.testing.assertions import assert_close, assert_identical

WIDTH, UNITS, LAYERS = 4, 3, 3


def draw(*shape, purpose="inputs"):
    return stream(0, purpose).standard_normal(shape).astype(np.float32)


X = draw(2, 5, WIDTH)


class Started(nn.Module):
    """A stack whose initial states are given, and all that it returns."""

    def __init__(self, layer, **options):
        super().__init__()
        self.rnn = layer(WIDTH, UNITS, LAYERS, **options)

    def forward(self, x, *states):
        given = states if isinstance(self.rnn, nn.LSTM) else states[0]
        sequence, ends = self.rnn(x, hx=given)
        return sequence, *(ends if isinstance(ends, tuple) else (ends,))


def built(layer, **options):
    torch.manual_seed(0)
    return Started(layer, **options)


def started(layer, *, batch_first, bidirectional):
    model = built(layer, batch_first=batch_first, bidirectional=bidirectional)
    shape = (LAYERS * (1 + bidirectional), 2 if batch_first else 5, UNITS)
    count = 2 if layer is nn.LSTM else 1
    return model, [X, *(draw(*shape, purpose=f"state {place}") for place in range(count))]


@pytest.mark.parametrize("bidirectional", [False, True], ids=["one way", "both ways"])
@pytest.mark.parametrize("batch_first", [False, True], ids=["time first", "batch first"])
@pytest.mark.parametrize("layer", [nn.LSTM, nn.GRU, nn.RNN])
def test_a_stack_of_layers_returns_what_torch_does(layer, batch_first, bidirectional):
    model, inputs = started(layer, batch_first=batch_first, bidirectional=bidirectional)
    program = capture_torch(model, inputs)
    outputs = model(*map(torch.as_tensor, inputs))
    cotangents = [draw(*output.shape, purpose="cotangents") for output in outputs]
    gradients = torch.autograd.grad(
        outputs, list(model.parameters()), list(map(torch.as_tensor, cotangents))
    )

    values = list(program.trace.outputs.values())
    run = program.run(
        inputs, keep=program.trace.shapes, cotangents=dict(zip(values, cotangents, strict=True))
    )

    for value, output in zip(values, outputs, strict=True):
        assert_identical(run.values[value], output.detach().numpy())
    for (name, _), gradient in zip(model.named_parameters(), gradients, strict=True):
        assert_close(run.parameter_gradients[name], gradient, atol=1e-6, rtol=1e-5, where=name)


def test_a_layer_of_a_stack_has_the_slots_of_a_single_one():
    program = capture_torch(nn.Sequential(nn.GRU(WIDTH, UNITS, 2)), X)

    layers = [o for o in program.trace.operations if o.kind == "gru"]
    assert [layer.name for layer in layers] == ["0.l0", "0.l1"]
    assert layers[1].weights == {
        f"{name}_l0": f"0.{name}_l1" for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    }
    assert (layers[1].attributes["layers"], layers[1].inputs[0]) == (1, layers[0].outputs[0])


def test_a_value_between_the_layers_of_a_stack_can_be_replaced():
    model = built(nn.RNN, batch_first=True).rnn
    program = capture_torch(model, X)
    between, after = (operation.outputs[0] for operation in program.trace.operations[:2])
    given = draw(2, 5, UNITS, purpose="between")
    ones = np.ones_like(given)

    run = program.run(
        [X], keep=[between, after], replaced={between: given}, cotangents={after: ones}
    )

    single = nn.RNN(UNITS, UNITS, batch_first=True)
    names = [name.replace("_l1", "_l0") for name in model.state_dict() if name.endswith("_l1")]
    single.load_state_dict({n: model.state_dict()[n.replace("_l0", "_l1")] for n in names})
    operand = torch.tensor(given, requires_grad=True)
    expected, _ = single(operand)
    expected.sum().backward()
    assert_identical(run.values[after], expected.detach().numpy())
    assert_close(run.gradients[between], operand.grad, atol=1e-6, rtol=1e-5)


def test_dropout_between_the_layers_of_a_stack_takes_numbers():
    program = capture_torch(built(nn.LSTM, dropout=0.25).rnn, X)
    layers = [o for o in program.trace.operations if o.kind == "lstm"]
    drops = [o for o in program.trace.operations if o.kind == "dropout"]
    uniforms = stream(0, "uniforms").random((2, 5, UNITS))

    kept = [layers[0].outputs[0], drops[0].outputs[0]]
    run = program.run([X], training=True, keep=kept, uniforms={drops[0].name: uniforms})

    assert [(o.inputs[0], o.attributes["rate"]) for o in drops] == [
        (layer.outputs[0], 0.25) for layer in layers[:-1]
    ]
    expected = np.where(uniforms >= 0.25, run.values[kept[0]] / 0.75, 0)
    assert_close(run.values[kept[1]], expected, atol=1e-7, rtol=1e-6)
    assert program.trace.notes == ()


def packed(x):
    return pack_padded_sequence(x, torch.tensor([5, 3]), batch_first=True)


class Packing(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = nn.GRU(WIDTH, UNITS, 2, batch_first=True)

    def forward(self, x):
        sequence, _ = self.rnn(packed(x))
        assert isinstance(sequence, PackedSequence)
        return sequence.data


class Projecting(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = nn.LSTM(WIDTH, UNITS, 2, proj_size=2)

    def forward(self, x):
        return self.rnn(x)[0]


def normed():
    model = Projecting()
    model.rnn = torch.nn.utils.parametrizations.weight_norm(
        nn.LSTM(WIDTH, UNITS, 2), "weight_hh_l1"
    )
    return model


@pytest.mark.parametrize(
    ("build", "reason"),
    [
        (Packing, "its sequences are packed"),
        (Projecting, "they project their states"),
        (normed, "their arrays are computed from others"),
    ],
    ids=["packed", "projected", "computed"],
)
def test_a_stack_that_is_followed_whole_says_why(build, reason):
    trace = capture_torch(build(), X).trace

    (whole,) = [o for o in trace.operations if o.kind in ("lstm", "gru")]
    assert (whole.name, whole.attributes["layers"]) == ("rnn", 2)
    assert trace.notes == (f"rnn: its layers are not seen apart, as {reason}.",)
