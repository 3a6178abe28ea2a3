"""Optimizers in any form of the spec: one Keras optimizer whose variables follow their rules.

Mirrors `models_torch.optimizers.update`. The rules are stated in `parity.reference.optimizers`.
Stock optimizers are not used because their Python hyper-parameters pass through float32 on
tensorflow (keras 3.15.1, `ops.cast` of a float).
"""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from models_keras.optimizers.accumulators import adadelta_step, adagrad_step, rmsprop_step
from models_keras.optimizers.clipping import clip_gradients
from models_keras.optimizers.moments import adabound_step, adam_step, lamb_step
from models_keras.optimizers.momentum import lars_step, muon_step, sgd_step
from models_keras.optimizers.names import Tensor, canonical_name
from parity.spec.optimizers import Assignment, OptimizerSpec, Update, update_from_table

STEPS: dict[str, Callable[..., tuple[Tensor, dict[str, Tensor]]]] = {
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


def build_optimizer(update: Update, *, model: keras.Model) -> keras.Optimizer:
    """Return the optimizer, built on `model`'s trained variables.

    Its `learning_rate` is that of the update; a variable's own is in proportion. Where groups end,
    `set_rates` says so before each step. Gradients are clipped as a step begins. Averages are kept
    by `Average`.
    """
    optimizer = SpecOptimizer(update)
    optimizer.build(model.trainable_variables)
    return optimizer


def set_rates(optimizer: keras.Optimizer, *, rate: float, epoch: float = 0.0) -> None:
    """Set the learning rates of an optimizer of `build_optimizer` for its next step.

    Args:
        optimizer: What is to step.
        rate: Learning rate of the update at this step.
        epoch: Epochs made before the step, whole or not.
    """
    optimizer.learning_rate = rate
    optimizer.move_to(epoch)


@keras.saving.register_keras_serializable(package="models_keras")
class SpecOptimizer(keras.optimizers.Optimizer):
    """An optimizer whose variables each follow a rule of the spec.

    Attributes:
        slots: Arrays kept of each variable, by PyTorch's slot name, in the order of the variables
            it was built on.
    """

    def __init__(self, update: Update | dict[str, Any], **kwargs: Any) -> None:  # noqa: ANN401  # Keras's own
        spec = update_from_table(update) if isinstance(update, dict) else update
        super().__init__(learning_rate=spec.rule.lr, **kwargs)
        self.update = spec
        self.slots: list[dict[str, Any]] = []
        self._assignments: list[Assignment] = []
        self._timers: list[dict[str, Any]] = []

    def build(self, variables: list[Any]) -> None:
        """Make the arrays of each variable."""
        if self.built:
            return
        super().build(variables)
        for variable in variables:
            assignment = self.update.assign(canonical_name(variable), len(variable.shape))
            self._assignments.append(assignment)
            self.slots.append(
                {
                    slot: self._add_slot(variable, slot, start)
                    for slot, start in assignment.rule.initial_slots().items()
                }
            )
            self._timers.append(self._add_timer(assignment))

    def _add_slot(self, variable: Any, slot: str, start: float) -> Any:  # noqa: ANN401  # keras.Variable
        array = self.add_variable_from_reference(variable, name=slot)
        if start:
            # An initializer's value would pass through float32.
            array.assign(np.full(tuple(variable.shape), start, dtype=variable.dtype))
        return array

    def _add_timer(self, assignment: Assignment) -> dict[str, Any]:
        """Return the variables that tell a compiled step when a variable's own training ends."""
        if not assignment.ends:
            return {}
        timer = {"is_trained": self.add_variable((), initializer="ones", dtype="bool")}
        if assignment.schedule == "linear_to_end":
            timer["rate"] = self.add_variable(())
            timer["rate"].assign(np.asarray(assignment.rule.lr, timer["rate"].dtype))
        return timer

    def move_to(self, epoch: float) -> None:
        """Take up a position in the training; `epoch` epochs precede the next step."""
        for assignment, timer in zip(self._assignments, self._timers, strict=True):
            if timer:
                timer["is_trained"].assign(not assignment.is_over(epoch))
            if "rate" in timer:
                rate = assignment.rate(0.0, epoch=epoch)
                timer["rate"].assign(np.asarray(rate, timer["rate"].dtype))

    def get_config(self) -> dict[str, Any]:
        """Return what `from_config` rebuilds it from."""
        return {"name": self.name, "update": self.update.to_table()}

    def update_step(self, gradient: Tensor, variable: Any, learning_rate: Tensor) -> None:  # noqa: ANN401
        """Move one variable along one gradient."""
        index = self._get_variable_index(variable)
        rule, slots, timer = self._assignments[index].rule, self.slots[index], self._timers[index]
        rate = ops.cast(learning_rate, variable.dtype) * self._assignments[index].lr_factor
        if "rate" in timer:
            rate = ops.cast(ops.convert_to_tensor(timer["rate"]), variable.dtype)
        value, gradient = ops.convert_to_tensor(variable), ops.cast(gradient, variable.dtype)
        if rule.l2 and not rule.l2_in_loss:
            gradient = gradient + value * rule.l2
        if rule.decoupled_decay and not getattr(rule, "decay_in_ratio", False):
            value = value - value * _decay_rate(rule, rate)
        held = {slot: ops.convert_to_tensor(array) for slot, array in slots.items()}
        count = ops.cast(self.iterations + 1, variable.dtype)
        value, moved = STEPS[rule.kind](rule, value, gradient, held, rate=rate, count=count)
        self.assign(variable, _while_trained(timer, value, variable))
        for slot, array in moved.items():
            self.assign(slots[slot], _while_trained(timer, array, slots[slot]))

    def apply(self, grads: list[Tensor], trainable_variables: list[Any] | None = None) -> None:
        """Update the variables; clipping does not count the gradients of what has ended."""
        if any(self._timers) and len(grads) > 0:
            variables = trainable_variables or self._trainable_variables
            timers = [self._timers[self._get_variable_index(variable)] for variable in variables]
            grads = [
                gradient
                if gradient is None or not timer
                else _while_trained(timer, gradient, ops.zeros_like(gradient))
                for gradient, timer in zip(grads, timers, strict=True)
            ]
        super().apply(grads, trainable_variables)

    def _clip_gradients(self, grads: list[Tensor]) -> list[Tensor]:
        return clip_gradients(self.update.clipping, grads)


def _while_trained(timer: dict[str, Any], moved: Tensor, present: Any) -> Tensor:  # noqa: ANN401  # tensor, keras.Variable
    """Return the new value of what is still trained, the present one of what has ended."""
    if not timer:
        return moved
    is_trained = ops.convert_to_tensor(timer["is_trained"])
    return ops.where(is_trained, moved, ops.convert_to_tensor(present))


def _decay_rate(rule: OptimizerSpec, rate: Tensor) -> Tensor:
    return (rate if rule.decay_scaled_by_lr else rule.lr) * rule.decoupled_decay
