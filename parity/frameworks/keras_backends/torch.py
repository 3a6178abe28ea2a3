"""Keras on torch: autograd on the variables' own tensors."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from parity.frameworks.keras_backends.engine import Outcome, Pullback, masked
from parity.frameworks.net import Array, Masks


class TorchEngine:
    """See `Engine`."""

    def __init__(self, model: Any, *, loss: Any, optimizer: Any, compiled: bool) -> None:  # noqa: ANN401  # Keras's objects
        del compiled  # `KerasNet` refuses it
        self._model, self._loss, self._optimizer = model, loss, optimizer

    def forward(self, images: Array, masks: Masks, *, training: bool) -> Array:
        """See `Engine.forward`."""
        with torch.no_grad(), masked(self._model, _to_tensors(masks)):
            return _copied(self._model(torch.from_numpy(images), training=training))

    def gradients(self, images: Array, targets: Array, masks: Masks) -> Outcome:
        """See `Engine.gradients`."""
        loss, logits, gradients = self._backward(images, targets, masks)
        return _copied(loss), _copied(logits), [_copied(gradient) for gradient in gradients]

    def step(self, images: Array, targets: Array, masks: Masks, *, with_gradients: bool) -> Outcome:
        """See `Engine.step`."""
        loss, logits, gradients = self._backward(images, targets, masks)
        kept = [_copied(gradient) for gradient in gradients] if with_gradients else []
        with torch.no_grad():
            self._optimizer.apply(gradients)
        return _copied(loss), _copied(logits), kept

    def apply_gradients(self, gradients: list[Array]) -> None:
        """See `Engine.apply_gradients`."""
        with torch.no_grad():
            self._optimizer.apply([torch.from_numpy(gradient) for gradient in gradients])

    def outputs(self, model: Any, images: Array, masks: Masks, *, training: bool) -> list[Array]:  # noqa: ANN401  # keras.Model
        """See `Engine.outputs`."""
        with torch.no_grad(), masked(model, _to_tensors(masks)):
            return [
                _copied(output) for output in model(torch.from_numpy(images), training=training)
            ]

    def _backward(self, images: Array, targets: Array, masks: Masks) -> tuple[Any, Any, list[Any]]:
        self._model.zero_grad()
        with masked(self._model, _to_tensors(masks)):
            logits = self._model(torch.from_numpy(images), training=True)
        loss = self._loss(torch.from_numpy(targets), logits, self._model.trainable_variables)
        loss.backward()
        return loss, logits, [variable.value.grad for variable in self._model.trainable_variables]


def pull_back(
    call: Callable[[], Any], variables: Sequence[Any], buffers: Sequence[Any], d_outputs: Array
) -> Pullback:
    """See `parity.frameworks.keras_layer.run_keras_layer`."""
    outputs = call()
    gradients = torch.autograd.grad(
        outputs,
        [variable.value for variable in variables],
        grad_outputs=torch.as_tensor(d_outputs, dtype=outputs.dtype),
        materialize_grads=True,
    )
    values = [_copied(buffer.value) for buffer in buffers]
    return _copied(outputs), [_copied(gradient) for gradient in gradients], values


def _to_tensors(masks: Masks) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(kept) for name, kept in masks.items()}


def _copied(tensor: torch.Tensor) -> Array:
    tensor = tensor.detach().cpu()
    # NumPy has no bfloat16.
    return np.array((tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy())
