"""The arrays of an attention that a model writes out by hand, and those of PyTorch's layer.

Both ways are choices of rows and columns, turned where a framework keeps its kernels so.
"""

from collections.abc import Mapping

import numpy as np

from conversion.layouts import letters_of
from parity.compare.attention import OUTPUT, PARTS
from parity.errors import ConversionError
from parity.frameworks.program import Array, Operation, State


def to_layer(written: Operation, arrays: Mapping[str, Array]) -> State:
    """Return what PyTorch's layer holds, by its names, of an attention written out.

    Args:
        written: The operation that stands for it.
        arrays: By its slots.

    Raises:
        ConversionError: If some of its projections have biases and others none.
    """
    rows, columns = written.attributes["rows"], written.attributes["columns"]
    _check_biases(written)
    made: State = {}
    for part, (key, order) in rows.items():
        made[f"{part[0]}_proj_weight"] = _oriented(written, arrays, key)[order]
    output = _oriented(written, arrays, OUTPUT)
    made["out_proj.weight"] = np.empty_like(output)
    made["out_proj.weight"][:, columns] = output
    if f"{OUTPUT}.bias" in written.weights:
        biases = [arrays[f"{key}.bias"][order] for key, order in rows.values()]
        made["in_proj_bias"] = np.concatenate(biases)
        made["out_proj.bias"] = arrays[f"{OUTPUT}.bias"]
    matrices = [made[f"{part[0]}_proj_weight"] for part in PARTS]
    if len({matrix.shape for matrix in matrices}) > 1:
        return made
    packed = {"in_proj_weight": np.concatenate(matrices)}
    return packed | {name: array for name, array in made.items() if "_proj_weight" not in name}


def from_layer(written: Operation, slots: Mapping[str, Array]) -> State:
    """Return the arrays of an attention written out, by its slots, from those of PyTorch's layer.

    Args:
        written: The operation that stands for it.
        slots: By PyTorch's names.

    Raises:
        ConversionError: If some of its projections have biases and others none.
    """
    rows, columns = written.attributes["rows"], written.attributes["columns"]
    _check_biases(written)
    if "in_proj_weight" in slots:
        matrices = np.split(slots["in_proj_weight"], len(PARTS))
    else:
        matrices = [slots[f"{part[0]}_proj_weight"] for part in PARTS]
    has_biases = "in_proj_bias" in slots
    cuts = np.cumsum([len(matrix) for matrix in matrices[:-1]])
    biases = np.split(slots["in_proj_bias"], cuts) if has_biases else [None] * len(PARTS)
    counts: dict[str, int] = {}
    for key, order in rows.values():
        counts[key] = counts.get(key, 0) + len(order)
    made: State = {}
    for (key, order), matrix, bias in zip(rows.values(), matrices, biases, strict=True):
        whole = made.setdefault(
            f"{key}.weight", np.empty((counts[key], matrix.shape[1]), matrix.dtype)
        )
        whole[order] = matrix
        if bias is not None and f"{key}.bias" in written.weights:
            made.setdefault(f"{key}.bias", np.empty(counts[key], bias.dtype))[order] = bias
    made[f"{OUTPUT}.weight"] = slots["out_proj.weight"][:, columns]
    if has_biases and f"{OUTPUT}.bias" in written.weights:
        made[f"{OUTPUT}.bias"] = slots["out_proj.bias"]
    return {slot: _turned(written, slot, array) for slot, array in made.items()}


def _check_biases(written: Operation) -> None:
    keys = {slot.partition(".")[0] for slot in written.weights}
    without = sorted(key for key in keys if f"{key}.bias" not in written.weights)
    if without and len(without) < len(keys):
        message = (
            f"{written.name}: expected biases in all projections of an attention or in none; "
            f"got none in {len(without)} of {len(keys)}."
        )
        raise ConversionError(message)


def _oriented(written: Operation, arrays: Mapping[str, Array], key: str) -> Array:
    return _turned(written, f"{key}.weight", arrays[f"{key}.weight"])


def _turned(written: Operation, slot: str, array: Array) -> Array:
    """Return a matrix in the other of PyTorch's order of axes and its own."""
    layout = written.layouts.get(slot, "")
    return array.T.copy() if letters_of(layout)[:1] == ["i"] else array
