"""Losses on logits and target distributions. Mirrors `models_torch.losses`."""

import keras

from parity.spec.losses import LossSpec

_REDUCTIONS = {"mean": "sum_over_batch_size", "sum": "sum"}


def build_loss(spec: LossSpec) -> keras.losses.Loss:
    """Return `loss(targets, logits)`, both `(n, classes)`: Keras takes the target first.

    Targets are distributions that already hold the spec's smoothing
    (`parity.spec.losses.build_targets`).
    """
    return keras.losses.CategoricalCrossentropy(
        from_logits=True, reduction=_REDUCTIONS[spec.reduction]
    )
