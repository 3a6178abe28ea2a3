"""One update of all parameters, as pure functions on dicts of arrays by parameter name.

Both twins follow these equations. Imports numpy, `parity.errors`, `parity.reference` and
`parity.spec` only.
"""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import ArrayLike

from parity.errors import SpecError, describe_list
from parity.reference.optimizers.accumulators import adadelta_step, adagrad_step, rmsprop_step
from parity.reference.optimizers.averaging import update_average
from parity.reference.optimizers.clipping import clip_gradients
from parity.reference.optimizers.moments import adabound_step, adam_step, lamb_step
from parity.reference.optimizers.momentum import lars_step, muon_step, sgd_step
from parity.reference.optimizers.types import Array, Arrays, Slots
from parity.spec.optimizers import AVERAGE, NoAveraging, OptimizerSpec, Update, decay_rate
from parity.spec.position import START, Position

# Rule's kind -> its step. Each takes the parameter after decoupled decay and the gradient with the
# coupled penalty, and returns the new parameter and slots:
# `step(spec, parameter, gradient, slots, *, rate, count)`, `count` from 1.
STEPS: dict[str, Callable[..., tuple[Array, Arrays]]] = {
    "sgd": sgd_step,
    "lars": lars_step,
    "muon": muon_step,
    "adam": adam_step,
    "adabound": adabound_step,
    "lamb": lamb_step,
    "rmsprop": rmsprop_step,
    "adagrad": adagrad_step,
    "adadelta": adadelta_step,
}


def initial_slots(update: Update, parameters: Mapping[str, ArrayLike]) -> Slots:
    """Return the arrays before the first update, by slot name, then parameter name."""
    slots: Slots = {}
    for name, value in parameters.items():
        for slot, start in update.initial_slots(name, np.ndim(value)).items():
            slots.setdefault(slot, {})[name] = np.full(np.shape(value), start)
    if not isinstance(update.averaging, NoAveraging):
        slots[AVERAGE] = {name: array.copy() for name, array in _widened(parameters).items()}
    return slots


def update_parameters(
    update: Update,
    parameters: Mapping[str, ArrayLike],
    gradients: Mapping[str, ArrayLike],
    slots: Mapping[str, Mapping[str, ArrayLike]],
    *,
    rate: float,
    step: int,
    position: Position = START,
) -> tuple[Arrays, Slots]:
    """Return `(parameters, slots)` after one update; nothing given is changed.

    Parameters and slots of a group whose epochs are over stay as they are. The other gradients are
    clipped; then each parameter by its group's rule: `g' = g + l2 p` (unless the penalty is in the
    loss, and so in `g`), decoupled decay `p <- p - d p` with `d` from `decay_rate` (where LAMB does
    not take it into its ratio), and the rule's step; then averages are moved.

    Args:
        update: Clipping, rule, groups and averaging.
        parameters: Name -> array.
        gradients: Of the loss, of the same names and shapes.
        slots: Slot name -> parameter name -> array, such as `initial_slots` returns.
        rate: Learning rate of this step; a rule's `lr` is read only by what the rate does not
            scale.
        step: Updates made before this one.
        position: Where in the training the step is: airbench's Lookahead and groups that end read
            it.

    Raises:
        SpecError: If names or shapes of gradients or slots do not match the parameters; all are
            listed.
    """
    old, grads = _widened(parameters), _widened(gradients)
    held = {slot: _widened(arrays) for slot, arrays in slots.items()}
    _require_matching(update, old, grads, held)
    assigned = {name: update.assign(name, array.ndim) for name, array in old.items()}
    live = {
        name: array for name, array in grads.items() if not assigned[name].is_over(position.epoch)
    }
    new = dict(old)
    new_slots: Slots = {slot: dict(arrays) for slot, arrays in held.items() if slot != AVERAGE}
    for name, gradient in clip_gradients(update.clipping, live).items():
        own = assigned[name]
        new[name], moved = _update_one(
            own.rule,
            old[name],
            gradient,
            {slot: arrays[name] for slot, arrays in held.items() if name in arrays},
            rate=own.rate(rate, epoch=position.epoch),
            count=step + 1,
        )
        for slot, array in moved.items():
            new_slots[slot][name] = array
    if AVERAGE not in held:
        return new, new_slots
    average, new = update_average(
        update.averaging, held[AVERAGE], new, count=step + 1, progress=position.progress
    )
    return new, new_slots | {AVERAGE: average}


def _update_one(
    rule: OptimizerSpec,
    parameter: Array,
    gradient: Array,
    slots: Arrays,
    *,
    rate: float,
    count: int,
) -> tuple[Array, Arrays]:
    penalized = gradient if rule.l2_in_loss else gradient + rule.l2 * parameter
    if not getattr(rule, "decay_in_ratio", False):
        parameter = parameter - decay_rate(rule, rate=rate) * parameter
    return STEPS[rule.kind](rule, parameter, penalized, slots, rate=rate, count=count)


def penalty(update: Update, parameters: Mapping[str, ArrayLike]) -> float:
    """Return what the coupled penalties add to the loss: `sum of l2 / 2 sum(p^2)`.

    Only rules whose penalty is in the loss contribute.
    """
    total = 0.0
    for name, array in _widened(parameters).items():
        rule = update.assign(name, array.ndim).rule
        if rule.l2_in_loss:
            total += rule.l2 / 2.0 * float(np.sum(array**2))
    return total


def _widened(arrays: Mapping[str, ArrayLike]) -> Arrays:
    return {name: np.asarray(array, dtype=np.float64) for name, array in arrays.items()}


def _require_matching(update: Update, parameters: Arrays, gradients: Arrays, slots: Slots) -> None:
    problems = _describe_mismatch("gradients", parameters, gradients)
    expected = _arrays_of_slots(update, parameters)
    if set(slots) != set(expected):
        names = ", ".join(expected) or "none"
        problems.append(f"slots must be {names}; got {', '.join(slots) or 'none'}.")
    for slot, arrays in expected.items():
        problems += _describe_mismatch(slot, arrays, slots.get(slot, arrays))
    if problems:
        message = "update_parameters: " + " ".join(problems)
        raise SpecError(message)


def _arrays_of_slots(update: Update, parameters: Arrays) -> Slots:
    """Return for each slot the parameters it is kept of."""
    held: Slots = {}
    for name, array in parameters.items():
        for slot in update.initial_slots(name, array.ndim):
            held.setdefault(slot, {})[name] = array
    return held if isinstance(update.averaging, NoAveraging) else held | {AVERAGE: parameters}


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
