"""A comparison that could have seen nothing says so, and becomes one that can."""

import numpy as np
import pytest

import parity
from parity import runtime

torch = pytest.importorskip("torch")
runtime.select_keras_backend(None)
keras = pytest.importorskip("keras")
nn, layers = torch.nn, keras.layers

IMAGES = np.random.default_rng(0).standard_normal((4, 3, 32, 32)).astype(np.float32)
# Expansion, channels, repeats, stride.
STAGES = ((1, 8, 1, 1), (6, 12, 2, 2), (6, 16, 3, 2), (6, 24, 4, 2), (6, 32, 3, 2), (6, 40, 2, 1))


class InvertedResidual(nn.Module):
    def __init__(self, before, channels, stride, expansion):
        super().__init__()
        wide = before * expansion
        self.has_shortcut = stride == 1 and before == channels
        self.body = nn.Sequential(
            nn.Conv2d(before, wide, 1, bias=False), nn.BatchNorm2d(wide), nn.ReLU6(),
            nn.Conv2d(wide, wide, 3, stride, 1, groups=wide, bias=False), nn.BatchNorm2d(wide),
            nn.ReLU6(), nn.Conv2d(wide, channels, 1, bias=False), nn.BatchNorm2d(channels),
        )  # fmt: skip

    def forward(self, x):
        return x + self.body(x) if self.has_shortcut else self.body(x)


def torch_net():
    """A narrow MobileNetV2 with batch-norm statistics that no data had."""
    torch.manual_seed(0)
    before, blocks = 8, [nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU6()]
    for expansion, channels, repeats, stride in STAGES:
        for repeat in range(repeats):
            blocks.append(InvertedResidual(before, channels, 1 if repeat else stride, expansion))
            before = channels
    net = nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, 5))
    for norm in net.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.normal_(norm.running_mean)
            nn.init.uniform_(norm.running_var, 0.5, 1.5)
    return net.eval()


def keras_net(*, pad):
    """The same in Keras; `pad` goes before strided depthwise convolutions."""

    def norm(x):
        return layers.BatchNormalization(epsilon=1e-5)(x)

    inputs = keras.Input((32, 32, 3))
    x = layers.ZeroPadding2D(1)(inputs)
    x = layers.ReLU(6)(norm(layers.Conv2D(8, 3, strides=2, use_bias=False)(x)))
    before = 8
    for expansion, channels, repeats, first in STAGES:
        for repeat in range(repeats):
            stride, skip = (1 if repeat else first), x
            x = layers.Conv2D(before * expansion, 1, use_bias=False)(x)
            x = layers.ZeroPadding2D(1 if stride == 1 else pad)(layers.ReLU(6)(norm(x)))
            x = layers.DepthwiseConv2D(3, strides=stride, use_bias=False)(x)
            x = layers.Conv2D(channels, 1, use_bias=False)(layers.ReLU(6)(norm(x)))
            x = norm(x)
            if stride == 1 and before == channels:
                x = layers.Add()([skip, x])
            before = channels
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(5)(x))


RIGHT, WRONG = ((1, 1), (1, 1)), ((0, 2), (0, 2))


@pytest.mark.parametrize("pad", [RIGHT, WRONG], ids=["right", "wrong"])
def test_drawn_statistics_hide_a_wrong_padding_as_a_right_one(pad):
    finding = parity.compare_models(torch_net(), keras_net(pad=pad), IMAGES)

    assert finding.verdict == "vacuous"
    assert finding.sensitivity < 1e-5
    assert "measures_statistics=True" in finding.reason


def test_measured_statistics_tell_them_apart():
    reference = torch_net()

    right, wrong = (
        parity.compare_models(reference, keras_net(pad=pad), IMAGES, measures_statistics=True)
        for pad in (RIGHT, WRONG)
    )

    assert right.verdict == "numerically equivalent"
    assert right.sensitivity > 1e-2
    assert all(right.power.values())
    assert len(right.power) >= 10
    assert wrong.verdict == "diverges"
    # The first strided depthwise convolution: block 4 is the first of the second stage.
    assert wrong.reference_layer == "4.body.3"


def test_weights_that_nothing_shows_lower_the_power():
    def saturated():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(6, 4), nn.Sigmoid(), nn.Linear(4, 3), nn.Linear(3, 3))

    reference, candidate = saturated(), saturated()
    for model in (reference, candidate):
        with torch.no_grad():
            model[2].weight.mul_(1e-18)
            model[2].bias.fill_(1.0)
    inputs = np.random.default_rng(0).standard_normal((5, 6)).astype(np.float32)

    finding = parity.compare_models(reference, candidate, inputs)

    hidden = {name for name, caught in finding.power.items() if not caught}
    assert {name.split()[0] for name in hidden} == {"2.weight"}
    assert finding.verdict == "vacuous"


def test_power_can_be_left_out():
    net = nn.Sequential(nn.Linear(6, 4))
    inputs = np.random.default_rng(0).standard_normal((5, 6)).astype(np.float32)

    finding = parity.compare_models(net, net, inputs, measures_power=False)

    assert finding.is_equivalent
    assert finding.power == {}
