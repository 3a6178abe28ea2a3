"""Seeded faults: small wrong changes that a check must catch, on arrays and on specs.

A fault returns a changed copy. One that would change nothing, such as swapping equal channels, is
refused: a check that passes it has caught nothing. Imports numpy, `parity.errors`, `parity.rng` and
`parity.spec` only.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from parity.errors import SpecError, describe_nearest
from parity.rng import stream
from parity.spec.conventions import Conventions
from parity.spec.losses import LossSpec
from parity.spec.optimizers import OptimizerSpec

Array = NDArray[Any]
ArrayFault = Callable[[Array, np.random.Generator], Array]
SpecType = TypeVar("SpecType", Conventions, OptimizerSpec, LossSpec)
Change = Callable[[Any], Any]

_RELATIVE_BUMP = 1e-3


def _bump_element(array: Array, generator: np.random.Generator) -> Array:
    flat = array.reshape(-1)
    index = int(generator.integers(flat.size))
    flat[index] += _RELATIVE_BUMP * max(float(np.abs(flat).max()), 1.0)
    return array


def _flip_element_sign(array: Array, generator: np.random.Generator) -> Array:
    flat = array.reshape(-1)
    index = int(generator.choice(np.flatnonzero(flat)))
    flat[index] = -flat[index]
    return array


def _swap_channels(array: Array, generator: np.random.Generator) -> Array:
    first, second = generator.choice(array.shape[0], size=2, replace=False)
    array[[first, second]] = array[[second, first]]
    return array


def _transpose_square(array: Array, generator: np.random.Generator) -> Array:
    del generator
    return np.ascontiguousarray(array.swapaxes(0, 1))


def _mirror_kernel(array: Array, generator: np.random.Generator) -> Array:
    del generator
    return np.ascontiguousarray(array[..., ::-1, ::-1])


ARRAY_FAULTS: dict[str, ArrayFault] = {
    "element_bumped": _bump_element,
    "element_sign_flipped": _flip_element_sign,
    "sign_flipped": lambda array, _: -array,
    "scaled": lambda array, _: array * (1.0 + _RELATIVE_BUMP),
    "zeroed": lambda array, _: np.zeros_like(array),
    "channels_swapped": _swap_channels,
    "square_transposed": _transpose_square,
    "kernel_mirrored": _mirror_kernel,
    "through_float16": lambda array, _: array.astype(np.float16).astype(array.dtype),
}

# Fault -> field and change.
CONVENTION_FAULTS: dict[str, tuple[str, Change]] = {
    "conv_bias_flipped": ("conv_bias", lambda value: not value),
    "stats_decay_swapped": ("stats_decay", lambda value: 1.0 - value),
    "stats_decay_off": ("stats_decay", lambda value: value + 0.01 * (1.0 - value)),
    "bn_variance_correction_flipped": ("bn_variance_correction", lambda value: 1 - value),
    "bn_epsilon_off": ("bn_epsilon", lambda value: value * 1.001),
    "bn_epsilon_tenfold": ("bn_epsilon", lambda value: value * 10.0),
    "stride_offset_flipped": (
        "stride_offset",
        lambda value: "end" if value == "start" else "start",
    ),
}
OPTIMIZER_FAULTS: dict[str, tuple[str, Change]] = {
    "lr_off": ("lr", lambda value: value * (1.0 + 1e-9)),
    "lr_through_float32": ("lr", lambda value: float(np.float32(value))),
    "l2_off": ("l2", lambda value: value * 1.002),
    "l2_missing": ("l2", lambda value: value * 0.0),
    "decoupled_decay_off": ("decoupled_decay", lambda value: value * 1.002),
    "decoupled_decay_missing": ("decoupled_decay", lambda value: value * 0.0),
    "decay_scaling_flipped": ("decay_scaled_by_lr", lambda value: not value),
    "momentum_through_float32": ("momentum", lambda value: float(np.float32(value))),
    "nesterov_flipped": ("nesterov", lambda value: not value),
    "velocity_form_flipped": ("velocity_holds_lr", lambda value: not value),
    "beta1_through_float32": ("beta1", lambda value: float(np.float32(value))),
    "beta2_through_float32": ("beta2", lambda value: float(np.float32(value))),
    "epsilon_off": ("epsilon", lambda value: value * 1.001),
    "epsilon_placement_flipped": (
        "epsilon_placement",
        lambda value: "uncorrected" if value == "corrected" else "corrected",
    ),
}
LOSS_FAULTS: dict[str, tuple[str, Change]] = {
    "label_smoothing_missing": ("label_smoothing", lambda value: value * 0.0),
    "label_smoothing_off": ("label_smoothing", lambda value: value * 1.001),
    "smoothing_form_flipped": (
        "smoothing_form",
        lambda value: "towards_half" if value == "over_classes" else "over_classes",
    ),
    "binarizing_missing": ("binarized", lambda _: False),
    "binarizing_added": ("binarized", lambda _: True),
    "target_threshold_off": ("target_threshold", lambda value: value * 1.1),
    "consistency_weight_missing": ("consistency_weight", lambda value: value * 0.0),
    "consistency_weight_off": ("consistency_weight", lambda value: value * 1.001),
    "consistency_weight_halved": ("consistency_weight", lambda value: value / 2.0),
    "loss_reduction_flipped": (
        "reduction",
        lambda value: "sum" if value == "mean" else "mean",
    ),
}
SPEC_FAULTS = CONVENTION_FAULTS | OPTIMIZER_FAULTS | LOSS_FAULTS

_Row = TypeVar("_Row")


def _fault(name: str, table: dict[str, _Row]) -> _Row:
    if name not in table:
        message = f"fault {name!r} not found.{describe_nearest(name, table)}"
        raise SpecError(message)
    return table[name]


def seed_array_fault(name: str, array: ArrayLike, *, seed: int = 0) -> Array:
    """Return a copy of the array with that fault of `ARRAY_FAULTS`, of the same shape and dtype.

    Raises:
        SpecError: If there is no such fault, or it cannot change this array.
    """
    original = np.asarray(array)
    fault = _fault(name, ARRAY_FAULTS)
    try:
        faulty = fault(original.copy(), stream(seed, "fault", name))
    except (ValueError, IndexError, TypeError) as error:
        message = f"fault {name!r} does not apply to an array of shape {original.shape}: {error}."
        raise SpecError(message) from error
    same_kind = faulty.shape == original.shape and faulty.dtype == original.dtype
    if not same_kind or np.array_equal(faulty, original, equal_nan=True):
        message = f"fault {name!r} does not apply to an array of shape {original.shape}."
        raise SpecError(message)
    return faulty


def seed_spec_fault(name: str, spec: SpecType) -> SpecType:
    """Return the conventions, update rule or loss with that fault of `SPEC_FAULTS`.

    Raises:
        SpecError: If there is no such fault, or it cannot change this spec.
    """
    field, change = _fault(name, SPEC_FAULTS)
    if field not in {entry.name for entry in dataclasses.fields(spec)}:
        message = f"fault {name!r} does not apply: {type(spec).__name__} has no field {field!r}."
        raise SpecError(message)
    value = getattr(spec, field)
    if change(value) == value:
        message = f"fault {name!r} does not apply: it leaves {field} = {value!r} as it is."
        raise SpecError(message)
    return dataclasses.replace(spec, **{field: change(value)})


# Every fault by name, as a function of an array or of a spec.
FAULTS: dict[str, Callable[[Any], Any]] = {
    **{name: functools.partial(seed_array_fault, name) for name in ARRAY_FAULTS},
    **{name: functools.partial(seed_spec_fault, name) for name in SPEC_FAULTS},
}
