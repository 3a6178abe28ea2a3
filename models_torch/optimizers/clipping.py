"""Gradient clipping. Mirrors `models_keras.optimizers.clipping`."""

from collections.abc import Sequence

import torch
from torch import Tensor

from parity.spec.optimizers import ClippingSpec, NormClipping, ValueClipping


def clip_gradients(spec: ClippingSpec, gradients: Sequence[Tensor]) -> list[Tensor]:
    """Return clipped gradients, as `parity.spec.optimizers.clipping` states."""
    match spec:
        case ValueClipping(limit=limit):
            return [gradient.clamp(-limit, limit) for gradient in gradients]
        case NormClipping(kind="global_norm"):
            factor = _factor(spec, gradients)
            return [gradient * factor for gradient in gradients]
        case NormClipping():
            return [gradient * _factor(spec, [gradient]) for gradient in gradients]
    return list(gradients)


def _factor(spec: NormClipping, gradients: Sequence[Tensor]) -> Tensor:
    norm = torch.stack([(gradient * gradient).sum() for gradient in gradients]).sum().sqrt()
    # Gradients that are all zero stay so: the factor is capped before it is used.
    return (spec.limit / (norm + spec.epsilon)).clamp(max=1.0)
