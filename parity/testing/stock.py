"""A framework's stock layer against the reference: outcomes in PyTorch's names and layouts.

Imports numpy, `conversion.layouts` and `parity` only; a `LayerOutcome` comes from either framework.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from conversion.layouts import move_axes, to_keras_layout, to_torch_layout
from parity.frameworks.outcomes import LayerOutcome
from parity.testing.assertions import assert_states_close

Array = NDArray[np.float64]
Arrays = Mapping[str, Array]


def random_array(seed: int, *shape: int) -> Array:
    """Return standard normal numbers, the same for a seed and shape."""
    return np.random.default_rng(seed).standard_normal(shape)


def to_channels_last(array: Array) -> Array:
    """Return `(n, c, h, w)` images as `(n, h, w, c)`; other arrays as they are."""
    return move_axes(array, source="nchw", target="nhwc") if array.ndim == 4 else array


def to_channels_first(array: Array) -> Array:
    """Return `(n, h, w, c)` images as `(n, c, h, w)`; other arrays as they are."""
    return move_axes(array, source="nhwc", target="nchw") if array.ndim == 4 else array


def to_keras_weights(
    kind: str, slots: Arrays, *, sizes: Mapping[str, int] | None = None
) -> dict[str, Array]:
    """Return arrays by slot as a Keras layer class stores them."""
    return dict(to_keras_layout(kind, slot, array, sizes=sizes) for slot, array in slots.items())


def to_torch_outcome(kind: str, outcome: LayerOutcome) -> LayerOutcome:
    """Return what a channels-last Keras layer made, in PyTorch's names and layouts."""
    return LayerOutcome(
        outputs=to_channels_first(outcome.outputs),
        input_gradients=tuple(map(to_channels_first, outcome.input_gradients)),
        parameter_gradients=_to_slots(kind, outcome.parameter_gradients),
        buffers=_to_slots(kind, outcome.buffers),
    )


def assert_outcome_close(actual: LayerOutcome, expected: LayerOutcome, *, bound: float) -> None:
    """Check every array of an outcome to `bound` of the largest value of its quantity.

    Raises:
        DivergenceError: If a quantity differs; begins with its name.
    """
    for quantity, arrays in _quantities(expected).items():
        scale = max((float(np.abs(array).max(initial=0.0)) for array in arrays.values()), default=0)
        assert_states_close(
            _quantities(actual)[quantity], arrays, atol=bound * scale, rtol=bound, where=quantity
        )


def _quantities(outcome: LayerOutcome) -> dict[str, Arrays]:
    gradients = {str(index): array for index, array in enumerate(outcome.input_gradients)}
    return {
        "outputs": {"outputs": outcome.outputs},
        "input gradients": gradients,
        "parameter gradients": outcome.parameter_gradients,
        "buffers": outcome.buffers,
    }


def _to_slots(kind: str, arrays: Arrays) -> dict[str, Array]:
    return dict(to_torch_layout(kind, variable, array) for variable, array in arrays.items())
