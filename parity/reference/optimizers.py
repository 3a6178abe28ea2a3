"""Update rules in float64 NumPy, as pure functions on dicts of arrays by parameter name.

Both twins follow these equations. Imports numpy, `parity.errors` and `parity.spec` only.
"""

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray

from parity.errors import SpecError, describe_list
from parity.spec.optimizers import Adam, OptimizerSpec, Sgd, decay_rate

Array = NDArray[np.float64]
Arrays = dict[str, Array]
Slots = dict[str, Arrays]


def initial_slots(spec: OptimizerSpec, parameters: Mapping[str, ArrayLike]) -> Slots:
    """Return zeros by slot name, then parameter name: the arrays before the first update."""
    return {
        slot: {name: np.zeros(np.shape(value)) for name, value in parameters.items()}
        for slot in spec.slot_names()
    }


def update_parameters(
    spec: OptimizerSpec,
    parameters: Mapping[str, ArrayLike],
    gradients: Mapping[str, ArrayLike],
    slots: Mapping[str, Mapping[str, ArrayLike]],
    *,
    rate: float,
    step: int,
) -> tuple[Arrays, Slots]:
    """Return `(parameters, slots)` after one update; nothing given is changed.

    Every rule first takes decoupled decay off the parameter, `p <- p - d p` with `d` from
    `parity.spec.optimizers.decay_rate`, and works with `g' = g + l2 * p`, where that `p` is the
    parameter before the decay. Then `p <- p - step`, the step as `_sgd_step` and `_adam_step` say.

    Args:
        spec: The rule and its hyper-parameters.
        parameters: Name -> array.
        gradients: Of the loss, of the same names and shapes.
        slots: Slot name -> parameter name -> array, such as `initial_slots` returns.
        rate: Learning rate of this step; `spec.lr` is read only by decay that the rate does not
            scale.
        step: Updates made before this one.

    Raises:
        SpecError: If names or shapes of gradients or slots do not match the parameters; all are
            listed.
    """
    old = _widened(parameters)
    grads, moments = _widened(gradients), {slot: _widened(slots[slot]) for slot in slots}
    _require_matching(spec, old, grads, moments)
    new: Arrays = {}
    new_slots: Slots = {slot: {} for slot in spec.slot_names()}
    for name, parameter in old.items():
        penalized = grads[name] + spec.l2 * parameter
        own = {slot: arrays[name] for slot, arrays in moments.items()}
        if isinstance(spec, Sgd):
            change, own = _sgd_step(spec, penalized, own, rate=rate)
        else:
            change, own = _adam_step(spec, penalized, own, rate=rate, count=step + 1)
        new[name] = parameter - decay_rate(spec, rate=rate) * parameter - change
        for slot, array in own.items():
            new_slots[slot][name] = array
    return new, new_slots


def _sgd_step(spec: Sgd, gradient: Array, slots: Arrays, *, rate: float) -> tuple[Array, Arrays]:
    """Return what SGD takes off the parameter, and the new velocity.

    Without momentum: `rate g`. With the gradient in the velocity: `v <- mu v + g`; step `rate v`,
    or with Nesterov `rate (g + mu v)`. With the rate in the velocity: `v <- mu v - rate g`; step
    `-v`, or `rate g - mu v`. The two forms agree (`v = -rate v'`) while the rate does not change.

    Source: torch 2.13.0 optim/sgd.py `_single_tensor_sgd`; keras 3.15.1 optimizers/sgd.py
        `update_step`.
    """
    mu = spec.momentum
    if not mu:
        return rate * gradient, {}
    velocity = slots["momentum_buffer"]
    if spec.velocity_holds_lr:
        velocity = mu * velocity - rate * gradient
        change = rate * gradient - mu * velocity if spec.nesterov else -velocity
    else:
        velocity = mu * velocity + gradient
        change = rate * (gradient + mu * velocity if spec.nesterov else velocity)
    return change, {"momentum_buffer": velocity}


def _adam_step(
    spec: Adam, gradient: Array, slots: Arrays, *, rate: float, count: int
) -> tuple[Array, Arrays]:
    """Return what Adam takes off the parameter, and its new moments.

    `m <- b1 m + (1 - b1) g`; `v <- b2 v + (1 - b2) g^2`; after `t` updates, this one included, the
    step is `rate / (1 - b1^t) m / (sqrt(v) / sqrt(1 - b2^t) + epsilon)` with epsilon beside the
    corrected root, and `rate sqrt(1 - b2^t) / (1 - b1^t) m / (sqrt(v) + epsilon)` beside the
    uncorrected one.

    Source: Kingma & Ba 2015, algorithm 1 (corrected) and section 2 (uncorrected); torch 2.13.0
        optim/adam.py `_single_tensor_adam`; keras 3.15.1 optimizers/adam.py `update_step`.
    """
    mean = spec.beta1 * slots["exp_avg"] + (1.0 - spec.beta1) * gradient
    square = spec.beta2 * slots["exp_avg_sq"] + (1.0 - spec.beta2) * gradient**2
    mean_correction = 1.0 - spec.beta1**count
    root_correction = math.sqrt(1.0 - spec.beta2**count)
    if spec.epsilon_placement == "corrected":
        denominator = np.sqrt(square) / root_correction + spec.epsilon
        change = rate / mean_correction * mean / denominator
    else:
        change = rate * root_correction / mean_correction * mean / (np.sqrt(square) + spec.epsilon)
    return change, {"exp_avg": mean, "exp_avg_sq": square}


def _widened(arrays: Mapping[str, ArrayLike]) -> Arrays:
    return {name: np.asarray(array, dtype=np.float64) for name, array in arrays.items()}


def _require_matching(
    spec: OptimizerSpec, parameters: Arrays, gradients: Arrays, slots: Slots
) -> None:
    problems = _describe_mismatch("gradients", parameters, gradients)
    if set(slots) != set(spec.slot_names()):
        expected = describe_list(spec.slot_names()) or "none"
        problems.append(f"slots must be {expected}; got {describe_list(sorted(slots)) or 'none'}.")
    for slot, arrays in slots.items():
        problems += _describe_mismatch(slot, parameters, arrays)
    if problems:
        message = "update_parameters: " + " ".join(problems)
        raise SpecError(message)


def _describe_mismatch(owner: str, parameters: Arrays, arrays: Arrays) -> list[str]:
    problems = []
    if missing := [name for name in parameters if name not in arrays]:
        problems.append(f"{owner}: {len(missing)} missing ({describe_list(missing)}).")
    if unexpected := [name for name in arrays if name not in parameters]:
        problems.append(f"{owner}: {len(unexpected)} unexpected ({describe_list(unexpected)}).")
    problems += [
        f"{owner}: {name} must have shape {parameter.shape}; got {arrays[name].shape}."
        for name, parameter in parameters.items()
        if name in arrays and arrays[name].shape != parameter.shape
    ]
    return problems
