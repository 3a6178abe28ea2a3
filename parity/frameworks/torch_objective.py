"""A user's torch loss, in float64 on NumPy arrays."""

import copy
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from parity.errors import CaptureError
from parity.frameworks.program import State
from parity.frameworks.structures import nest_outputs


class TorchObjective:
    """See `Objective`; the loss is called as `loss(prediction, target)`."""

    def __init__(self, loss: Callable[..., Any]) -> None:
        self._loss = copy.deepcopy(loss).double() if isinstance(loss, torch.nn.Module) else loss

    def evaluate(self, outputs: Mapping[str, Any], targets: Any) -> tuple[float, State]:  # noqa: ANN401  # see `Objective`
        """See `Objective.evaluate`.

        Raises:
            CaptureError: If the loss cannot be called, or is no single number.
        """
        leaves = {
            name: torch.tensor(np.asarray(array, dtype=np.float64), requires_grad=True)
            for name, array in outputs.items()
        }
        default = torch.get_default_dtype()
        torch.set_default_dtype(torch.float64)
        try:
            loss = self._called(nest_outputs(leaves), _to_tensors(targets))
            if not isinstance(loss, torch.Tensor) or loss.numel() != 1:
                message = "torch loss: expected one number; got " + (
                    f"shape {tuple(loss.shape)}. Reduce it."
                    if isinstance(loss, torch.Tensor)
                    else f"{type(loss).__name__}."
                )
                raise CaptureError(message)
            gradients = torch.autograd.grad(
                loss.reshape(()), list(leaves.values()), materialize_grads=True
            )
        finally:
            torch.set_default_dtype(default)
        named = zip(leaves, gradients, strict=True)
        return float(loss.detach()), {name: gradient.numpy().copy() for name, gradient in named}

    def _called(self, prediction: Any, target: Any) -> Any:  # noqa: ANN401  # tensors
        try:
            return self._loss(prediction, target)
        except (RuntimeError, ValueError, TypeError, IndexError) as error:
            message = f"torch loss: cannot be called on outputs and targets: {error}"
            raise CaptureError(message) from error


def _to_tensors(targets: Any) -> Any:  # noqa: ANN401  # nested as the user nests them
    if isinstance(targets, Mapping):
        return {name: _to_tensors(one) for name, one in targets.items()}
    if isinstance(targets, tuple | list):
        return type(targets)(_to_tensors(one) for one in targets)
    tensor = torch.as_tensor(targets)
    return tensor.double() if tensor.is_floating_point() else tensor
