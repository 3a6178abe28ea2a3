"""Coupled penalties as a term of the loss. Mirrors `models_torch.optimizers.penalty`."""

from collections.abc import Callable, Sequence

import keras
from keras import ops

from models_keras.optimizers.names import Tensor, trained_parameters
from parity.spec.optimizers import Update

Penalty = Callable[[Sequence[Tensor]], Tensor]


def build_penalty(update: Update, *, model: keras.Model) -> Penalty | None:
    """Return `penalty(parameters)`, or None where no penalty is in the loss.

    It takes the trained parameters in the model's order and returns `sum of l2 / 2 sum(p^2)`.
    """
    factors = []
    for name, variable in trained_parameters(model):
        rule = update.assign(name, len(variable.shape)).rule
        factors.append(rule.l2 / 2.0 if rule.l2_in_loss else 0.0)
    if not any(factors):
        return None

    def penalty(parameters: Sequence[Tensor]) -> Tensor:
        arrays = [ops.convert_to_tensor(parameter) for parameter in parameters]
        terms = zip(factors, arrays, strict=True)
        return sum(ops.sum(array * array) * factor for factor, array in terms if factor)

    return penalty
