"""The PyTorch twins: ordinary modules built from a spec.

Imports torch, `parity.spec` and `parity.errors`.
"""

from models_torch.airbench import airbench
from models_torch.losses import build_loss
from models_torch.models import build_model
from models_torch.optimizers import Average, build_optimizer, build_penalty, set_rates
from models_torch.resnet import resnet

__all__ = [
    "Average",
    "airbench",
    "build_loss",
    "build_model",
    "build_optimizer",
    "build_penalty",
    "resnet",
    "set_rates",
]
