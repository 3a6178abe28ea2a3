"""What a file holds against what a model spec asks for: names, shapes, dtypes and values.

Nothing is repaired: whatever does not fit is listed in one error. Imports numpy, `parity.spec` and
`parity.errors` only.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from conversion.keras_groups import group_names
from conversion.layouts import move_shape
from parity.errors import ConversionError, describe_list
from parity.spec.model_spec import ModelSpec

Array = NDArray[Any]
State = dict[str, Array]

# PyTorch's batch norm counts its training batches; no output in eval mode depends on the count.
COUNTER = "num_batches_tracked"

_FLOATS = (np.dtype(np.float32), np.dtype(np.float64))


@dataclass(frozen=True, kw_only=True)
class StoredState:
    """The arrays of a file in PyTorch's layout, named as far as the file names them.

    Attributes:
        arrays: By `layer path.slot name`, or by `group.slot name` where `by_position`.
        by_position: Whether the file says only which place a layer has among those of its class.
        conventions: Fields of `Conventions` that the file states.
    """

    arrays: State
    by_position: bool
    conventions: Mapping[str, Any]

    def named(self, spec: ModelSpec) -> State:
        """Return the arrays by `layer path.slot name`."""
        if not self.by_position:
            return self.arrays
        paths = {group: layer.path for group, layer in group_names(spec).items()}
        named = {}
        for name, array in self.arrays.items():
            group, _, slot = name.rpartition(".")
            named[f"{paths.get(group, group)}.{slot}"] = array
        return named

    def outline(self, layers: Mapping[str, str]) -> State:
        """Return the arrays of some layers, given as group -> layer path, by canonical name."""
        paths = {group if self.by_position else path: path for group, path in layers.items()}
        outline = {}
        for name, array in self.arrays.items():
            owner, _, slot = name.rpartition(".")
            if owner in paths:
                outline[f"{paths[owner]}.{slot}"] = array
        return outline


def checked_state(arrays: Mapping[str, Array], spec: ModelSpec, *, where: str) -> State:
    """Return `arrays` in the order of the spec if they are its state, whole and sound.

    Raises:
        ConversionError: If a slot is missing, unexpected, or of another shape, if an array is
            neither float32 nor float64, or if a value is not finite; all offenders are listed.
    """
    shapes = spec.state_shapes()
    problems = [*_describe_names(arrays, shapes), *_describe_shapes(arrays, shapes)]
    if problems:
        message = (
            f"{where}: {', '.join(problems)}. "
            f"Name the model that the file was saved from, with its number of classes."
        )
        raise ConversionError(message)
    problems = [*_describe_dtypes(arrays), *_describe_values(arrays)]
    if problems:
        message = f"{where}: {' '.join(problems)}"
        raise ConversionError(message)
    return {name: arrays[name] for name in shapes}


def _describe_names(
    arrays: Mapping[str, Array], shapes: Mapping[str, tuple[int, ...]]
) -> list[str]:
    missing = [name for name in shapes if name not in arrays]
    unexpected = [name for name in arrays if name not in shapes]
    problems = []
    if missing:
        problems.append(f"{_count(missing)} missing ({describe_list(missing)})")
    if unexpected:
        problems.append(f"{_count(unexpected)} unexpected ({describe_list(unexpected)})")
    return problems


def _describe_shapes(
    arrays: Mapping[str, Array], shapes: Mapping[str, tuple[int, ...]]
) -> list[str]:
    wrong = [
        describe_shape(name, expected=shape, actual=arrays[name].shape)
        for name, shape in shapes.items()
        if name in arrays and arrays[name].shape != shape
    ]
    return [f"{_count(wrong)} of another shape ({describe_list(wrong)})"] if wrong else []


def describe_shape(name: str, *, expected: tuple[int, ...], actual: tuple[int, ...]) -> str:
    """Return what is wrong with a shape, and which layout it would be right in.

    >>> describe_shape("conv.weight", expected=(64, 32, 3, 3), actual=(3, 3, 32, 64))
    'conv.weight: expected (64, 32, 3, 3), got (3, 3, 32, 64) which looks like hwio'
    """
    text = f"{name}: expected {expected}, got {actual}"
    for keras_axes, torch_axes in (("hwio", "oihw"), ("io", "oi")):
        if len(expected) == len(keras_axes):
            in_keras = move_shape(expected, source=torch_axes, target=keras_axes)
            return f"{text} which looks like {keras_axes}" if actual == in_keras else text
    return text


def _describe_dtypes(arrays: Mapping[str, Array]) -> list[str]:
    wrong = [
        f"{name} {array.dtype}" for name, array in arrays.items() if array.dtype not in _FLOATS
    ]
    if not wrong:
        return []
    listed = f"{_count(wrong)} of another dtype ({describe_list(wrong)})"
    return [f"expected float32 or float64; {listed}. Save the model in float32 first."]


def _describe_values(arrays: Mapping[str, Array]) -> list[str]:
    wrong = []
    for name, array in arrays.items():
        if array.dtype in _FLOATS and not np.isfinite(array).all():
            bad = int(np.count_nonzero(~np.isfinite(array)))
            wrong.append(f"{name} {bad} of {array.size}")
    if not wrong:
        return []
    listed = f"{_count(wrong)} with NaN or infinity ({describe_list(wrong)})"
    return [
        f"expected finite values; {listed}. Take a checkpoint from before the training diverged."
    ]


def _count(names: list[str]) -> str:
    return f"{len(names)} slot" if len(names) == 1 else f"{len(names)} slots"
