"""A user's torch optimizer, in float64 on NumPy arrays."""

import copy
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from parity.errors import CaptureError
from parity.frameworks.program import Array, State


class TorchStepper:
    """See `Stepper`; the user's model, optimizer and scheduler are copied together."""

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        scheduler: Any = None,  # noqa: ANN401  # any of torch's
    ) -> None:
        """Copy an optimizer.

        Raises:
            CaptureError: If it holds parameters that are not the model's.
        """
        own = {id(parameter) for parameter in model.parameters()}
        held = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        if any(id(parameter) not in own for parameter in held):
            message = (
                "torch optimizer: expected the parameters of the model that is compared; got "
                "others. Make it with model.parameters()."
            )
            raise CaptureError(message)
        copies = copy.deepcopy((model, optimizer, scheduler))
        self._model: nn.Module = copies[0].double()
        self._optimizer: torch.optim.Optimizer = copies[1]
        self._scheduler: Any = copies[2]
        # A scheduler hides `step` behind a wrapper, which still calls the user's optimizer (torch
        # 2.13.0, LRScheduler.__init__).
        vars(self._optimizer).pop("step", None)

    def step(self, parameters: Mapping[str, Array], gradients: Mapping[str, Array]) -> State:
        """See `Stepper.step`."""
        named = dict(self._model.named_parameters())
        with torch.no_grad():
            for name, array in parameters.items():
                named[name].copy_(torch.from_numpy(np.array(array, dtype=np.float64)))
        for name, parameter in named.items():
            given = gradients.get(name)
            parameter.grad = (
                None if given is None else torch.from_numpy(np.array(given, dtype=np.float64))
            )
        self._optimizer.step()
        if self._scheduler is not None:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Seems like `optimizer.step")
                self._scheduler.step()
        return {name: named[name].detach().numpy().copy() for name in parameters}
