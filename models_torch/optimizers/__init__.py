"""Optimizers in any form of the spec, a file a family. Mirrors `models_keras.optimizers`."""

from models_torch.optimizers.averaging import Average
from models_torch.optimizers.penalty import build_penalty
from models_torch.optimizers.update import build_optimizer, set_rates

__all__ = ["Average", "build_optimizer", "build_penalty", "set_rates"]
