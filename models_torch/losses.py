"""Losses on logits and target distributions. Mirrors `models_keras.losses`."""

from collections.abc import Callable

from torch import Tensor, nn

from parity.spec.losses import LossSpec


def build_loss(spec: LossSpec) -> Callable[[Tensor, Tensor], Tensor]:
    """Return `loss(logits, targets)`, both `(n, classes)`.

    Targets are distributions that already hold the spec's smoothing
    (`parity.spec.losses.build_targets`).
    """
    return nn.CrossEntropyLoss(reduction=spec.reduction)
