"""The words and attributes by which calls of PyTorch are described."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from parity.frameworks.torch_program import capture_torch
from parity.rng import stream


class Sequence(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(4, 4)
        self.attention = nn.MultiheadAttention(4, 2)

    def forward(self, x):
        features, _ = self.lstm(x)
        return self.attention(features, features, features)


def draw(*shape):
    return stream(0, "inputs").standard_normal(shape).astype(np.float32)


def captured(model, *shapes):
    return capture_torch(model, tuple(draw(*shape) for shape in shapes)).trace.operations


CONV = {"channel_axis": 1, "groups": 1}
LAYERS = {
    "conv1d": (
        nn.Conv1d(3, 4, 3, stride=2),
        (2, 3, 9),
        "conv",
        CONV | {"stride": (2,), "padding": ((0, 0),), "dilation": (1,)},
    ),
    "same padding of an even kernel": (
        nn.Conv2d(3, 4, (2, 3), padding="same", dilation=(1, 2)),
        (2, 3, 9, 9),
        "conv",
        CONV | {"stride": (1, 1), "padding": ((0, 1), (2, 2)), "dilation": (1, 2)},
    ),
    "transposed": (
        nn.ConvTranspose2d(3, 4, 3, stride=2, padding=1, output_padding=1),
        (2, 3, 5, 5),
        "conv_transpose",
        CONV
        | {
            "stride": (2, 2),
            "padding": ((1, 1), (1, 1)),
            "output_padding": (1, 1),
            "dilation": (1, 1),
        },
    ),
    "batch norm": (
        nn.BatchNorm2d(3, eps=1e-3, momentum=0.25),
        (2, 3, 4, 4),
        "batch_norm",
        {"channel_axis": 1, "epsilon": 1e-3, "stats_decay": 0.75},
    ),
    "instance norm": (
        nn.InstanceNorm2d(3),
        (2, 3, 4, 4),
        "group_norm",
        {"channel_axis": 1, "groups": 3, "epsilon": 1e-5},
    ),
    "layer norm": (
        nn.LayerNorm((3, 4)),
        (2, 3, 4),
        "layer_norm",
        {"axes": (1, 2), "epsilon": 1e-5},
    ),
    "rms norm": (
        nn.RMSNorm(4),
        (2, 4),
        "rms_norm",
        {"axes": (1,), "epsilon": float(np.finfo(np.float32).eps)},
    ),
    "max pool": (
        nn.MaxPool2d(3, 2, padding=1, ceil_mode=True),
        (2, 3, 8, 8),
        "max_pool",
        {
            "channel_axis": 1,
            "size": (3, 3),
            "stride": (2, 2),
            "padding": ((1, 1), (1, 1)),
            "dilation": (1, 1),
            "ceil": True,
        },
    ),
    "avg pool": (
        nn.AvgPool1d(2, count_include_pad=False),
        (2, 3, 8),
        "avg_pool",
        {
            "channel_axis": 1,
            "size": (2,),
            "stride": (2,),
            "padding": ((0, 0),),
            "ceil": False,
            "counts_padding": False,
        },
    ),
    "pool to one": (
        nn.AdaptiveAvgPool2d(1),
        (2, 3, 4, 4),
        "mean",
        {"axes": (2, 3), "keepdims": True},
    ),
    "pool to more": (
        nn.AdaptiveAvgPool2d((2, 1)),
        (2, 3, 4, 4),
        "adaptive_avg_pool",
        {"channel_axis": 1, "output_size": (2, 1)},
    ),
    "resize": (
        nn.Upsample(scale_factor=2, mode="bilinear"),
        (2, 3, 4, 4),
        "resize",
        {"channel_axis": 1, "output_size": (8, 8), "mode": "bilinear", "corners": False},
    ),
    "spatial dropout": (
        nn.Dropout2d(0.25),
        (2, 3, 4, 4),
        "dropout",
        {"rate": 0.25, "shared_axes": (2, 3)},
    ),
    "leaky relu": (nn.LeakyReLU(0.2), (2, 3), "leaky_relu", {"slope": 0.2}),
    "gelu": (nn.GELU("tanh"), (2, 3), "gelu", {"approximate": True}),
    "hard tanh": (nn.Hardtanh(), (2, 3), "clip", {"low": -1.0, "high": 1.0}),
    "gru": (
        nn.GRU(3, 4, bidirectional=True),
        (5, 2, 3),
        "gru",
        {"units": 4, "layers": 1, "bidirectional": True, "batch_axis": 1, "reset_after": True},
    ),
}
FUNCTIONS = {
    "transpose": (lambda x: x.transpose(-1, 1), "permute", {"order": (0, 3, 2, 1)}),
    "movedim": (lambda x: x.movedim(1, -1), "permute", {"order": (0, 2, 3, 1)}),
    "flatten": (lambda x: x.flatten(1), "reshape", {"shape": (2, 60)}),
    "pad": (
        lambda x: functional.pad(x, (1, 2, 0, 3), "replicate"),
        "pad",
        {"widths": ((0, 0), (0, 0), (0, 3), (1, 2)), "mode": "edge", "value": 0.0},
    ),
    "right of a number": (
        lambda x: 2 - x,
        "subtract",
        {"constant": 2, "constant_first": True},
    ),
    "left of a number": (lambda x: x**2, "power", {"constant": 2, "constant_first": False}),
    "chunk": (lambda x: x.chunk(2, -1)[1], "split", {"axis": 3, "sizes": (3, 2)}),
    "index": (lambda x: x[..., 0], "slice", {"index": (..., 0)}),
    "narrow": (lambda x: x.narrow(1, 1, 2), "slice", {"index": (slice(None), slice(1, 3))}),
    "mean": (lambda x: x.mean((-1, 1)), "mean", {"axes": (1, 3), "keepdims": False}),
    "max of all": (torch.max, "max", {"axes": (0, 1, 2, 3), "keepdims": False}),
    "biased variance": (
        lambda x: x.var(1, correction=0),
        "var",
        {"axes": (1,), "keepdims": False},
    ),
    "unbiased variance": (lambda x: x.var(1), "torch_var", {}),
    "cast": (lambda x: x.double(), "cast", {"dtype": "float64"}),
    "clamp": (lambda x: x.clamp(max=1), "clip", {"low": None, "high": 1}),
    "einsum": (lambda x: torch.einsum("b c h w -> bh", x), "einsum", {"equation": "bchw->bh"}),
    "unknown": (torch.erfinv, "erfinv", {}),
}


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize(("layer", "shape", "kind", "attributes"), LAYERS.values(), ids=LAYERS)
def test_layer_has_kind_and_attributes(layer, shape, kind, attributes):
    (operation,) = captured(nn.Sequential(layer), shape)

    assert (operation.name, operation.kind) == ("0", kind)
    assert operation.attributes == attributes


@pytest.mark.parametrize(("function", "kind", "attributes"), FUNCTIONS.values(), ids=FUNCTIONS)
def test_function_has_kind_and_attributes(function, kind, attributes):
    (operation,) = captured(function, (2, 3, 4, 5))

    assert (operation.name, operation.kind) == (f"/{kind}", kind)
    assert operation.attributes == attributes


def test_weights_bear_torchs_slots_and_layouts():
    operations = captured(
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(16, 2)), (2, 3, 4, 4)
    )

    conv, _, dense = operations
    assert conv.weights == {"weight": "0.weight", "bias": "0.bias"}
    assert (conv.layouts, dense.layouts) == ({"weight": "oihw"}, {"weight": "oi"})


def test_recurrent_layer_and_attention_keep_their_own_slots():
    first, second = captured(Sequence(), (5, 2, 4))

    assert first.weights["weight_hh_l0"] == "lstm.weight_hh_l0"
    assert second.weights["out_proj.weight"] == "attention.out_proj.weight"
    assert second.inputs == (first.outputs[0],) * 3


def test_padding_of_another_mode_shows_as_an_operation_of_its_layer():
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, padding_mode="circular"))

    assert [o.name for o in captured(model, (2, 3, 4, 4))] == ["0/pad", "0"]
