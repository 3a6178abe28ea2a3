"""Losses on logits and targets. Mirrors `models_keras.losses`."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from parity.spec.losses import BinaryCrossEntropy, CrossEntropy, LossSpec

_REDUCTIONS = {"mean": torch.mean, "sum": torch.sum}


class TwoViewCrossEntropyLoss(nn.Module):
    """`parity.spec.losses.TwoViewCrossEntropy`: views in the two halves of the batch."""

    def __init__(self, *, weight: float, reduction: str) -> None:
        super().__init__()
        self.weight = weight
        self.reduction = reduction

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of logits and targets, both `(2 n, classes)`."""
        first, second = logits.unflatten(0, (2, -1))
        gaps = (first - second).square().mean(dim=1)
        rows = functional.cross_entropy(logits, targets, reduction="none")
        return _REDUCTIONS[self.reduction](rows + self.weight * torch.cat([gaps, gaps]))


def build_loss(spec: LossSpec) -> Callable[[Tensor, Tensor], Tensor]:
    """Return `loss(logits, targets)`, both `(n, classes)`.

    Targets already hold the spec's smoothing (`parity.spec.losses.build_targets`).
    """
    if isinstance(spec, CrossEntropy):
        return nn.CrossEntropyLoss(reduction=spec.reduction)
    if isinstance(spec, BinaryCrossEntropy):
        return nn.BCEWithLogitsLoss(reduction=spec.reduction)
    return TwoViewCrossEntropyLoss(weight=spec.consistency_weight, reduction=spec.reduction)
