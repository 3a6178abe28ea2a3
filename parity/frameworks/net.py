"""The protocol `Net`: a built model with its optimizer, in any framework, seen in NumPy arrays.

Images cross as `(n, h, w, c)`: PyTorch reads that memory as channels-last without a copy, Keras as
it is. States, gradients and optimizer slots cross by `layer path.slot name` in PyTorch's names and
layout. Arrays a net hands out are copies, never views of what it goes on training.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from parity.spec.position import START, Position

Array = NDArray[Any]
State = dict[str, Array]
Masks = dict[str, NDArray[np.bool_]]


@dataclass(frozen=True, kw_only=True)
class Batch:
    """One step's input.

    Attributes:
        images: `(n, h, w, c)` float32, normalized.
        labels: `(n,)` integers.
        targets: `(n, classes)` float64, from `parity.spec.losses.build_targets`.
        masks: What each layer that drops something keeps of each sample, by layer path.
    """

    images: NDArray[np.float32]
    labels: NDArray[np.integer]
    targets: NDArray[np.float64]
    masks: Masks = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class StepRecord:
    """What one step or one backward pass produced.

    Attributes:
        loss: Loss on the batch before the update.
        logits: `(n, classes)` in train mode, before the update.
        gradients: Of the loss with respect to each parameter; empty where not asked for.
    """

    loss: float
    logits: Array
    gradients: State = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class OptimizerState:
    """An optimizer's arrays and its count of steps taken.

    Attributes:
        step: Updates made so far.
        slots: Slot name (`momentum_buffer`, `exp_avg`, ...) -> parameter name -> array, at its
            starting value where the framework has not made it yet. The slot `average` holds the
            averages of the weights, of buffers too where they are averaged.
    """

    step: int
    slots: dict[str, State]


# The arrays that an optimizer keeps of a parameter, with the value they start at, by the
# parameter's name and number of dimensions.
SlotsOf = Callable[[str, int], dict[str, float]]


class SetRates(Protocol):
    """What tells an optimizer the learning rate of its next step, and where the training is."""

    def __call__(self, optimizer: Any, *, rate: float, epoch: float) -> None:  # noqa: ANN401  # a framework's
        """Set the rates of the step that `epoch` epochs precede."""


class Average(Protocol):
    """A running copy of a model's weights, in its framework's tensors."""

    @property
    def arrays(self) -> dict[str, Any]:
        """Averages by the framework's own name of the array."""

    def start(self) -> None:
        """Copy the present weights."""

    def update(self, *, count: int, progress: float) -> None:
        """Move the averages after update `count`, from 1; `progress` of all updates are made."""


class Net(Protocol):
    """A built model instance with loss and optimizer.

    It draws nothing itself: in training mode every layer that drops something must be given what it
    keeps, or `SpecError` is raised. Such a layer has an attribute `kept`.
    """

    @property
    def label(self) -> str:
        """What reports call it, such as `torch` or `keras-tensorflow`."""

    @property
    def dtype(self) -> str:
        """One of `runtime.TRAINING_DTYPES`; arrays of a mixed one are float32."""

    def forward(self, images: Array, *, training: bool, masks: Masks | None = None) -> Array:
        """Return logits `(n, classes)`.

        In training mode batch statistics are used, buffers move and masks are applied.
        """

    def gradients(self, batch: Batch) -> StepRecord:
        """Run forward and backward in training mode; buffers move, parameters stay."""

    def step(
        self,
        batch: Batch,
        *,
        rate: float,
        position: Position = START,
        with_gradients: bool = False,
    ) -> StepRecord:
        """Make one training step at learning rate `rate`.

        Some averages of the weights, and parameter groups that are not trained to the end, read the
        position.
        """

    def apply_gradients(
        self, gradients: Mapping[str, Array], *, rate: float, position: Position = START
    ) -> None:
        """Update the parameters from the given gradients at learning rate `rate`."""

    def state(self) -> State:
        """Return every parameter and buffer."""

    def parameter_names(self) -> tuple[str, ...]:
        """Return the names in `state()` that are trained."""

    def load_state(self, state: Mapping[str, Array]) -> None:
        """Take over every parameter and buffer.

        Raises:
            ConversionError: If names or shapes do not match; all offenders are listed and nothing
                is changed.
        """

    def optimizer_state(self) -> OptimizerState:
        """Return the optimizer's arrays."""

    def load_optimizer_state(self, state: OptimizerState) -> None:
        """Take over the optimizer's arrays."""

    def trace(self, images: Array, *, training: bool, masks: Masks | None = None) -> State:
        """Return each layer's output by layer path, images as `(n, c, h, w)`; no buffer moves."""

    def astype(self, dtype: str) -> "Net":
        """Return a net of another precision with the same state and optimizer state."""

    def save_weights(self, path: Any) -> None:  # noqa: ANN401  # str or Path
        """Write the weights in the framework's own format."""
