"""A net of one convolution in either framework, for what needs no more: it compiles in seconds."""

from collections import OrderedDict

import numpy as np
import pytest

from parity import runtime
from parity.frameworks.net import Batch
from parity.rng import stream
from parity.spec.losses import CrossEntropy, build_targets
from parity.spec.optimizers import Update
from parity.testing import specs

LOSS = CrossEntropy(label_smoothing=0.1, reduction="mean")
UPDATE = Update(rule=specs.SGD)
SIDE, CHANNELS, CLASSES = 6, 16, 4


def torch_net(**settings):
    runtime.require_framework("torch", extra="torch")
    from torch import nn

    import models_torch
    from parity.frameworks.torch_net import TorchNet

    module = nn.Sequential(
        OrderedDict(
            conv=nn.Conv2d(3, CHANNELS, 3, padding=1, bias=False),
            bn=nn.BatchNorm2d(CHANNELS),
            relu=nn.ReLU(),
            pool=nn.AdaptiveAvgPool2d(1),
            flatten=nn.Flatten(),
            head=nn.Linear(CHANNELS, CLASSES),
        )
    )
    return TorchNet(
        module,
        loss=models_torch.build_loss(LOSS),
        optimizer=lambda model: models_torch.build_optimizer(UPDATE, model=model),
        set_rates=models_torch.set_rates,
        slots=UPDATE.initial_slots,
        **settings,
    )


def keras_net(**settings):
    runtime.select_keras_backend(None)
    import keras

    import models_keras
    from parity.frameworks.keras_net import KerasNet

    def model():
        inputs = keras.Input((SIDE, SIDE, 3))
        x = keras.layers.Conv2D(CHANNELS, 3, padding="same", use_bias=False, name="conv")(inputs)
        x = keras.layers.BatchNormalization(epsilon=1e-5, name="bn")(x)
        x = keras.layers.GlobalAveragePooling2D(name="pool")(keras.layers.ReLU(name="relu")(x))
        return keras.Model(inputs, keras.layers.Dense(CLASSES, name="head")(x))

    return KerasNet(
        model,
        loss=lambda: models_keras.build_loss(LOSS),
        optimizer=lambda model: models_keras.build_optimizer(UPDATE, model=model),
        set_rates=models_keras.set_rates,
        **settings,
    )


@pytest.fixture
def small_net():
    """Build the net of a framework, with the same weights in either and under any settings."""

    def build(framework, **settings):
        net = {"torch": torch_net, "keras": keras_net}[framework](**settings)
        generator = stream(0, "small net")
        # Every value is positive, as variances must be.
        state = {
            name: generator.uniform(0.1, 1.0, array.shape)
            for name, array in sorted(net.state().items())
        }
        net.load_state(state)
        return net

    return build


@pytest.fixture
def small_batch():
    """Draw a batch of any size for the net."""

    def draw(size=8):
        generator = stream(0, "small batch")
        labels = generator.integers(0, CLASSES, size)
        images = generator.standard_normal((size, SIDE, SIDE, 3)).astype(np.float32)
        targets = build_targets(LOSS, labels, classes=CLASSES)
        return Batch(images=images, labels=labels, targets=targets)

    return draw
