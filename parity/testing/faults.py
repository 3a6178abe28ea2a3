"""Seeded faults: small wrong changes that a check must catch, on arrays and on specs.

A fault returns a changed copy. One that would change nothing, such as swapping equal channels, is
refused: a check that passes it has caught nothing. Imports numpy, `parity.errors`, `parity.rng` and
`parity.spec` only.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from parity.errors import SpecError, describe_nearest
from parity.rng import stream
from parity.spec.conventions import Conventions
from parity.spec.losses import LossSpec
from parity.spec.optimizers import Group, GroupSchedule, NoClipping, OptimizerForm, Update

Array = NDArray[Any]
ArrayFault = Callable[[Array, np.random.Generator], Array]
SpecType = TypeVar("SpecType", Conventions, OptimizerForm, LossSpec)
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

_OTHER_PLACEMENT = {
    "corrected": "uncorrected",
    "uncorrected": "corrected",
    "outside": "inside",
    "inside": "outside",
}
_OTHER_MEMBERS = {
    "filters": "filters_and_matrices",
    "matrices": "filters_and_matrices",
    "filters_and_matrices": "filters",
}
_OTHER_SCALE = {"none": "tall", "tall": "rms", "rms": "tall"}
_OTHER_SCOPE = {"global_norm": "tensor_norm", "tensor_norm": "global_norm"}
_OTHER_START = {"initial_weights": "first_move", "first_move": "initial_weights"}

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
    "epsilon_placement_flipped": ("epsilon_placement", _OTHER_PLACEMENT.__getitem__),
    "l2_in_loss_flipped": ("l2_in_loss", lambda value: not value),
    "dampening_off": ("dampening", lambda value: value * 1.002),
    "dampening_missing": ("dampening", lambda value: value * 0.0),
    "amsgrad_flipped": ("amsgrad", lambda value: not value),
    "square_decay_through_float32": ("square_decay", lambda value: float(np.float32(value))),
    "centered_flipped": ("centered", lambda value: not value),
    "initial_accumulator_off": ("initial_accumulator", lambda value: value * 1.001),
    "rate_decay_off": ("rate_decay", lambda value: value * 1.001),
    "final_rate_off": ("final_rate", lambda value: value * 1.001),
    "gamma_off": ("gamma", lambda value: value * 1.001),
    "amsbound_flipped": ("amsbound", lambda value: not value),
    "decay_in_ratio_flipped": ("decay_in_ratio", lambda value: not value),
    "adapts_undecayed_flipped": ("adapts_undecayed", lambda value: not value),
    "greatest_ratio_off": ("greatest_ratio", lambda value: value * 1.001),
    "trust_coefficient_off": ("trust_coefficient", lambda value: value * (1.0 + 1e-9)),
    "norm_epsilon_off": ("norm_epsilon", lambda value: value * 1.5),
    "least_norm_off": ("least_norm", lambda value: value * 1e3),
    "velocity_averages_flipped": ("velocity_averages", lambda value: not value),
    "members_other": ("members", _OTHER_MEMBERS.__getitem__),
    "iterations_off": ("iterations", lambda value: value + 1),
    "norm_clamped_flipped": ("norm_clamped", lambda value: not value),
    "orthogonalized_in_bfloat16": ("orthogonalizes_in", lambda _: "bfloat16"),
    "scale_other": ("scale", _OTHER_SCALE.__getitem__),
    "rms_rate_off": ("rms_rate", lambda value: value * (1.0 + 1e-9)),
    "renormalizes_flipped": ("renormalizes", lambda value: not value),
    "others_off": ("others", lambda rule: dataclasses.replace(rule, lr=rule.lr * 1.001)),
}
# Of the form in which a recipe may state SGD; the rule that it gives has the faults above.
KILOSTEP_FAULTS: dict[str, tuple[str, Change]] = {
    "lr_per_kilostep_off": ("lr_per_kilostep", lambda value: value * (1.0 + 1e-9)),
    "decay_per_kilostep_off": ("decay_per_kilostep", lambda value: value * 1.002),
    "decay_per_kilostep_missing": ("decay_per_kilostep", lambda value: value * 0.0),
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
SPEC_FAULTS = CONVENTION_FAULTS | OPTIMIZER_FAULTS | KILOSTEP_FAULTS | LOSS_FAULTS


def _changed(field: str, change: Change) -> Change:
    """Return a change of one field of a spec that has it."""

    def apply(spec: Any) -> Any:  # noqa: ANN401  # clipping, averaging or group
        if not hasattr(spec, field):
            message = f"{type(spec).__name__} has no field {field!r}."
            raise SpecError(message)
        return dataclasses.replace(spec, **{field: change(getattr(spec, field))})

    return apply


def _of_first_group(change: Change) -> Change:
    """Return a change of the first group that it makes another."""

    def apply(groups: tuple[Group, ...]) -> tuple[Group, ...]:
        for index, group in enumerate(groups):
            if change(group) != group:
                return (*groups[:index], change(group), *groups[index + 1 :])
        return groups

    return apply


def _trained_to_the_end(group: Group) -> Group:
    return dataclasses.replace(group, trained_epochs=math.inf, schedule="shared")


def _other_schedule(group: Group) -> Group:
    if group.trained_epochs == math.inf:
        return group
    other: GroupSchedule = "shared" if group.schedule == "linear_to_end" else "linear_to_end"
    return dataclasses.replace(group, schedule=other)


# Fault -> part of an `Update`, and change of that part.
UPDATE_FAULTS: dict[str, tuple[str, Change]] = {
    "clipping_removed": ("clipping", lambda _: NoClipping()),
    "clipping_limit_off": ("clipping", _changed("limit", lambda value: value * (1.0 + 1e-9))),
    "clipping_epsilon_off": ("clipping", _changed("epsilon", lambda value: value * 1.001)),
    "clipping_scope_flipped": (
        "clipping",
        _changed("kind", lambda kind: _OTHER_SCOPE.get(kind, kind)),
    ),
    "groups_removed": ("groups", lambda _: ()),
    "group_members_other": (
        "groups",
        _of_first_group(_changed("members", lambda value: "bias" if value != "bias" else "norm")),
    ),
    "group_lr_factor_off": (
        "groups",
        _of_first_group(_changed("lr_factor", lambda value: value * (1.0 + 1e-9))),
    ),
    "group_decay_factor_off": (
        "groups",
        _of_first_group(_changed("decay_factor", lambda value: value + 0.002)),
    ),
    "group_trained_on": ("groups", _of_first_group(_trained_to_the_end)),
    "group_end_off": (
        "groups",
        _of_first_group(_changed("trained_epochs", lambda value: value * 0.75)),
    ),
    "group_schedule_flipped": ("groups", _of_first_group(_other_schedule)),
    "average_decay_off": ("averaging", _changed("decay", lambda value: value * (1.0 - 1e-9))),
    "average_period_off": ("averaging", _changed("every", lambda value: value + 1)),
    "average_start_flipped": ("averaging", _changed("starts_at", _OTHER_START.__getitem__)),
    "slow_rate_off": ("averaging", _changed("slow_rate", lambda value: value * (1.0 - 1e-9))),
    "average_power_off": ("averaging", _changed("power", lambda value: value * (1.0 + 1e-9))),
}

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
    """Return the conventions, update rule, form of it or loss with that fault of `SPEC_FAULTS`.

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


def seed_update_fault(name: str, update: Update) -> Update:
    """Return the update with that fault of `UPDATE_FAULTS`.

    Raises:
        SpecError: If there is no such fault, or it cannot change this update.
    """
    part, change = _fault(name, UPDATE_FAULTS)
    present = getattr(update, part)
    changed = change(present)
    if changed == present:
        message = f"fault {name!r} does not apply: it leaves {part} = {present!r} as it is."
        raise SpecError(message)
    return dataclasses.replace(update, **{part: changed})


# Every fault by name, as a function of an array or of a spec.
FAULTS: dict[str, Callable[[Any], Any]] = {
    **{name: functools.partial(seed_array_fault, name) for name in ARRAY_FAULTS},
    **{name: functools.partial(seed_spec_fault, name) for name in SPEC_FAULTS},
    **{name: functools.partial(seed_update_fault, name) for name in UPDATE_FAULTS},
}
