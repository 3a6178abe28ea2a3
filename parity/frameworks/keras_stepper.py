"""A user's Keras optimizer, in float64 on NumPy arrays, on any backend."""

from collections.abc import Mapping
from typing import Any

import keras

from parity import runtime
from parity.frameworks.keras_capture.exact import exact_numbers
from parity.frameworks.program import Array, State


class KerasStepper:
    """See `Stepper`; the optimizer is made anew from its configuration, schedule included."""

    def __init__(self, optimizer: keras.optimizers.Optimizer) -> None:
        self._config = keras.optimizers.serialize(optimizer)
        self._optimizer: Any = None
        self._variables: dict[str, Any] = {}

    def step(self, parameters: Mapping[str, Array], gradients: Mapping[str, Array]) -> State:
        """See `Stepper.step`."""
        with runtime.precision("float64"), exact_numbers():
            if self._optimizer is None:
                self._optimizer = keras.optimizers.deserialize(self._config)
                self._variables = {
                    name: keras.Variable(
                        array, dtype="float64", name=name.rpartition(".")[2], trainable=True
                    )
                    for name, array in parameters.items()
                }
                self._optimizer.build(list(self._variables.values()))
            for name, array in parameters.items():
                self._variables[name].assign(array)
            given = [
                keras.ops.convert_to_tensor(gradients[name], dtype="float64")
                for name in self._variables
            ]
            self._optimizer.apply(given, list(self._variables.values()))
            return {
                name: keras.ops.convert_to_numpy(variable).copy()
                for name, variable in self._variables.items()
            }
