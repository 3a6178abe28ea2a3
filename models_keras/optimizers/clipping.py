"""Gradient clipping. Mirrors `models_torch.optimizers.clipping`."""

from collections.abc import Sequence

from keras import ops

from models_keras.optimizers.names import Tensor
from parity.spec.optimizers import ClippingSpec, NormClipping, ValueClipping


def clip_gradients(spec: ClippingSpec, gradients: Sequence[Tensor]) -> list[Tensor]:
    """Return clipped gradients, as `parity.spec.optimizers.clipping` states."""
    match spec:
        case ValueClipping(limit=limit):
            return [_clip(gradient, limit) for gradient in gradients]
        case NormClipping(kind="global_norm"):
            factor = _factor(spec, gradients)
            return [gradient * factor for gradient in gradients]
        case NormClipping():
            return [gradient * _factor(spec, [gradient]) for gradient in gradients]
    return list(gradients)


def _clip(gradient: Tensor, limit: float) -> Tensor:
    bound = ops.convert_to_tensor(limit, dtype=gradient.dtype)
    return ops.minimum(ops.maximum(gradient, -bound), bound)


def _factor(spec: NormClipping, gradients: Sequence[Tensor]) -> Tensor:
    squares = ops.stack([ops.sum(gradient * gradient) for gradient in gradients])
    norm = ops.sqrt(ops.sum(squares))
    # Gradients that are all zero stay so: the factor is capped before it is used.
    return ops.minimum(
        ops.convert_to_tensor(spec.limit, dtype=norm.dtype) / (norm + spec.epsilon),
        ops.ones_like(norm),
    )
