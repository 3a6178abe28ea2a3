"""The protocol `Program`: any model as the operations that it makes, run on NumPy arrays.

A program knows a model's call order and dataflow as a `Trace`, and can run it again: as it is, or
with values replaced on the way, forward and backward. What is replaced cuts the graph there, so
that each stretch between two replaced values is seen on its own. Whatever the model is (modules,
functions, layers, graphs), comparison sees only this.

Arrays cross in the framework's own names, layouts and axes; nothing is transposed here. A program
never changes the model that it was made of.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
State = dict[str, Array]

# A tensor that an operation made, or an input of the model: counted in the order they come to be.
ValueId = int


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One call of a layer or function.

    Attributes:
        name: Unique in its trace. The path of a layer (`layer1.0.conv1`), for a function the path
            of the layer that calls it and the kind (`layer1.0/add`; `/add` in the model's own
            body); `#2`, `#3` ... for further calls of the same.
        kind: What it computes, one word for both frameworks (`parity.frameworks.kinds.KINDS`), or
            the framework's own name of a function that has no such word.
        native: What the framework calls it, such as `torch.nn.functional.conv2d`.
        inputs: Its operands, in the order of the kind.
        outputs: What it returns; a layer's hidden states count.
        weights: Slot (PyTorch's name of it, such as `weight`, `running_var`) -> name in
            `Program.state()`.
        layouts: Slot -> the axes of that array as letters, in the notation of
            `conversion.layouts`; slots of one axis may be left out.
        attributes: What the kind is told, such as `stride`; see `parity.frameworks.kinds`.
    """

    name: str
    kind: str
    native: str
    inputs: tuple[ValueId, ...]
    outputs: tuple[ValueId, ...]
    weights: Mapping[str, str] = field(default_factory=dict)
    layouts: Mapping[str, str] = field(default_factory=dict)
    attributes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def path(self) -> str:
        """The path of the layer, or of the one whose body calls the function."""
        return self.name.partition("#")[0].partition("/")[0]


@dataclass(frozen=True, kw_only=True)
class Trace:
    """What a model does to its inputs, in the order of its calls.

    Attributes:
        operations: Every call that takes part in an output.
        shapes: Of each value, the batch included.
        dtypes: Of each value, by NumPy's name.
        inputs: The values that are given, in the order of the call.
        outputs: The values that are returned: name (`""` for a single one, `0`, `1` ... of a
            sequence, the keys of a dict, joined by `.` where nested) -> value.
        notes: Regions that cannot be followed, as sentences that name them.
    """

    operations: tuple[Operation, ...]
    shapes: Mapping[ValueId, tuple[int, ...]]
    dtypes: Mapping[ValueId, str]
    inputs: tuple[ValueId, ...]
    outputs: Mapping[str, ValueId]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Run:
    """What one run of a program produced.

    Attributes:
        values: The kept values, as computed: before a replacement took their place.
        gradients: With respect to the kept values that a float gradient reaches; for a replaced
            value, to the replacement.
        parameter_gradients: By name in `Program.state()`, zeros where nothing reaches; empty in a
            run without cotangents.
        buffers: Every array in the state that is not trained, after the run.
    """

    values: Mapping[ValueId, Array]
    gradients: Mapping[ValueId, Array] = field(default_factory=dict)
    parameter_gradients: State = field(default_factory=dict)
    buffers: State = field(default_factory=dict)


class Program(Protocol):
    """A model that can be run operation by operation.

    Runs repeat to the same bits: nothing is drawn, and buffers are put back after each run.
    """

    @property
    def label(self) -> str:
        """What reports call the framework, such as `torch` or `keras-tensorflow`."""

    @property
    def dtype(self) -> str:
        """What its weights are computed in: `float32`, `float64` or another float's name."""

    @property
    def trace(self) -> Trace:
        """The operations, as they were on the inputs that the program was made with."""

    def state(self) -> State:
        """Return copies of all parameters and buffers, by the framework's own names."""

    def parameter_names(self) -> tuple[str, ...]:
        """Return the names in `state()` that are trained."""

    def load_state(self, state: Mapping[str, Array]) -> None:
        """Take over some or all arrays, in this program and not in the user's model.

        Raises:
            ConversionError: If a name is unknown or a shape differs; all are listed and nothing is
                changed.
        """

    def run(
        self,
        inputs: Sequence[Array],
        *,
        training: bool = False,
        keep: Collection[ValueId] = (),
        replaced: Mapping[ValueId, Array] | None = None,
        uniforms: Mapping[str, Array] | None = None,
        cotangents: Mapping[ValueId, Array] | None = None,
    ) -> Run:
        """Run the model.

        Args:
            inputs: In the order of `trace.inputs`; floats are cast to the program's dtype. Their
                batch may differ from the one traced, their other axes not.
            training: Whether batch norms and dropout behave as in training.
            keep: Values to return.
            replaced: Value -> the array that goes on in its place, after the computed one is kept.
            uniforms: Name of an operation of kind `dropout` -> numbers in [0, 1) of its input's
                shape: in training it keeps `x / (1 - rate)` where they are at least `rate`, and the
                first number along `shared_axes`. A dropout without numbers keeps everything.
            cotangents: Value -> gradient of a scalar with respect to it, as computed; asks for the
                gradients of `sum over values of sum(value * cotangent)`.

        Raises:
            CaptureError: If this run does not make the traced operations.
        """

    def astype(self, dtype: str) -> "Program":
        """Return a program of the same model, state and trace that computes in another precision.

        Raises:
            CaptureError: If a part of the model cannot compute in it; all such parts are named.
        """


class Objective(Protocol):
    """A loss of the user's own, as one side computes it."""

    def evaluate(self, outputs: Mapping[str, Array], targets: Any) -> tuple[float, State]:  # noqa: ANN401  # arrays, nested as the user nests them
        """Return the loss in float64, and its gradient with respect to each output by name."""


class Stepper(Protocol):
    """An optimizer of the user's own, with its schedule if there is one, in float64."""

    def step(self, parameters: Mapping[str, Array], gradients: Mapping[str, Array]) -> State:
        """Return the parameters after one step; what the optimizer keeps goes on to the next.

        Args:
            parameters: By name in the model's `Program.state()`.
            gradients: By the same names.
        """


def is_float(array: Array) -> bool:
    """Return whether an array has gradients."""
    return np.issubdtype(array.dtype, np.floating)
