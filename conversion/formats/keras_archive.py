"""Keras 3 model archives (`.keras`): read as data; Keras itself only writes them.

An archive is a zip of `config.json` (the layers in order, with names and classes) and
`model.weights.h5`. Nothing in the config is built or called.
"""

import io
import json
import os
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py

from conversion.files import describe_content, starts_with
from conversion.formats.format import Format
from conversion.formats.keras_weights import (
    StoredLayer,
    by_owner,
    dotted_name,
    read_layers,
    refuse_repeated,
)
from conversion.keras_groups import GROUP_STEMS, keras_class, numbered_groups
from conversion.layouts import to_keras_layout
from conversion.states import State, StoredState
from parity import runtime
from parity.errors import ConversionError, describe_list
from parity.spec.model_spec import ModelSpec
from parity.spec.paths import keras_name

CONFIG = "config.json"
WEIGHTS = "model.weights.h5"

# Classes without arrays that the models of the spec are made of; `Gelu` and `Scale` are the twins'.
WEIGHTLESS = frozenset(
    {
        "Activation", "Add", "AveragePooling2D", "Flatten", "Gelu", "GlobalAveragePooling2D",
        "InputLayer", "MaxPooling2D", "ReLU", "Rescaling", "Scale", "ZeroPadding2D",
    }
)  # fmt: skip

_ZIP = b"PK\x03\x04"

# Keras stores the members of an archive uncompressed.
_LARGEST_EXPANSION = 100


def read(path: Path) -> StoredState:
    """Return the arrays of an archive by layer name, and the conventions its config states.

    Raises:
        ConversionError: If the file is no Keras archive, or holds a layer of an unknown class.
    """
    if not starts_with(path, _ZIP):
        message = f"{path}: expected a Keras archive (zip); {describe_content(path)}."
        raise ConversionError(message)
    config, weights = _read_members(path)
    entries = _layer_entries(config, where=str(path))
    layers = _read_weights(weights, path=path)
    names = _names_by_group(entries, layers, where=str(path))
    return StoredState(
        arrays=by_owner(layers, names),
        by_position=False,
        conventions=_stated_conventions(entries, where=str(path)),
    )


def _read_members(path: Path) -> tuple[bytes, bytes]:
    try:
        with zipfile.ZipFile(path) as archive:
            missing = [name for name in (CONFIG, WEIGHTS) if name not in archive.namelist()]
            if missing:
                message = f"{path}: expected a Keras archive; it holds no {describe_list(missing)}."
                raise ConversionError(message)
            return _member(archive, CONFIG, path=path), _member(archive, WEIGHTS, path=path)
    except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError, RuntimeError) as error:
        message = (
            f"{path}: expected a whole Keras archive; {describe_content(path)}. "
            f"It is truncated or damaged ({type(error).__name__})."
        )
        raise ConversionError(message) from error


def _member(archive: zipfile.ZipFile, name: str, *, path: Path) -> bytes:
    size = archive.getinfo(name).file_size
    if size > _LARGEST_EXPANSION * path.stat().st_size:
        message = f"{path}: expected {name} no larger than its archive; got {size} bytes."
        raise ConversionError(message)
    return archive.read(name)


def _layer_entries(content: bytes, *, where: str) -> list[Mapping[str, Any]]:
    try:
        config = json.loads(content)
        entries = config["config"]["layers"]
        kinds = {str(entry["config"]["name"]): str(entry["class_name"]) for entry in entries}
    except (ValueError, KeyError, TypeError) as error:
        message = f"{where}: expected a functional or sequential model in {CONFIG}; got another."
        raise ConversionError(message) from error
    unknown = [f"{name} ({kind})" for name, kind in kinds.items() if not _is_known(kind)]
    if unknown:
        message = (
            f"{where}: expected layers of known classes; got {describe_list(unknown)}. "
            "Rebuild the model without them and save its weights."
        )
        raise ConversionError(message)
    return list(entries)


def _is_known(kind: str) -> bool:
    return kind in GROUP_STEMS or kind in WEIGHTLESS


def _read_weights(content: bytes, *, path: Path) -> list[StoredLayer]:
    where = f"{path}: {WEIGHTS}"
    try:
        with h5py.File(io.BytesIO(content), "r") as file:
            return read_layers(file, where=where, file_bytes=len(content))
    except (OSError, RuntimeError, KeyError) as error:
        message = f"{where}: expected a whole HDF5 file; it is damaged ({type(error).__name__})."
        raise ConversionError(message) from error


def _names_by_group(
    entries: list[Mapping[str, Any]], layers: list[StoredLayer], *, where: str
) -> dict[str, str]:
    weighted = [entry for entry in entries if entry["class_name"] in GROUP_STEMS]
    groups = numbered_groups([entry["class_name"] for entry in weighted])
    in_config = [str(entry["config"]["name"]) for entry in weighted]
    names = dict(zip(groups, in_config, strict=True))
    refuse_repeated(in_config, where=where)
    wrong = [
        f"{layer.group} {layer.name or 'unnamed'!r} for {names.get(layer.group, 'nothing')!r}"
        for layer in layers
        if layer.group not in names or layer.name not in ("", names[layer.group])
    ]
    if wrong:
        message = f"{where}: expected {WEIGHTS} to follow {CONFIG}; got {describe_list(wrong)}."
        raise ConversionError(message)
    return {group: dotted_name(name) for group, name in names.items()}


def _stated_conventions(entries: list[Mapping[str, Any]], *, where: str) -> dict[str, Any]:
    norms = [e["config"] for e in entries if e["class_name"] == "BatchNormalization"]
    strided = [
        e["config"] for e in entries if e["class_name"] == "Conv2D" and _starts_off_centre(e)
    ]
    found = {
        "bn_epsilon": {norm.get("epsilon") for norm in norms},
        "stats_decay": {norm.get("momentum") for norm in norms},
        "stride_offset": {"end" if c.get("padding") == "same" else "start" for c in strided},
    }
    mixed = [f"{field} {sorted(map(str, v))}" for field, v in found.items() if len(v) > 1]
    if mixed:
        message = f"{where}: expected one value in all layers; got {describe_list(mixed)}."
        raise ConversionError(message)
    return {field: values.pop() for field, values in found.items() if values}


def _starts_off_centre(entry: Mapping[str, Any]) -> bool:
    """Return whether a convolution is one whose first pixel depends on the framework."""
    strides, kernel = entry["config"].get("strides"), entry["config"].get("kernel_size")
    return strides not in ([1, 1], 1) and kernel not in ([1, 1], 1)


def encode(state: State, spec: ModelSpec) -> bytes:
    """Return the bytes of an archive of stock layers that `keras.models.load_model` opens.

    Raises:
        ConversionError: If the state mixes precisions, which one Keras model cannot hold.
        MissingFrameworkError: If Keras is not installed.
    """
    precisions = sorted({str(array.dtype) for array in state.values()})
    if len(precisions) > 1:
        message = (
            f"writing .keras: expected arrays of one precision; got {describe_list(precisions)}."
        )
        raise ConversionError(message)
    runtime.select_keras_backend(None)
    with runtime.precision(precisions[0]), tempfile.TemporaryDirectory() as folder:
        from models_keras import inference_model

        model = inference_model(spec)
        for layer in (layer for layer in spec.layers() if layer.slots()):
            keras_layer = model.get_layer(keras_name(layer.path))
            for slot in layer.slots():
                array = state[f"{layer.path}.{slot.name}"]
                variable, moved = to_keras_layout(keras_class(layer), slot.name, array)
                getattr(keras_layer, variable).assign(moved)
        path = Path(folder) / "model.keras"
        model.save(os.fspath(path))
        return path.read_bytes()


FORMAT = Format(
    name="Keras archive",
    suffixes=(".keras",),
    framework="keras",
    read=read,
    encode=encode,
)
