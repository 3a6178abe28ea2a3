"""Small specs to start from: a test states with `dataclasses.replace` only what it is about.

Imports `parity.spec` only.
"""

from parity.spec.conventions import TORCH
from parity.spec.models import ResNetSpec
from parity.spec.optimizers import Adam, Sgd

# As `torch.optim.SGD` and `torch.optim.Adam` compute, without any decay.
SGD = Sgd(
    lr=0.1,
    momentum=0.9,
    dampening=0.0,
    nesterov=False,
    l2=0.0,
    l2_in_loss=False,
    decoupled_decay=0.0,
    decay_scaled_by_lr=True,
    velocity_holds_lr=False,
)
ADAM = Adam(
    lr=0.01,
    beta1=0.9,
    beta2=0.999,
    epsilon=1e-8,
    epsilon_placement="corrected",
    amsgrad=False,
    l2=0.0,
    l2_in_loss=False,
    decoupled_decay=0.0,
    decay_scaled_by_lr=True,
)

# Three blocks, the second stage strided, with channel counts that tell axes apart.
RESNET = ResNetSpec(
    conventions=TORCH.conventions,
    block="basic",
    blocks=(1, 2),
    stem="cifar",
    width=3,
    in_channels=2,
    input_size=(9, 6),
    classes=4,
)
