"""Update rules in float64 NumPy: one file a family, and `update_parameters` over them.

Imports numpy, `parity.errors` and `parity.spec` only.
"""

from parity.reference.optimizers.averaging import update_average
from parity.reference.optimizers.clipping import clip_gradients
from parity.reference.optimizers.momentum import orthogonalize
from parity.reference.optimizers.update import STEPS, initial_slots, penalty, update_parameters

__all__ = [
    "STEPS",
    "clip_gradients",
    "initial_slots",
    "orthogonalize",
    "penalty",
    "update_average",
    "update_parameters",
]
