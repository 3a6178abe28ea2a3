"""The Keras twins: ordinary functional models built from a spec.

Imports keras, `parity.spec` and `parity.errors`.
"""

from models_keras.losses import build_loss
from models_keras.optimizers import Average, build_optimizer, build_penalty, set_rates
from models_keras.resnet import inference_model, resnet

__all__ = [
    "Average",
    "build_loss",
    "build_optimizer",
    "build_penalty",
    "inference_model",
    "resnet",
    "set_rates",
]
