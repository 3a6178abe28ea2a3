"""Keras on jax: stateless calls under `jax.jit`, written back to the variables after each step."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import keras
import numpy as np

from parity.frameworks.keras_backends.engine import Outcome, Pullback, masked
from parity.frameworks.net import Array, Masks

# A jax array or a nest of them; while jax traces, its stand-ins for them.
Arrays = Any


class JaxEngine:
    """See `Engine`."""

    def __init__(self, model: Any, *, loss: Any, optimizer: Any, compiled: bool) -> None:  # noqa: ANN401  # Keras's objects
        del compiled  # it always is
        self._model, self._loss, self._optimizer = model, loss, optimizer
        self._compiled_forward = jax.jit(self._forward, static_argnames="training")
        self._compiled_backward = jax.jit(self._backward)
        self._compiled_step = jax.jit(self._step, static_argnames="with_gradients")

    def forward(self, images: Array, masks: Masks, *, training: bool) -> Array:
        """See `Engine.forward`."""
        logits, buffers = self._compiled_forward(
            *self._variables(), images, masks, training=training
        )
        if training:
            _assign(self._model.non_trainable_variables, buffers)
        return np.array(logits)

    def gradients(self, images: Array, targets: Array, masks: Masks) -> Outcome:
        """See `Engine.gradients`."""
        loss, logits, buffers, gradients = self._compiled_backward(
            *self._variables(), images, targets, masks
        )
        _assign(self._model.non_trainable_variables, buffers)
        return _to_numpy(loss, logits, gradients)

    def step(self, images: Array, targets: Array, masks: Masks, *, with_gradients: bool) -> Outcome:
        """See `Engine.step`."""
        parameters, buffers = self._variables()
        slots = [variable.value for variable in self._optimizer.variables]
        loss, logits, gradients, parameters, buffers, slots = self._compiled_step(
            parameters, buffers, slots, images, targets, masks, with_gradients=with_gradients
        )
        _assign(self._model.trainable_variables, parameters)
        _assign(self._model.non_trainable_variables, buffers)
        _assign(self._optimizer.variables, slots)
        return _to_numpy(loss, logits, gradients)

    def apply_gradients(self, gradients: list[Array]) -> None:
        """See `Engine.apply_gradients`."""
        self._optimizer.apply([jax.numpy.asarray(gradient) for gradient in gradients])

    def outputs(self, model: Any, images: Array, masks: Masks, *, training: bool) -> list[Array]:  # noqa: ANN401  # keras.Model
        """See `Engine.outputs`."""
        with masked(model, masks):
            outputs = model(jax.numpy.asarray(images), training=training)
        return [np.array(output) for output in outputs]

    def _variables(self) -> tuple[list[Any], list[Any]]:
        parameters = [variable.value for variable in self._model.trainable_variables]
        return parameters, [variable.value for variable in self._model.non_trainable_variables]

    def _forward(
        self, parameters: Arrays, buffers: Arrays, images: Arrays, masks: Arrays, *, training: bool
    ) -> Arrays:
        with masked(self._model, masks):
            return self._model.stateless_call(parameters, buffers, images, training=training)

    def _backward(
        self, parameters: Arrays, buffers: Arrays, images: Arrays, targets: Arrays, masks: Arrays
    ) -> Arrays:
        def loss_of(parameters: Arrays) -> Arrays:
            logits, moved = self._forward(parameters, buffers, images, masks, training=True)
            return self._loss(targets, logits, parameters), (logits, moved)

        (loss, (logits, moved)), gradients = jax.value_and_grad(loss_of, has_aux=True)(parameters)
        return loss, logits, moved, gradients

    def _step(
        self,
        parameters: Arrays,
        buffers: Arrays,
        slots: Arrays,
        images: Arrays,
        targets: Arrays,
        masks: Arrays,
        *,
        with_gradients: bool,
    ) -> Arrays:
        loss, logits, buffers, gradients = self._backward(
            parameters, buffers, images, targets, masks
        )
        parameters, slots = self._optimizer.stateless_apply(slots, gradients, parameters)
        return loss, logits, gradients if with_gradients else [], parameters, buffers, slots


def _assign(variables: list[Any], values: list[Any]) -> None:
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


def _to_numpy(loss: Arrays, logits: Arrays, gradients: list[Arrays]) -> Outcome:
    return np.array(loss), np.array(logits), [np.array(gradient) for gradient in gradients]


def pull_back(
    call: Callable[[], Sequence[Arrays]],
    variables: Sequence[Any],
    buffers: Sequence[Any],
    d_outputs: Sequence[Array | None],
) -> Pullback:
    """Run a call forward and backward.

    Args:
        call: Returns tensors; what it gives to variables that are not trained shows in `buffers`.
        variables: To differentiate by; zeros where nothing reaches.
        buffers: Whose values after the call are returned.
        d_outputs: Gradient with respect to each tensor, None for none.
    """
    led = [place for place, gradient in enumerate(d_outputs) if gradient is not None]

    def stateless(values: list[Arrays]) -> tuple[list[Arrays], tuple[list[Arrays], list[Arrays]]]:
        with keras.StatelessScope(zip(variables, values, strict=True)) as scope:
            outputs = list(call())
        moved = [scope.get_current_value(buffer) for buffer in buffers]
        values_after = zip(buffers, moved, strict=True)
        after = [buffer.value if now is None else now for buffer, now in values_after]
        return [outputs[place] for place in led], (outputs, after)

    present = [variable.value for variable in variables]
    ends, pullback, (outputs, after) = jax.vjp(stateless, present, has_aux=True)
    cotangents = [
        jax.numpy.asarray(d_outputs[place], end.dtype) for place, end in zip(led, ends, strict=True)
    ]
    (gradients,) = pullback(cotangents)
    return _arrays(outputs), _arrays(gradients), _arrays(after)


def _arrays(values: Sequence[Arrays]) -> list[Array]:
    return [np.array(value) for value in values]
