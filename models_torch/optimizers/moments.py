"""Adam, AdaBound and LAMB on one tensor, as `parity.reference.optimizers.moments` states them.

Mirrors `models_keras.optimizers.moments`.
"""

import torch
from torch import Tensor

from parity.spec.optimizers import AdaBound, Adam, Lamb


def _moments(
    spec: Adam | AdaBound | Lamb,
    gradient: Tensor,
    slots: dict[str, Tensor],
    *,
    keeps_largest: bool = False,
) -> dict[str, Tensor]:
    square = slots["exp_avg_sq"] * spec.beta2 + gradient * gradient * (1.0 - spec.beta2)
    moments = {
        "exp_avg": slots["exp_avg"] * spec.beta1 + gradient * (1.0 - spec.beta1),
        "exp_avg_sq": square,
    }
    if keeps_largest:
        moments["max_exp_avg_sq"] = torch.maximum(slots["max_exp_avg_sq"], square)
    return moments


def adam_step(
    spec: Adam,
    parameter: Tensor,
    gradient: Tensor,
    slots: dict[str, Tensor],
    *,
    rate: float,
    count: int,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return parameter and slots after Adam's step."""
    moments = _moments(spec, gradient, slots, keeps_largest=spec.amsgrad)
    root = moments["max_exp_avg_sq" if spec.amsgrad else "exp_avg_sq"].sqrt()
    root_correction = (1.0 - spec.beta2**count) ** 0.5
    rate_corrected = rate / (1.0 - spec.beta1**count)
    if spec.epsilon_placement == "corrected":
        denominator = root / root_correction + spec.epsilon
    else:
        denominator = (root + spec.epsilon) / root_correction
    return parameter - rate_corrected * moments["exp_avg"] / denominator, moments


def adabound_step(
    spec: AdaBound,
    parameter: Tensor,
    gradient: Tensor,
    slots: dict[str, Tensor],
    *,
    rate: float,
    count: int,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return parameter and slots after AdaBound's step."""
    moments = _moments(spec, gradient, slots, keeps_largest=spec.amsbound)
    root = moments["max_exp_avg_sq" if spec.amsbound else "exp_avg_sq"].sqrt()
    corrected = rate * (1.0 - spec.beta2**count) ** 0.5 / (1.0 - spec.beta1**count)
    final = spec.final_rate * rate / spec.lr
    least = final * (1.0 - 1.0 / (spec.gamma * count + 1.0))
    greatest = final * (1.0 + 1.0 / (spec.gamma * count))
    rates = (corrected / (root + spec.epsilon)).clamp(least, greatest)
    return parameter - rates * moments["exp_avg"], moments


def lamb_step(
    spec: Lamb,
    parameter: Tensor,
    gradient: Tensor,
    slots: dict[str, Tensor],
    *,
    rate: float,
    count: int,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return parameter and slots after LAMB's step."""
    moments = _moments(spec, gradient, slots)
    root = moments["exp_avg_sq"].sqrt() / (1.0 - spec.beta2**count) ** 0.5
    update = moments["exp_avg"] / (1.0 - spec.beta1**count) / (root + spec.epsilon)
    if spec.decay_in_ratio:
        update = update + spec.decoupled_decay * parameter
    step = rate * update
    if spec.decoupled_decay or spec.adapts_undecayed:
        step = step * _trust_ratio(spec, parameter, update)
    return parameter - step, moments


def _trust_ratio(spec: Lamb, parameter: Tensor, update: Tensor) -> Tensor:
    size, length = parameter.norm(), update.norm()
    ratio = torch.where((size > 0.0) & (length > 0.0), size / length, torch.ones_like(size))
    return ratio.clamp(max=spec.greatest_ratio)
