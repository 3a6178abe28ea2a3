"""Safetensors files (`.safetensors`): canonical names and PyTorch's layout, without a framework."""

from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from conversion.files import describe_content
from conversion.formats.format import Format
from conversion.formats.state_dicts import canonical_names, registration_order
from conversion.states import COUNTER, State, StoredState
from parity.errors import ConversionError, describe_list
from parity.spec.model_spec import ModelSpec

_FLOATS = ("F32", "F64")


def read(path: Path) -> StoredState:
    """Return the arrays of a file.

    Raises:
        ConversionError: If the file is no safetensors file, or holds arrays that are neither
            float32 nor float64.
    """
    try:
        with safetensors.safe_open(path, framework="np") as file:
            arrays = _read_floats(file, path=path)
    except safetensors.SafetensorError as error:
        message = f"{path}: expected a whole safetensors file; {describe_content(path)}. ({error})"
        raise ConversionError(message) from error
    return StoredState(arrays=arrays, by_position=False, conventions={})


def _read_floats(file: Any, *, path: Path) -> State:  # noqa: ANN401  # safetensors is untyped
    stored = canonical_names({name: name for name in file.keys()})  # noqa: SIM118  # not a dict
    dtypes = {name: file.get_slice(key).get_dtype() for name, key in stored.items()}
    wrong = [f"{name} {dtype}" for name, dtype in dtypes.items() if dtype not in _FLOATS]
    if wrong:
        message = (
            f"{path}: expected float32 or float64 arrays; got {describe_list(wrong)}. "
            "Save the model in float32 first."
        )
        raise ConversionError(message)
    return {name: file.get_tensor(key) for name, key in stored.items()}


def encode(state: State, spec: ModelSpec) -> bytes:
    """Return the bytes of a file; `format` tells other readers that the layout is PyTorch's."""
    names = [n for n in registration_order(state, spec) if n.rpartition(".")[2] != COUNTER]
    # safetensors 0.8.0 writes the memory of an array, whatever its strides.
    arrays = {name: np.ascontiguousarray(state[name]) for name in names}
    content: bytes = safetensors.numpy.save(arrays, metadata={"format": "pt"})
    return content


FORMAT = Format(
    name="safetensors file",
    suffixes=(".safetensors",),
    framework="torch",
    read=read,
    encode=encode,
)
