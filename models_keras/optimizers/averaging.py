"""Averages of a model's weights. Mirrors `models_torch.optimizers.averaging`."""

from typing import Any

import keras
from keras import ops

from models_keras.optimizers.names import running_buffers, trained_parameters
from parity.spec.optimizers import STAY, AveragingSpec, NoAveraging, average_move


class Average:
    """A running copy of a model's weights, as `parity.spec.optimizers.averaging` states it.

    Attributes:
        arrays: Averages by the variable's path; empty where the spec has none.
    """

    def __init__(self, spec: AveragingSpec, *, model: keras.Model) -> None:
        """Start from the present weights of `model`."""
        self._spec = spec
        averaged = [] if isinstance(spec, NoAveraging) else _averaged_variables(spec, model)
        self._variables = {variable.path: variable for variable in averaged}
        self.arrays = {
            path: keras.Variable(_copy(variable), dtype=variable.dtype, trainable=False)
            for path, variable in self._variables.items()
        }

    def start(self) -> None:
        """Copy the present weights."""
        for path, variable in self._variables.items():
            self.arrays[path].assign(_copy(variable))

    def update(self, *, count: int, progress: float) -> None:
        """Move the averages after update `count`, from 1; `progress` of all updates are made.

        A callback of `fit` reads its own `model` first, which on jax brings it up to date.
        """
        move = average_move(self._spec, count=count, progress=progress)
        if move == STAY:
            return
        for path, variable in self._variables.items():
            average = self.arrays[path]
            present = ops.convert_to_tensor(variable)
            average.assign(ops.convert_to_tensor(average) * move.keep + present * (1.0 - move.keep))
            if move.writes_back:
                variable.assign(_copy(average))


def _copy(variable: Any) -> Any:  # noqa: ANN401  # keras.Variable to tensor
    # A variable made of another's tensor shares its memory on torch and jax, one made of its
    # `value` on tensorflow; on jax `fit` gives that memory away (keras 3.15.1, donated buffers).
    return ops.copy(ops.convert_to_tensor(variable))


def _averaged_variables(spec: AveragingSpec, model: keras.Model) -> list[Any]:
    named = trained_parameters(model)
    if spec.holds_buffers():
        named += running_buffers(model)
    return [variable for _, variable in named]
