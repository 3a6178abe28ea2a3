"""Small specs to start from: a test states with `dataclasses.replace` only what it is about.

Imports `parity.spec` only.
"""

from parity.spec.airbench import AirbenchSpec, airbench_conventions
from parity.spec.conventions import TORCH
from parity.spec.optimizers import Adam, Sgd
from parity.spec.resnet import ResNetSpec

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

# Every block halves the map; one pixel is left of 9.
AIRBENCH = AirbenchSpec(
    conventions=airbench_conventions("airbench94"),
    widths=(3, 4, 5),
    depth=2,
    residual="none",
    logit_scale=1.0 / 9.0,
    in_channels=2,
    input_size=(18, 17),
    classes=4,
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
