"""Optimizers in any form of the spec, a file a family. Mirrors `models_torch.optimizers`."""

from models_keras.optimizers.averaging import Average
from models_keras.optimizers.penalty import build_penalty
from models_keras.optimizers.update import build_optimizer, set_rates

__all__ = ["Average", "build_optimizer", "build_penalty", "set_rates"]
