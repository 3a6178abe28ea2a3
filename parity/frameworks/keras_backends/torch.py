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
    outputs = list(call())
    led = [
        (output, torch.as_tensor(gradient, dtype=output.dtype, device=output.device))
        for output, gradient in zip(outputs, d_outputs, strict=True)
        if gradient is not None and output.requires_grad
    ]
    sources = [variable.value for variable in variables]
    gradients: Sequence[torch.Tensor] = [torch.zeros_like(source) for source in sources]
    if led:
        gradients = torch.autograd.grad(
            [output for output, _ in led],
            sources,
            grad_outputs=[gradient for _, gradient in led],
            materialize_grads=True,
        )
    values = [_copied(buffer.value) for buffer in buffers]
    return list(map(_copied, outputs)), list(map(_copied, gradients)), values


def _to_tensors(masks: Masks) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(kept) for name, kept in masks.items()}


def _copied(tensor: torch.Tensor) -> Array:
    tensor = tensor.detach().cpu()
    # NumPy has no bfloat16.
    return np.array((tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy())
