"""One small network three times: in PyTorch, rightly ported to Keras, and wrongly."""

import keras
import torch
from keras import layers
from torch import nn


class TorchNet(nn.Module):
    """A residual network of one block."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, stride=2, padding=1, bias=False)
        self.stem_norm = nn.BatchNorm2d(16)
        self.conv1 = nn.Conv2d(16, 16, 3, padding=1)
        self.conv2 = nn.Conv2d(16, 16, 3, padding=1)
        self.head = nn.Linear(16 * 8 * 8, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits `(n, 10)` of images `(n, 3, 32, 32)`."""
        x = torch.relu(self.stem_norm(self.stem(x)))
        x = x + self.conv2(torch.relu(self.conv1(x)))
        return self.head(torch.flatten(nn.functional.max_pool2d(x, 2), 1))


def torch_net() -> nn.Module:
    """Return the network in PyTorch."""
    torch.manual_seed(0)
    return TorchNet()


def keras_net() -> keras.Model:
    """Return the network in Keras: padded as PyTorch pads, and with its epsilon."""
    return _keras_net(epsilon=1e-5, pads_first=True)


def wrong_net() -> keras.Model:
    """Return what a hasty port gives: a strided convolution with `padding="same"`."""
    return _keras_net(epsilon=1e-5, pads_first=False)


def _keras_net(*, epsilon: float, pads_first: bool) -> keras.Model:
    images = keras.Input((32, 32, 3))
    x = layers.ZeroPadding2D(1)(images) if pads_first else images
    x = layers.Conv2D(
        16, 3, strides=2, padding="valid" if pads_first else "same", use_bias=False, name="stem"
    )(x)
    x = layers.ReLU()(layers.BatchNormalization(epsilon=epsilon)(x))
    y = layers.Conv2D(16, 3, padding="same", activation="relu")(x)
    x = layers.Add()([x, layers.Conv2D(16, 3, padding="same")(y)])
    x = layers.Flatten()(layers.MaxPooling2D(2)(x))
    return keras.Model(images, layers.Dense(10, name="head")(x))
