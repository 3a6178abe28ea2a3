"""Losses on logits and targets. Mirrors `models_torch.losses`."""

from typing import Any

import keras

from parity.spec.losses import BinaryCrossEntropy, CrossEntropy, LossSpec

_REDUCTIONS = {"mean": "sum_over_batch_size", "sum": "sum"}


class TwoViewCrossEntropyLoss(keras.losses.Loss):
    """`parity.spec.losses.TwoViewCrossEntropy`: views in the two halves of the batch."""

    def __init__(self, *, weight: float, reduction: str) -> None:
        super().__init__(reduction=_REDUCTIONS[reduction])
        self.weight = weight
        self._config = {"weight": weight, "reduction": reduction}

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that build this loss again."""
        return dict(self._config)

    def call(self, y_true: Any, y_pred: Any) -> Any:  # noqa: ANN401  # tensors of any backend
        """Return the loss of each row; targets and logits are `(2 n, classes)`."""
        first, second = keras.ops.split(y_pred, 2)
        gaps = keras.ops.mean(keras.ops.square(first - second), axis=-1)
        rows = keras.losses.categorical_crossentropy(y_true, y_pred, from_logits=True)
        return rows + self.weight * keras.ops.concatenate([gaps, gaps])


class _SummedBinaryCrossentropy(keras.losses.Loss):
    """Sum over images and classes: the stock loss averages over classes whatever the reduction."""

    def __init__(self) -> None:
        # Named here: tensorflow's graphs refuse the name that Keras makes of a private class.
        super().__init__(name="summed_binary_crossentropy", reduction="sum")

    def call(self, y_true: Any, y_pred: Any) -> Any:  # noqa: ANN401  # tensors of any backend
        return keras.ops.binary_crossentropy(y_true, y_pred, from_logits=True)


def build_loss(spec: LossSpec) -> keras.losses.Loss:
    """Return `loss(targets, logits)`, both `(n, classes)`: Keras takes the target first.

    Targets already hold the spec's smoothing (`parity.spec.losses.build_targets`).
    """
    if isinstance(spec, CrossEntropy):
        return keras.losses.CategoricalCrossentropy(
            from_logits=True, reduction=_REDUCTIONS[spec.reduction]
        )
    if isinstance(spec, BinaryCrossEntropy):
        if spec.reduction == "sum":
            return _SummedBinaryCrossentropy()
        return keras.losses.BinaryCrossentropy(from_logits=True)
    return TwoViewCrossEntropyLoss(weight=spec.consistency_weight, reduction=spec.reduction)
