"""A user's Keras loss, in float64 on NumPy arrays, on any backend."""

import importlib
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np

from parity import runtime
from parity.errors import CaptureError
from parity.frameworks.program import State
from parity.frameworks.structures import nest_outputs


class KerasObjective:
    """See `Objective`.

    A `keras.losses.Loss` is called as `loss(target, prediction)`, any other callable as
    `loss(prediction, target)`.
    """

    def __init__(self, loss: Callable[..., Any]) -> None:
        self._loss = loss

    def evaluate(self, outputs: Mapping[str, Any], targets: Any) -> tuple[float, State]:  # noqa: ANN401  # see `Objective`
        """See `Objective.evaluate`.

        Raises:
            CaptureError: If the loss cannot be called, or is no single number.
        """
        backend = importlib.import_module(
            f"parity.frameworks.keras_backends.{keras.backend.backend()}"
        )
        with runtime.precision("float64"):
            loss = _in_float64(self._loss)
            leaves = {
                name: keras.Variable(array, dtype="float64", name="prediction")
                for name, array in outputs.items()
            }
            prediction = nest_outputs(leaves)
            wanted = _to_tensors(targets)

            def call() -> Any:  # noqa: ANN401  # a tensor of the backend
                if isinstance(loss, keras.losses.Loss):
                    return loss(wanted, prediction)
                return loss(prediction, wanted)

            try:
                shape = tuple(keras.ops.shape(call()))
            except Exception as error:  # each backend has errors of its own
                message = f"Keras loss: cannot be called on outputs and targets: {error}"
                raise CaptureError(message) from error
            if shape != ():
                message = f"Keras loss: expected one number; got shape {shape}. Reduce it."
                raise CaptureError(message)
            values, gradients, _ = backend.pull_back(
                lambda: [call()], list(leaves.values()), [], [np.asarray(1.0)]
            )
        return float(values[0]), dict(zip(leaves, gradients, strict=True))


def _in_float64(loss: Callable[..., Any]) -> Callable[..., Any]:
    """Return the loss without its cast to float32, which it fixes as it is made."""
    if not isinstance(loss, keras.losses.Loss):
        return loss
    config = {**loss.get_config(), "dtype": "float64"}
    remade: Callable[..., Any] = type(loss).from_config(config)
    return remade


def _to_tensors(targets: Any) -> Any:  # noqa: ANN401  # nested as the user nests them
    def to_tensor(array: Any) -> Any:  # noqa: ANN401  # an array, then a tensor
        array = np.asarray(array)
        is_float = np.issubdtype(array.dtype, np.floating)
        return keras.ops.convert_to_tensor(array, dtype="float64" if is_float else None)

    return keras.tree.map_structure(to_tensor, targets)
