"""Keras on tensorflow: gradient tapes inside `tf.function`."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import tensorflow as tf
from tensorflow.python.ops import math_ops

from parity.frameworks.keras_backends.engine import Outcome, Pullback, masked
from parity.frameworks.net import Array, Masks


class TensorflowEngine:
    """See `Engine`."""

    def __init__(self, model: Any, *, loss: Any, optimizer: Any, compiled: bool) -> None:  # noqa: ANN401  # Keras's objects
        self._model, self._loss, self._optimizer = model, loss, optimizer
        self._compiled = {
            with_gradients: tf.function(
                self._step(with_gradients=with_gradients), jit_compile=compiled
            )
            for with_gradients in (False, True)
        }
        self._compiled_backward = tf.function(self._backward, jit_compile=compiled)
        self._compiled_forward = tf.function(self._forward, jit_compile=compiled)

    def forward(self, images: Array, masks: Masks, *, training: bool) -> Array:
        """See `Engine.forward`."""
        inputs = tf.constant(images), _to_tensors(masks)
        logits: Array = self._compiled_forward(*inputs, training=training).numpy()
        return logits

    def gradients(self, images: Array, targets: Array, masks: Masks) -> Outcome:
        """See `Engine.gradients`."""
        inputs = tf.constant(images), tf.constant(targets), _to_tensors(masks)
        return _to_numpy(self._compiled_backward(*inputs))

    def step(self, images: Array, targets: Array, masks: Masks, *, with_gradients: bool) -> Outcome:
        """See `Engine.step`."""
        inputs = tf.constant(images), tf.constant(targets), _to_tensors(masks)
        return _to_numpy(self._compiled[with_gradients](*inputs))

    def apply_gradients(self, gradients: list[Array]) -> None:
        """See `Engine.apply_gradients`."""
        self._optimizer.apply([tf.constant(gradient) for gradient in gradients])

    def outputs(self, model: Any, images: Array, masks: Masks, *, training: bool) -> list[Array]:  # noqa: ANN401  # keras.Model
        """See `Engine.outputs`."""
        with masked(model, masks):
            return [output.numpy() for output in model(tf.constant(images), training=training)]

    def _forward(self, images: Any, masks: Any, *, training: bool) -> Any:  # noqa: ANN401  # tensors
        with masked(self._model, masks):
            return self._model(images, training=training)

    def _backward(self, images: Any, targets: Any, masks: Any) -> tuple[Any, Any, list[Any]]:  # noqa: ANN401  # tensors
        with tf.GradientTape() as tape:
            logits = self._forward(images, masks, training=True)
            loss = self._loss(targets, logits, self._model.trainable_variables)
        return loss, logits, tape.gradient(loss, self._model.trainable_variables)

    def _step(self, *, with_gradients: bool) -> Any:  # noqa: ANN401  # a function of tensors
        def step(images: Any, targets: Any, masks: Any) -> tuple[Any, Any, list[Any]]:  # noqa: ANN401  # tensors
            loss, logits, gradients = self._backward(images, targets, masks)
            self._optimizer.apply(gradients)
            return loss, logits, gradients if with_gradients else []

        return step


@contextlib.contextmanager
def exact_numbers() -> Iterator[None]:
    """Make Python's numbers in the dtype that they are cast to, without float32 in between.

    tensorflow 2.21.0, ops/math_ops.py, `cast` makes a float32 tensor of a number first; Keras's
    layers and `tf.nn.gelu` cast their constants so.
    """
    cast = math_ops.cast

    def exact(x: Any, dtype: Any, name: str | None = None) -> Any:  # noqa: ANN401  # as tf.cast
        if isinstance(x, float):
            return tf.constant(x, dtype=tf.as_dtype(dtype))
        return cast(x, dtype, name=name)

    tf.cast = math_ops.cast = exact
    try:
        yield
    finally:
        tf.cast = math_ops.cast = cast


def _to_tensors(masks: Masks) -> dict[str, Any]:
    return {name: tf.constant(kept) for name, kept in masks.items()}


def _to_numpy(outcome: tuple[Any, Any, list[Any]]) -> Outcome:
    loss, logits, gradients = outcome
    return loss.numpy(), logits.numpy(), [gradient.numpy() for gradient in gradients]


def pull_back(
    call: Callable[[], Sequence[Any]],
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
    with tf.GradientTape() as tape:
        outputs = list(call())
    led = [
        (output, tf.constant(gradient, output.dtype))
        for output, gradient in zip(outputs, d_outputs, strict=True)
        if gradient is not None
    ]
    gradients = tape.gradient(
        [output for output, _ in led],
        [variable.value for variable in variables],
        output_gradients=[gradient for _, gradient in led],
        unconnected_gradients=tf.UnconnectedGradients.ZERO,
    )
    dense = [tf.convert_to_tensor(gradient).numpy() for gradient in gradients]
    return [output.numpy() for output in outputs], dense, [buffer.numpy() for buffer in buffers]
