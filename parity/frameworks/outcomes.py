"""What a single layer did with given arrays, in any framework."""

from dataclasses import dataclass

from parity.frameworks.net import Array, State


@dataclass(frozen=True, kw_only=True)
class LayerOutcome:
    """One forward and backward pass of a layer.

    Attributes:
        outputs: What it returned.
        input_gradients: Of `sum(outputs * d_outputs)`, one for each input of floats, in order.
        parameter_gradients: Of each trained array, by the framework's own name.
        buffers: Every other array after the call, by the framework's own name.
    """

    outputs: Array
    input_gradients: tuple[Array, ...]
    parameter_gradients: State
    buffers: State
