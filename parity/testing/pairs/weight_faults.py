"""Mistakes in weights: each changes the arrays of one layer, in PyTorch's slots and layout.

They stand for weights that were carried over wrongly, so the two sides are compared as they are.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from parity.frameworks.pairs.plan import Array

Slots = dict[str, Array]
# Arrays of a layer and the layer's settings -> other arrays of it; None where it has no such slots.
WeightChange = Callable[[Slots, Mapping[str, Any], np.random.Generator], Slots | None]


def _kernel_of(slots: Slots) -> tuple[str, Array] | None:
    """Return the largest matrix or filter of a layer."""
    found = {name: array for name, array in slots.items() if array.ndim >= 2}
    if not found:
        return None
    name = max(found, key=lambda key: found[key].size)
    return name, found[name].copy()


def _element_bumped(
    slots: Slots, settings: Mapping[str, Any], generator: np.random.Generator
) -> Slots | None:
    del settings
    kernel = _kernel_of(slots)
    if kernel is None:
        return None
    flat = kernel[1].reshape(-1)
    flat[generator.integers(flat.size)] += 0.05 * float(np.abs(flat).max())
    return {kernel[0]: kernel[1]}


def _element_sign_flipped(
    slots: Slots, settings: Mapping[str, Any], generator: np.random.Generator
) -> Slots | None:
    del settings
    kernel = _kernel_of(slots)
    if kernel is None:
        return None
    flat = kernel[1].reshape(-1)
    index = generator.choice(np.argsort(np.abs(flat))[flat.size // 2 :])
    flat[index] = -flat[index]
    return {kernel[0]: kernel[1]}


def _swapped(array: Array, generator: np.random.Generator, *, axis: int) -> Array | None:
    length = array.shape[axis]
    if length < 2:
        return None
    order = np.arange(length)
    first, second = generator.choice(length, size=2, replace=False)
    order[[first, second]] = order[[second, first]]
    return np.take(array, order, axis=axis)


def _channels_swapped(*, axis: int) -> WeightChange:
    def change(
        slots: Slots, settings: Mapping[str, Any], generator: np.random.Generator
    ) -> Slots | None:
        del settings
        weight = slots.get("weight")
        if weight is None or weight.ndim <= axis:
            return None
        moved = _swapped(weight, generator, axis=axis)
        return None if moved is None else {"weight": moved}

    return change


def _bias_swapped(
    slots: Slots, settings: Mapping[str, Any], generator: np.random.Generator
) -> Slots | None:
    del settings
    moved = _swapped(slots["bias"], generator, axis=0) if "bias" in slots else None
    return None if moved is None else {"bias": moved}


def _of_slots(
    change: Callable[[Slots], Slots], *required: str, when: Callable[[Slots], bool] | None = None
) -> WeightChange:
    """Return a change of layers that have some slots, and of which `when` holds."""

    def apply(
        slots: Slots, settings: Mapping[str, Any], generator: np.random.Generator
    ) -> Slots | None:
        del settings, generator
        fits = all(slot in slots for slot in required) and (when is None or when(slots))
        return change(slots) if fits else None

    return apply


def _is_filter(slots: Slots) -> bool:
    return slots["weight"].ndim == 4


def _is_square_kernel(slots: Slots) -> bool:
    return _is_filter(slots) and slots["weight"].shape[2] == slots["weight"].shape[3] > 1


def _is_square_matrix(slots: Slots) -> bool:
    weight = slots["weight"]
    return weight.ndim == 2 and weight.shape[0] == weight.shape[1]


def _multiples_reordered(
    slots: Slots, settings: Mapping[str, Any], generator: np.random.Generator
) -> Slots | None:
    """Count through the channels for each multiple, not through the multiples for each channel."""
    del generator
    weight, groups = slots.get("weight"), settings.get("groups", 1)
    if weight is None or weight.ndim != 4 or weight.shape[1] != 1 or len(weight) == groups:
        return None
    apart = weight.reshape(groups, -1, *weight.shape[1:])
    return {"weight": apart.swapaxes(0, 1).reshape(weight.shape)}


def _gates_swapped(
    slots: Slots, settings: Mapping[str, Any], generator: np.random.Generator
) -> Slots | None:
    """Swap the first two gates: input and forget, or reset and update."""
    del generator
    if "weight_ih_l0" not in slots:
        return None
    units = settings["units"]
    changed = {}
    for slot in ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"):
        array = slots[slot]
        changed[slot] = np.concatenate(
            [array[units : 2 * units], array[:units], array[2 * units :]]
        )
    return changed


def _directions_swapped(slots: Slots) -> Slots:
    forward = [slot for slot in slots if slot.endswith("_l0")]
    swapped = {slot: slots[f"{slot}_reverse"] for slot in forward}
    return swapped | {f"{slot}_reverse": slots[slot] for slot in forward}


def _query_and_key_swapped(slots: Slots) -> Slots:
    query, key, value = np.split(slots["in_proj_weight"], 3)
    biases = np.split(slots["in_proj_bias"], 3)
    return {
        "in_proj_weight": np.concatenate([key, query, value]),
        "in_proj_bias": np.concatenate([biases[1], biases[0], biases[2]]),
    }


def _key_and_value_swapped(slots: Slots) -> Slots:
    query, key, value = np.split(slots["in_proj_weight"], 3)
    biases = np.split(slots["in_proj_bias"], 3)
    return {
        "in_proj_weight": np.concatenate([query, value, key]),
        "in_proj_bias": np.concatenate([biases[0], biases[2], biases[1]]),
    }


def _heads_interleaved(
    slots: Slots, settings: Mapping[str, Any], generator: np.random.Generator
) -> Slots | None:
    """Count through the heads for each of their features, not the other way round."""
    del generator
    if "in_proj_weight" not in slots:
        return None
    heads = settings["heads"]
    rows = len(slots["out_proj.weight"])
    order = np.arange(rows).reshape(heads, -1).T.reshape(-1)
    rows_of_all = np.concatenate([order + part * rows for part in range(3)])
    return {slot: slots[slot][rows_of_all] for slot in ("in_proj_weight", "in_proj_bias")}


def _rolled(slots: Slots) -> Slots:
    return {"weight": np.roll(slots["weight"], 1, axis=0)}


def _through_half(
    slots: Slots, settings: Mapping[str, Any], generator: np.random.Generator
) -> Slots | None:
    del settings, generator
    kernel = _kernel_of(slots)
    if kernel is None:
        return None
    return {kernel[0]: kernel[1].astype(np.float16).astype(np.float64)}


def _redrawn(
    slots: Slots, settings: Mapping[str, Any], generator: np.random.Generator
) -> Slots | None:
    """Shuffle the values of a layer: as good as weights that were never loaded."""
    del settings
    kernel = _kernel_of(slots)
    if kernel is None:
        return None
    return {kernel[0]: generator.permutation(kernel[1].reshape(-1)).reshape(kernel[1].shape)}


_STATISTICS = ("running_mean", "running_var")

# Kind of fault -> kinds of nodes it acts on (none: any) and the change. Twins' layers have no kind.
WEIGHT_FAULTS: dict[str, tuple[tuple[str, ...], WeightChange]] = {
    "weight_bumped": ((), _element_bumped),
    "weight_sign_flipped": ((), _element_sign_flipped),
    "weights_not_loaded": ((), _redrawn),
    "weights_through_float16": ((), _through_half),
    "output_channels_swapped": (("conv", "dense"), _channels_swapped(axis=0)),
    "input_channels_swapped": (("conv", "dense"), _channels_swapped(axis=1)),
    "bias_swapped": (("conv", "dense", "batch_norm", "layer_norm", "group_norm"), _bias_swapped),
    "bias_zeroed": (
        (),
        _of_slots(lambda slots: {"bias": np.zeros_like(slots["bias"])}, "bias"),
    ),
    "kernel_mirrored": (
        ("conv", "conv_transpose"),
        _of_slots(
            lambda slots: {"weight": slots["weight"][:, :, ::-1, ::-1].copy()},
            "weight",
            when=_is_filter,
        ),
    ),
    "kernel_transposed": (
        ("conv", "conv_transpose"),
        _of_slots(
            lambda slots: {"weight": slots["weight"].swapaxes(2, 3).copy()},
            "weight",
            when=_is_square_kernel,
        ),
    ),
    "matrix_transposed": (
        ("dense",),
        _of_slots(
            lambda slots: {"weight": slots["weight"].T.copy()}, "weight", when=_is_square_matrix
        ),
    ),
    "multiplier_order": (("conv",), _multiples_reordered),
    "statistics_swapped": (
        ("batch_norm",),
        _of_slots(
            lambda slots: {
                "running_mean": slots["running_var"],
                "running_var": slots["running_mean"],
            },
            *_STATISTICS,
            # Another mean would be a root of a negative number.
            when=lambda slots: bool(slots["running_mean"].min() > 1e-3),
        ),
    ),
    "deviation_for_variance": (
        ("batch_norm",),
        _of_slots(lambda slots: {"running_var": np.sqrt(slots["running_var"])}, *_STATISTICS),
    ),
    "statistics_not_loaded": (
        ("batch_norm",),
        _of_slots(
            lambda slots: {
                "running_mean": np.zeros_like(slots["running_mean"]),
                "running_var": np.ones_like(slots["running_var"]),
            },
            *_STATISTICS,
        ),
    ),
    "scale_and_shift_swapped": (
        ("batch_norm", "layer_norm", "group_norm"),
        _of_slots(
            lambda slots: {"weight": slots["bias"], "bias": slots["weight"]},
            "weight",
            "bias",
            when=lambda slots: slots["weight"].ndim == 1,
        ),
    ),
    "scale_not_loaded": (
        ("batch_norm", "layer_norm", "group_norm"),
        _of_slots(
            lambda slots: {"weight": np.ones_like(slots["weight"])},
            "weight",
            when=lambda slots: slots["weight"].ndim == 1,
        ),
    ),
    "gates_swapped": (("lstm", "gru"), _gates_swapped),
    "recurrent_bias_doubled": (
        ("lstm", "gru"),
        _of_slots(
            lambda slots: {"bias_ih_l0": slots["bias_ih_l0"] + slots["bias_hh_l0"]}, "bias_hh_l0"
        ),
    ),
    "recurrent_bias_dropped": (
        ("lstm", "gru"),
        _of_slots(lambda slots: {"bias_hh_l0": np.zeros_like(slots["bias_hh_l0"])}, "bias_hh_l0"),
    ),
    "directions_swapped": (
        ("lstm", "gru"),
        _of_slots(_directions_swapped, "weight_ih_l0_reverse"),
    ),
    "query_and_key_swapped": (("attention",), _of_slots(_query_and_key_swapped, "in_proj_weight")),
    "key_and_value_swapped": (("attention",), _of_slots(_key_and_value_swapped, "in_proj_weight")),
    "heads_interleaved": (("attention",), _heads_interleaved),
    "attention_output_transposed": (
        ("attention",),
        _of_slots(
            lambda slots: {"out_proj.weight": slots["out_proj.weight"].T.copy()}, "out_proj.weight"
        ),
    ),
    "embedding_shifted": (("embedding",), _of_slots(_rolled, "weight")),
    "positions_shifted": (("position",), _of_slots(_rolled, "weight")),
}
