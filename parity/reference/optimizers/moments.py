"""Adam, AdaBound and LAMB on one array. See `parity.reference.optimizers.update`."""

import math

import numpy as np

from parity.reference.optimizers.types import Array, Arrays
from parity.spec.optimizers import AdaBound, Adam, Lamb


def _moments(
    spec: Adam | AdaBound | Lamb, gradient: Array, slots: Arrays, *, keeps_largest: bool = False
) -> Arrays:
    """Return `m <- b1 m + (1 - b1) g`, `v <- b2 v + (1 - b2) g^2`, and the largest `v` so far."""
    square = spec.beta2 * slots["exp_avg_sq"] + (1.0 - spec.beta2) * gradient**2
    moments = {
        "exp_avg": spec.beta1 * slots["exp_avg"] + (1.0 - spec.beta1) * gradient,
        "exp_avg_sq": square,
    }
    if keeps_largest:
        moments["max_exp_avg_sq"] = np.maximum(slots["max_exp_avg_sq"], square)
    return moments


def adam_step(
    spec: Adam, parameter: Array, gradient: Array, slots: Arrays, *, rate: float, count: int
) -> tuple[Array, Arrays]:
    """Return parameter and slots after Adam's step.

    After `t` updates, this one included, the step is `rate / (1 - b1^t) m / (sqrt(v) /
    sqrt(1 - b2^t) + epsilon)` with epsilon beside the corrected root, and `rate sqrt(1 - b2^t) /
    (1 - b1^t) m / (sqrt(v) + epsilon)` beside the uncorrected one; AMSGrad takes the largest `v`.

    Source: Kingma & Ba 2015, algorithm 1 (corrected) and section 2 (uncorrected); torch 2.13.0
        optim/adam.py `_single_tensor_adam`; keras 3.15.1 optimizers/adam.py `update_step`.
    """
    moments = _moments(spec, gradient, slots, keeps_largest=spec.amsgrad)
    mean = moments["exp_avg"]
    root = np.sqrt(moments["max_exp_avg_sq" if spec.amsgrad else "exp_avg_sq"])
    mean_correction = 1.0 - spec.beta1**count
    root_correction = math.sqrt(1.0 - spec.beta2**count)
    if spec.epsilon_placement == "corrected":
        step = rate / mean_correction * mean / (root / root_correction + spec.epsilon)
    else:
        step = rate * root_correction / mean_correction * mean / (root + spec.epsilon)
    return parameter - step, moments


def adabound_step(
    spec: AdaBound, parameter: Array, gradient: Array, slots: Arrays, *, rate: float, count: int
) -> tuple[Array, Arrays]:
    """Return parameter and slots after AdaBound's step.

    Each element's rate is `rate sqrt(1 - b2^t) / (1 - b1^t) / (sqrt(v) + epsilon)`, held between
    `f (1 - 1 / (gamma t + 1))` and `f (1 + 1 / (gamma t))` with `f = final_rate rate / lr`; it
    multiplies `m`.

    Source: Luo et al. 2019, algorithm 2, as the authors' package adabound 0.0.5 computes it.
    """
    moments = _moments(spec, gradient, slots, keeps_largest=spec.amsbound)
    root = np.sqrt(moments["max_exp_avg_sq" if spec.amsbound else "exp_avg_sq"])
    corrected = rate * math.sqrt(1.0 - spec.beta2**count) / (1.0 - spec.beta1**count)
    final = spec.final_rate * rate / spec.lr
    rates = np.clip(
        corrected / (root + spec.epsilon),
        final * (1.0 - 1.0 / (spec.gamma * count + 1.0)),
        final * (1.0 + 1.0 / (spec.gamma * count)),
    )
    return parameter - rates * moments["exp_avg"], moments


def lamb_step(
    spec: Lamb, parameter: Array, gradient: Array, slots: Arrays, *, rate: float, count: int
) -> tuple[Array, Arrays]:
    """Return parameter and slots after LAMB's step.

    Adam's direction `r`, epsilon beside the corrected root; `u = r`, or `r + decoupled_decay p`
    where the decay is in the ratio; the step is `rate min(|p| / |u|, greatest_ratio) u`. The ratio
    is 1 where either norm is 0, or where the array is undecayed and `adapts_undecayed` is false.

    Source: You et al. 2020, algorithm 2; timm 1.0.31 optim/lamb.py `step`; keras 3.15.1
        optimizers/lamb.py `update_step`.
    """
    moments = _moments(spec, gradient, slots)
    root = np.sqrt(moments["exp_avg_sq"]) / math.sqrt(1.0 - spec.beta2**count)
    update = moments["exp_avg"] / (1.0 - spec.beta1**count) / (root + spec.epsilon)
    if spec.decay_in_ratio:
        update = update + spec.decoupled_decay * parameter
    return parameter - rate * _trust_ratio(spec, parameter, update) * update, moments


def _trust_ratio(spec: Lamb, parameter: Array, update: Array) -> float:
    if not (spec.decoupled_decay or spec.adapts_undecayed):
        return 1.0
    size, length = float(np.linalg.norm(parameter)), float(np.linalg.norm(update))
    return min(size / length if size > 0.0 and length > 0.0 else 1.0, spec.greatest_ratio)
