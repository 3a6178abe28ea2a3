"""Gradient clipping in float64."""

from collections.abc import Iterable

import numpy as np

from parity.reference.optimizers.types import Array, Arrays
from parity.spec.optimizers import ClippingSpec, NormClipping, ValueClipping


def clip_gradients(spec: ClippingSpec, gradients: Arrays) -> Arrays:
    """Return clipped gradients, as `parity.spec.optimizers.clipping` states.

    Source: torch 2.13.0 nn/utils/clip_grad.py `clip_grad_norm_`, `clip_grad_value_`; keras 3.15.1
        optimizers/base_optimizer.py `_clip_gradients`.
    """
    match spec:
        case ValueClipping(limit=limit):
            return {name: np.clip(array, -limit, limit) for name, array in gradients.items()}
        case NormClipping(kind="global_norm"):
            factor = _factor(spec, gradients.values())
            return {name: array * factor for name, array in gradients.items()}
        case NormClipping():
            return {name: array * _factor(spec, [array]) for name, array in gradients.items()}
    return dict(gradients)


def _factor(spec: NormClipping, arrays: Iterable[Array]) -> float:
    norm = float(np.sqrt(sum(float(np.sum(array**2)) for array in arrays)))
    return min(1.0, spec.limit / (norm + spec.epsilon)) if norm > 0.0 else 1.0
