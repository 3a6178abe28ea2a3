"""Layers that one framework has and the other writes out are compared, and weights go across."""

import numpy as np
import pytest

import parity
from parity import runtime
from parity.rng import stream

torch = pytest.importorskip("torch")
runtime.select_keras_backend(None)
keras = pytest.importorskip("keras")
nn, F = torch.nn, torch.nn.functional  # torch's own short name
layers = keras.layers

IMAGES = stream(0, "images").random((3, 3, 10, 10)).astype(np.float32)
CLIPS = stream(0, "clips").standard_normal((2, 3, 4, 4, 4)).astype(np.float32)
MEAN, VARIANCE = (0.4, 0.5, 0.6), (0.04, 0.09, 0.16)


class Mobile(nn.Module):
    """Padding, cropping, enlarging and a separable convolution, as torch writes them."""

    def __init__(self):
        super().__init__()
        self.depthwise = nn.Conv2d(3, 6, 3, stride=2, groups=3, bias=False)
        self.pointwise = nn.Conv2d(6, 8, 1)
        self.up = nn.Upsample(scale_factor=2)
        self.head = nn.Linear(8 * 64, 5)
        self.mean = torch.tensor(MEAN)[:, None, None]
        self.deviation = torch.tensor(VARIANCE)[:, None, None] ** 0.5

    def forward(self, x):
        x = (x - self.mean) / self.deviation
        x = F.pad(x * 0.5 - 1.0, (1, 2, 2, 1))
        x = F.hardswish(self.pointwise(self.depthwise(x)))
        return self.head(torch.flatten(self.up(x[:, :, 1:-1, :-2]), 1))


def mobile_net(*, crop=((1, 1), (0, 2)), interpolation="nearest"):
    """The same as a Keras model."""
    stack = [
        keras.Input((10, 10, 3)),
        layers.Normalization(mean=MEAN, variance=VARIANCE),
        layers.Rescaling(0.5, offset=-1.0),
        layers.ZeroPadding2D(((2, 1), (1, 2))),
        layers.SeparableConv2D(
            8, 3, strides=2, depth_multiplier=2, activation="hard_silu", name="separable"
        ),
        layers.Cropping2D(crop, name="crop"),
        layers.UpSampling2D(2, interpolation=interpolation, name="up"),
        layers.Flatten(),
        layers.Dense(5),
    ]
    return keras.Sequential(stack)


def test_net_of_stock_layers_is_equivalent_to_one_that_writes_them_out():
    finding = parity.compare_models(Mobile().eval(), mobile_net(), IMAGES)

    assert finding.is_equivalent
    assert finding.structure == ()
    points = {(figure.reference, figure.candidate) for figure in finding.figures}
    assert {("depthwise", "separable/depthwise"), ("pointwise", "separable")} <= points


MISTAKES = {
    "crop": {"crop": ((0, 2), (0, 2))},
    "interpolation": {"interpolation": "bilinear"},
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_stock_layer_that_is_told_otherwise_diverges(mistake):
    net = mobile_net(**MISTAKES[mistake])

    finding = parity.compare_models(Mobile().eval(), net, IMAGES)

    assert (finding.verdict, finding.reference_layer) == ("diverges", "up")


class Clip(nn.Module):
    """The same over three axes, by the functions of tensors."""

    def forward(self, x):
        x = F.interpolate(F.pad(x, (1, 0, 0, 2, 1, 1)), scale_factor=2)
        return torch.amax(x[:, :, 1:, :-1, 2:-1], dim=(2, 3, 4))


def test_layers_over_three_axes_are_equivalent_to_functions():
    stack = [
        layers.ZeroPadding3D(((1, 1), (0, 2), (1, 0))),
        layers.UpSampling3D(2),
        layers.Cropping3D(((1, 0), (0, 1), (2, 1))),
        layers.GlobalMaxPooling3D(),
    ]
    net = keras.Sequential([keras.Input((4, 4, 4, 3)), *stack])

    assert parity.compare_models(Clip(), net, CLIPS).is_equivalent
