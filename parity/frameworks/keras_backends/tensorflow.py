"""Keras on tensorflow: gradient tapes inside `tf.function`."""

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from parity.frameworks.keras_backends.engine import Outcome, Pullback
from parity.frameworks.net import Array


class TensorflowEngine:
    """See `Engine`."""

    def __init__(self, model: Any, *, loss: Any, optimizer: Any) -> None:  # noqa: ANN401  # Keras's objects
        self._model, self._loss, self._optimizer = model, loss, optimizer
        self._compiled = {
            with_gradients: tf.function(
                self._step(with_gradients=with_gradients), jit_compile=False
            )
            for with_gradients in (False, True)
        }
        self._compiled_backward = tf.function(self._backward, jit_compile=False)
        self._compiled_forward = tf.function(model, jit_compile=False)

    def forward(self, images: Array, *, training: bool) -> Array:
        """See `Engine.forward`."""
        logits: Array = self._compiled_forward(tf.constant(images), training=training).numpy()
        return logits

    def gradients(self, images: Array, targets: Array) -> Outcome:
        """See `Engine.gradients`."""
        return _to_numpy(self._compiled_backward(tf.constant(images), tf.constant(targets)))

    def step(self, images: Array, targets: Array, *, with_gradients: bool) -> Outcome:
        """See `Engine.step`."""
        return _to_numpy(self._compiled[with_gradients](tf.constant(images), tf.constant(targets)))

    def apply_gradients(self, gradients: list[Array]) -> None:
        """See `Engine.apply_gradients`."""
        self._optimizer.apply([tf.constant(gradient) for gradient in gradients])

    def outputs(self, model: Any, images: Array, *, training: bool) -> list[Array]:  # noqa: ANN401  # keras.Model
        """See `Engine.outputs`."""
        return [output.numpy() for output in model(tf.constant(images), training=training)]

    def _backward(self, images: Any, targets: Any) -> tuple[Any, Any, list[Any]]:  # noqa: ANN401  # tensors
        with tf.GradientTape() as tape:
            logits = self._model(images, training=True)
            loss = self._loss(targets, logits, self._model.trainable_variables)
        return loss, logits, tape.gradient(loss, self._model.trainable_variables)

    def _step(self, *, with_gradients: bool) -> Any:  # noqa: ANN401  # a function of tensors
        def step(images: Any, targets: Any) -> tuple[Any, Any, list[Any]]:  # noqa: ANN401  # tensors
            loss, logits, gradients = self._backward(images, targets)
            self._optimizer.apply(gradients)
            return loss, logits, gradients if with_gradients else []

        return step


def _to_numpy(outcome: tuple[Any, Any, list[Any]]) -> Outcome:
    loss, logits, gradients = outcome
    return loss.numpy(), logits.numpy(), [gradient.numpy() for gradient in gradients]


def pull_back(
    call: Callable[[], Any], variables: Sequence[Any], buffers: Sequence[Any], d_outputs: Array
) -> Pullback:
    """See `parity.frameworks.keras_layer.run_keras_layer`."""
    with tf.GradientTape() as tape:
        outputs = call()
    gradients = tape.gradient(
        outputs,
        [variable.value for variable in variables],
        output_gradients=tf.constant(d_outputs, outputs.dtype),
        unconnected_gradients=tf.UnconnectedGradients.ZERO,
    )
    dense = [tf.convert_to_tensor(gradient).numpy() for gradient in gradients]
    return outputs.numpy(), dense, [buffer.numpy() for buffer in buffers]
