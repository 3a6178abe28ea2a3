"""The Keras twins: ordinary functional models built from a spec.

Imports keras, `parity.spec` and `parity.errors`.
"""

from models_keras.airbench import airbench
from models_keras.losses import build_loss
from models_keras.models import build_model, inference_model
from models_keras.optimizers import Average, build_optimizer, build_penalty, set_rates
from models_keras.resnet import resnet

__all__ = [
    "Average",
    "airbench",
    "build_loss",
    "build_model",
    "build_optimizer",
    "build_penalty",
    "inference_model",
    "resnet",
    "set_rates",
]
