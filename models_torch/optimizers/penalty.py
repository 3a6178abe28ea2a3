"""Coupled penalties as a term of the loss. Mirrors `models_keras.optimizers.penalty`."""

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from models_torch.optimizers.names import trained_parameters
from parity.spec.optimizers import Update

Penalty = Callable[[Sequence[Tensor]], Tensor]


def build_penalty(update: Update, *, model: nn.Module) -> Penalty | None:
    """Return `penalty(parameters)`, or None where no penalty is in the loss.

    It takes the trained parameters in the model's order and returns `sum of l2 / 2 sum(p^2)`.
    """
    factors = []
    for name, parameter in trained_parameters(model):
        rule = update.assign(name, parameter.ndim).rule
        factors.append(rule.l2 / 2.0 if rule.l2_in_loss else 0.0)
    if not any(factors):
        return None

    def penalty(parameters: Sequence[Tensor]) -> Tensor:
        terms = zip(factors, parameters, strict=True)
        total: Tensor = sum(factor * (array * array).sum() for factor, array in terms if factor)
        return total

    return penalty
