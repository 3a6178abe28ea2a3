"""PyTorch checkpoints (`.pt`, `.pth`): a state_dict, read without running pickled code."""

import importlib
import io
import pickle
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from conversion.files import describe_content, starts_with
from conversion.formats.format import Format
from conversion.formats.state_dicts import canonical_names, registration_order
from conversion.states import COUNTER, State, StoredState
from parity import runtime
from parity.errors import ConversionError, describe_list
from parity.spec.model_spec import ModelSpec

# Keys under which training scripts nest the state_dict.
WRAPPERS = ("state_dict", "model")

_ZIP = b"PK\x03\x04"
# A pickle of protocol 2 or later: what torch.save wrote before PyTorch 1.6.
_PICKLE = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")

_EXPORT = "Export it with torch.save(model.state_dict(), path), or as safetensors."


def _import_torch() -> ModuleType:
    runtime.require_framework("torch", extra="torch")
    return importlib.import_module("torch")


def read(path: Path) -> StoredState:
    """Return the state_dict of a checkpoint, taken out of a `state_dict` or `model` wrapper.

    Raises:
        ConversionError: If the file is no PyTorch checkpoint, needs code to load, or holds
            something else than one state_dict.
    """
    if not starts_with(path, _ZIP, *_PICKLE):
        message = f"{path}: expected a PyTorch checkpoint (zip); {describe_content(path)}."
        raise ConversionError(message)
    torch = _import_torch()
    content = _load(torch, path)
    tensors = canonical_names(_unwrapped(torch, content, path=path))
    return StoredState(
        arrays=_as_arrays(torch, tensors, path=path), by_position=False, conventions={}
    )


def _load(torch: ModuleType, path: Path) -> object:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        message = f"{path}: loading it would run code, so it is refused. {_EXPORT}"
        raise ConversionError(message) from error
    except Exception as error:
        message = _describe_unreadable(path, error)
        raise ConversionError(message) from error


def _describe_unreadable(path: Path, error: Exception) -> str:
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
        if any(name.endswith("constants.pkl") for name in names):
            return f"{path}: expected a state_dict; got a TorchScript program. {_EXPORT}"
        if not any(name.endswith("data.pkl") for name in names):
            return f"{path}: expected a PyTorch checkpoint; got another zip archive."
    return (
        f"{path}: expected a whole PyTorch checkpoint; {describe_content(path)}. "
        f"It is truncated or damaged ({type(error).__name__})."
    )


def _unwrapped(torch: ModuleType, content: object, *, path: Path) -> Mapping[str, Any]:
    found = content
    if isinstance(content, Mapping):
        wrapped = [key for key in WRAPPERS if isinstance(content.get(key), Mapping)]
        if len(wrapped) > 1:
            message = f"{path}: expected one state_dict; got {' and '.join(wrapped)}. {_EXPORT}"
            raise ConversionError(message)
        found = content[wrapped[0]] if wrapped else content
    if not isinstance(found, Mapping) or not found:
        message = f"{path}: expected a state_dict; got {_describe_object(found)}. {_EXPORT}"
        raise ConversionError(message)
    others = [str(key) for key, value in found.items() if not isinstance(value, torch.Tensor)]
    if others:
        message = (
            f"{path}: expected a state_dict of tensors; got {len(others)} other entries "
            f"({describe_list(others)}). {_EXPORT}"
        )
        raise ConversionError(message)
    return {str(key): value for key, value in found.items()}


def _describe_object(found: object) -> str:
    return "an empty dict" if isinstance(found, Mapping) else type(found).__name__


def _as_arrays(torch: ModuleType, tensors: Mapping[str, Any], *, path: Path) -> State:
    arrays, refused = {}, []
    for name, tensor in tensors.items():
        if tensor.layout is not torch.strided or tensor.is_quantized or tensor.device.type != "cpu":
            refused.append(f"{name} {tensor.layout}")
        elif tensor.dtype in (torch.bfloat16, torch.complex32):
            refused.append(f"{name} {str(tensor.dtype).removeprefix('torch.')}")
        else:
            arrays[name] = np.array(tensor.detach().numpy(), order="C", copy=True)
    if refused:
        message = (
            f"{path}: expected dense float32 or float64 tensors; got {describe_list(refused)}. "
            "Save the model in float32 first."
        )
        raise ConversionError(message)
    return arrays


def encode(state: State, spec: ModelSpec) -> bytes:
    """Return a plain state_dict in PyTorch's order; batch counters are 0, for they are unknown."""
    torch = _import_torch()
    tensors = {}
    for name in registration_order(state, spec):
        if name.rpartition(".")[2] == COUNTER:
            tensors[name] = torch.tensor(0, dtype=torch.int64)
        else:
            tensors[name] = torch.from_numpy(state[name].copy())
    buffer = io.BytesIO()
    torch.save(tensors, buffer)
    return buffer.getvalue()


FORMAT = Format(
    name="PyTorch checkpoint",
    suffixes=(".pt", ".pth"),
    framework="torch",
    read=read,
    encode=encode,
)
