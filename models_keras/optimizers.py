"""Optimizers in any form of the spec, as subclasses of Keras's own that override `update_step`.

Mirrors `models_torch.optimizers`. The rules are stated in `parity.reference.optimizers`. Stock
optimizers are not used because their Python hyper-parameters pass through float32 on tensorflow
(keras 3.15.1, `ops.cast` of a float).
"""

import dataclasses
from typing import Any

import keras
from keras import ops

from parity.spec import optimizers as specs
from parity.spec.optimizers import OptimizerSpec

Tensor = Any


def build_optimizer(spec: OptimizerSpec, *, model: keras.Model) -> keras.Optimizer:
    """Return the optimizer, built on `model`'s trained variables.

    The learning rate is its `learning_rate`.
    """
    optimizer = Sgd(spec) if isinstance(spec, specs.Sgd) else Adam(spec)
    optimizer.build(model.trainable_variables)
    return optimizer


def _decayed(spec: OptimizerSpec, variable: Tensor, rate: Tensor) -> Tensor:
    """Return the variable after decoupled decay."""
    value = ops.convert_to_tensor(variable)
    if not spec.decoupled_decay:
        return value
    scale = rate if spec.decay_scaled_by_lr else spec.lr
    return value - value * (scale * spec.decoupled_decay)


@keras.saving.register_keras_serializable(package="models_keras")
class Sgd(keras.optimizers.SGD):
    """SGD with coupled or decoupled decay; its velocity may hold the learning rate."""

    def __init__(self, spec: specs.Sgd | dict[str, Any], **kwargs: Any) -> None:  # noqa: ANN401  # Keras's own
        form = specs.Sgd(**spec) if isinstance(spec, dict) else spec
        super().__init__(
            learning_rate=form.lr, momentum=form.momentum, nesterov=form.nesterov, **kwargs
        )
        self.spec = form

    def get_config(self) -> dict[str, Any]:
        """Return what `from_config` rebuilds it from."""
        return {"name": self.name, "spec": dataclasses.asdict(self.spec)}

    def update_step(self, gradient: Tensor, variable: Any, learning_rate: Tensor) -> None:  # noqa: ANN401
        """Move one variable along one gradient."""
        spec = self.spec
        rate = ops.cast(learning_rate, variable.dtype)
        gradient = ops.cast(gradient, variable.dtype)
        if spec.l2:
            gradient = gradient + ops.convert_to_tensor(variable) * spec.l2
        # Keras's velocity is a displacement, torch's a sum of gradients that the step scales.
        change = gradient * -rate if spec.velocity_holds_lr else gradient
        step = change
        if spec.momentum:
            slot = self.momentums[self._get_variable_index(variable)]
            velocity = ops.convert_to_tensor(slot) * spec.momentum + change
            self.assign(slot, velocity)
            step = change + velocity * spec.momentum if spec.nesterov else velocity
        if not spec.velocity_holds_lr:
            step = step * -rate
        self.assign(variable, _decayed(spec, variable, rate) + step)


@keras.saving.register_keras_serializable(package="models_keras")
class Adam(keras.optimizers.Adam):
    """Adam with either placement of epsilon, and coupled or decoupled decay."""

    def __init__(self, spec: specs.Adam | dict[str, Any], **kwargs: Any) -> None:  # noqa: ANN401  # Keras's own
        form = specs.Adam(**spec) if isinstance(spec, dict) else spec
        super().__init__(
            learning_rate=form.lr,
            beta_1=form.beta1,
            beta_2=form.beta2,
            epsilon=form.epsilon,
            **kwargs,
        )
        self.spec = form

    def get_config(self) -> dict[str, Any]:
        """Return what `from_config` rebuilds it from."""
        return {"name": self.name, "spec": dataclasses.asdict(self.spec)}

    def update_step(self, gradient: Tensor, variable: Any, learning_rate: Tensor) -> None:  # noqa: ANN401
        """Move one variable along one gradient."""
        spec = self.spec
        rate = ops.cast(learning_rate, variable.dtype)
        gradient = ops.cast(gradient, variable.dtype)
        if spec.l2:
            gradient = gradient + ops.convert_to_tensor(variable) * spec.l2
        index = self._get_variable_index(variable)
        first = ops.convert_to_tensor(self._momentums[index])
        second = ops.convert_to_tensor(self._velocities[index])
        first = first * spec.beta1 + gradient * (1.0 - spec.beta1)
        second = second * spec.beta2 + gradient * gradient * (1.0 - spec.beta2)
        self.assign(self._momentums[index], first)
        self.assign(self._velocities[index], second)
        step = ops.cast(self.iterations + 1, variable.dtype)
        root = ops.sqrt(1.0 - _power(spec.beta2, step))
        rate_corrected = rate / (1.0 - _power(spec.beta1, step))
        if spec.epsilon_placement == "corrected":
            denominator = ops.sqrt(second) / root + spec.epsilon
        else:
            denominator = (ops.sqrt(second) + spec.epsilon) / root
        self.assign(variable, _decayed(spec, variable, rate) - rate_corrected * first / denominator)


def _power(base: float, exponent: Tensor) -> Tensor:
    return ops.power(ops.convert_to_tensor(base, dtype=exponent.dtype), exponent)
