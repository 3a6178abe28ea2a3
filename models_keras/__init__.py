"""The Keras twins: ordinary functional models built from a spec.

Imports keras, `parity.spec` and `parity.errors`.
"""

from models_keras.losses import build_loss
from models_keras.optimizers import build_optimizer
from models_keras.resnet import inference_model, resnet

__all__ = ["build_loss", "build_optimizer", "inference_model", "resnet"]
