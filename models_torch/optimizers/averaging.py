"""Averages of a model's weights. Mirrors `models_keras.optimizers.averaging`."""

import torch
from torch import nn

from models_torch.optimizers.names import running_buffers, trained_parameters
from parity.spec.optimizers import STAY, AveragingSpec, NoAveraging, average_move


class Average:
    """A running copy of a model's weights, as `parity.spec.optimizers.averaging` states it.

    Attributes:
        arrays: Averages by the name in `model.state_dict()`; empty where the spec has none.
    """

    def __init__(self, spec: AveragingSpec, *, model: nn.Module) -> None:
        """Start from the present weights of `model`."""
        self._spec = spec
        names = [] if isinstance(spec, NoAveraging) else _averaged_names(spec, model)
        self._tensors = {name: model.state_dict(keep_vars=True)[name] for name in names}
        self.arrays = {name: tensor.detach().clone() for name, tensor in self._tensors.items()}

    def start(self) -> None:
        """Copy the present weights."""
        for name, tensor in self._tensors.items():
            self.arrays[name].copy_(tensor.detach())

    def update(self, *, count: int, progress: float) -> None:
        """Move the averages after update `count`, from 1; `progress` of all updates are made."""
        move = average_move(self._spec, count=count, progress=progress)
        if move == STAY:
            return
        with torch.no_grad():
            for name, tensor in self._tensors.items():
                average = self.arrays[name]
                average.copy_(average * move.keep + tensor * (1.0 - move.keep))
                if move.writes_back:
                    tensor.copy_(average)


def _averaged_names(spec: AveragingSpec, model: nn.Module) -> list[str]:
    names = [name for name, _ in trained_parameters(model)]
    if spec.holds_buffers():
        names += [name for name, _ in running_buffers(model)]
    return names
