"""Adam, AdaBound and LAMB on one variable, as `parity.reference.optimizers.moments` states them.

Mirrors `models_torch.optimizers.moments`.
"""

from keras import ops

from models_keras.optimizers.names import Tensor
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
        moments["max_exp_avg_sq"] = ops.maximum(slots["max_exp_avg_sq"], square)
    return moments


def _power(base: float, exponent: Tensor) -> Tensor:
    return ops.power(ops.convert_to_tensor(base, dtype=exponent.dtype), exponent)


def adam_step(
    spec: Adam,
    parameter: Tensor,
    gradient: Tensor,
    slots: dict[str, Tensor],
    *,
    rate: Tensor,
    count: Tensor,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return parameter and slots after Adam's step."""
    moments = _moments(spec, gradient, slots, keeps_largest=spec.amsgrad)
    root = ops.sqrt(moments["max_exp_avg_sq" if spec.amsgrad else "exp_avg_sq"])
    root_correction = ops.sqrt(1.0 - _power(spec.beta2, count))
    rate_corrected = rate / (1.0 - _power(spec.beta1, count))
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
    rate: Tensor,
    count: Tensor,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return parameter and slots after AdaBound's step."""
    moments = _moments(spec, gradient, slots, keeps_largest=spec.amsbound)
    root = ops.sqrt(moments["max_exp_avg_sq" if spec.amsbound else "exp_avg_sq"])
    corrected = rate * ops.sqrt(1.0 - _power(spec.beta2, count)) / (1.0 - _power(spec.beta1, count))
    final = rate * spec.final_rate / spec.lr
    least = final * (1.0 - 1.0 / (count * spec.gamma + 1.0))
    greatest = final * (1.0 + 1.0 / (count * spec.gamma))
    rates = ops.minimum(ops.maximum(corrected / (root + spec.epsilon), least), greatest)
    return parameter - rates * moments["exp_avg"], moments


def lamb_step(
    spec: Lamb,
    parameter: Tensor,
    gradient: Tensor,
    slots: dict[str, Tensor],
    *,
    rate: Tensor,
    count: Tensor,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return parameter and slots after LAMB's step."""
    moments = _moments(spec, gradient, slots)
    root = ops.sqrt(moments["exp_avg_sq"]) / ops.sqrt(1.0 - _power(spec.beta2, count))
    update = moments["exp_avg"] / (1.0 - _power(spec.beta1, count)) / (root + spec.epsilon)
    if spec.decay_in_ratio:
        update = update + parameter * spec.decoupled_decay
    step = rate * update
    if spec.decoupled_decay or spec.adapts_undecayed:
        step = step * _trust_ratio(spec, parameter, update)
    return parameter - step, moments


def _trust_ratio(spec: Lamb, parameter: Tensor, update: Tensor) -> Tensor:
    size, length = (ops.sqrt(ops.sum(array * array)) for array in (parameter, update))
    one = ops.ones_like(size)
    is_plain = (size == 0.0) | (length == 0.0)
    ratio = ops.where(is_plain, one, size / ops.where(is_plain, one, length))
    return ops.minimum(ratio, ops.convert_to_tensor(spec.greatest_ratio, dtype=ratio.dtype))
