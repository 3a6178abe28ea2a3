"""Keras 3 weights files (`.weights.h5`), read and written as HDF5 data without Keras.

A layer's arrays lie under `layers/<group>/vars/<index>`, index in the order the layer made them;
since Keras 3.10 an attribute of `vars` holds the layer's name.
"""

import io
import re
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from conversion.files import describe_content, starts_with
from conversion.formats.format import Format
from conversion.keras_groups import GROUP_STEMS, group_names, keras_class
from conversion.layouts import LAYOUTS, SlotLayout, move_axes, to_keras_layout
from conversion.states import Array, State, StoredState
from parity.errors import ConversionError, SpecError, describe_list
from parity.spec.model_spec import ModelSpec
from parity.spec.paths import keras_name, layer_path

_HDF5 = b"\x89HDF\r\n\x1a\n"
_KINDS = {stem: kind for kind, stem in GROUP_STEMS.items() if LAYOUTS[kind]}
_GROUP = re.compile(rf"({'|'.join(_KINDS)})(_[1-9][0-9]*)?")

# Keras stores arrays as they are, so data far larger than its file is an attack or damage.
_LARGEST_EXPANSION = 100


@dataclass(frozen=True, kw_only=True)
class StoredLayer:
    """The arrays of one HDF5 group.

    Attributes:
        group: Its name under `layers`.
        kind: Class of the Keras layer.
        name: Name of the layer, or "" where the file does not hold it.
        arrays: By slot, in PyTorch's layout.
    """

    group: str
    kind: str
    name: str
    arrays: State


def read(path: Path) -> StoredState:
    """Return the arrays of a weights file, by layer name where the file holds names.

    Raises:
        ConversionError: If the file is no Keras 3 weights file or holds layers of unknown kinds.
    """
    if not starts_with(path, _HDF5):
        message = f"{path}: expected a Keras weights file (HDF5); {describe_content(path)}."
        raise ConversionError(message)
    try:
        with h5py.File(path, "r") as file:
            layers = read_layers(file, where=str(path), file_bytes=path.stat().st_size)
    except (OSError, RuntimeError, KeyError) as error:
        message = (
            f"{path}: expected a whole Keras weights file; {describe_content(path)}. "
            f"It is truncated or damaged ({type(error).__name__})."
        )
        raise ConversionError(message) from error
    named = bool(layers) and all(layer.name for layer in layers)
    owners = {layer.group: dotted_name(layer.name) if named else layer.group for layer in layers}
    refuse_repeated(list(owners.values()), where=str(path))
    return StoredState(arrays=by_owner(layers, owners), by_position=not named, conventions={})


def dotted_name(name: str) -> str:
    """Return the layer path of a Keras layer name, or the name itself if it is of another form."""
    try:
        return layer_path(name)
    except SpecError:
        return name


def refuse_repeated(names: list[str], *, where: str) -> None:
    """Raise if two layers of a file share a name."""
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        message = f"{where}: expected one layer a name; got {describe_list(repeated)} repeatedly."
        raise ConversionError(message)


def by_owner(layers: list[StoredLayer], owners: dict[str, str]) -> State:
    """Return the arrays of all layers by `owner.slot name`."""
    return {
        f"{owners[layer.group]}.{slot}": array
        for layer in layers
        for slot, array in layer.arrays.items()
    }


def read_layers(file: h5py.File, *, where: str, file_bytes: int) -> list[StoredLayer]:
    """Return every layer of an open file that carries arrays.

    Raises:
        ConversionError: If the file has no Keras 3 layers, or some of an unknown kind or form.
    """
    if not isinstance(file.get("layers"), h5py.Group):
        raise ConversionError(_describe_foreign(file, where=where))
    layers, problems = [], []
    for group in file["layers"]:
        try:
            layer = _read_layer(file["layers"], group, file_bytes=file_bytes)
        except ConversionError as error:
            problems.append(f"layers/{group}: {error}")
        else:
            layers += [layer] if layer else []
    if problems:
        message = f"{where}: {describe_list(problems)}"
        raise ConversionError(message)
    return layers


def _describe_foreign(file: h5py.File, *, where: str) -> str:
    text = f"{where}: expected a Keras 3 weights file with a group 'layers'; got "
    if "model_weights" in file or "layer_names" in file.attrs:
        return f"{text}the Keras 2 layout. Load it in Keras and save it as .weights.h5."
    return f"{text}an HDF5 file with {describe_list(sorted(file)) or 'nothing'} in it."


def _read_layer(layers: h5py.Group, group: str, *, file_bytes: int) -> StoredLayer | None:
    members = _real_members(layers, group)
    nested = [member for member in members if member != "vars"]
    variables = _real_members(layers[group], "vars") if "vars" in members else []
    if nested:
        message = f"expected a single layer; got one that holds {describe_list(nested)}."
        raise ConversionError(message)
    if not variables:
        return None
    match = _GROUP.fullmatch(group)
    if not match:
        message = f"expected one of {', '.join(_KINDS)}; got another layer with arrays."
        raise ConversionError(message)
    kind = _KINDS[match[1]]
    store = layers[group]["vars"]
    arrays = _read_variables(store, kind, file_bytes=file_bytes)
    return StoredLayer(group=group, kind=kind, name=str(store.attrs.get("name", "")), arrays=arrays)


def _real_members(parent: h5py.Group, name: str) -> list[str]:
    if not isinstance(parent.get(name, getlink=True), h5py.HardLink):
        message = "expected data in this file; got a link to elsewhere."
        raise ConversionError(message)
    if not isinstance(parent[name], h5py.Group):
        message = f"expected {name!r} to be a group; got a data set."
        raise ConversionError(message)
    return list(parent[name])


def _read_variables(store: h5py.Group, kind: str, *, file_bytes: int) -> State:
    layouts = list(LAYOUTS[kind].values())
    # A convolution or dense layer may lack its bias, batch norm its scale.
    is_norm = kind == "BatchNormalization"
    counts = (3, 4) if is_norm else (1, 2)
    if len(store) not in counts or set(store) != {str(index) for index in range(len(store))}:
        wanted = " or ".join(map(str, counts))
        message = f"expected {wanted} arrays numbered from 0; got {describe_list(sorted(store))}."
        raise ConversionError(message)
    return {
        layout.slot: _read_array(store, str(index), layout, file_bytes=file_bytes)
        for index, layout in enumerate(layouts[-len(store) :] if is_norm else layouts[: len(store)])
    }


def _read_array(store: h5py.Group, key: str, layout: SlotLayout, *, file_bytes: int) -> Array:
    if not isinstance(store.get(key, getlink=True), h5py.HardLink):
        message = f"vars/{key}: expected data in this file; got a link to elsewhere."
        raise ConversionError(message)
    dataset = store[key]
    if not isinstance(dataset, h5py.Dataset) or dataset.is_virtual or dataset.external:
        message = f"vars/{key}: expected an array stored in this file."
        raise ConversionError(message)
    if dataset.nbytes > _LARGEST_EXPANSION * file_bytes:
        message = f"vars/{key}: expected data no larger than its file; got {dataset.nbytes} bytes."
        raise ConversionError(message)
    if dataset.dtype.kind not in "fiub":
        message = f"vars/{key}: expected an array of numbers; got dtype {dataset.dtype}."
        raise ConversionError(message)
    return move_axes(dataset[()], source=layout.keras_axes, target=layout.torch_axes)


def encode(state: State, spec: ModelSpec) -> bytes:
    """Return the bytes of a file that the spec's Keras twin loads with `load_weights`."""
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file.create_group("vars")
        for group, layer in group_names(spec).items():
            store = file.create_group(f"layers/{group}/vars")
            store.attrs["name"] = keras_name(layer.path)
            held = {}
            for slot in layer.slots():
                array = state[f"{layer.path}.{slot.name}"]
                variable, moved = to_keras_layout(keras_class(layer), slot.name, array)
                held[variable] = np.ascontiguousarray(moved)
            order = [variable for variable in LAYOUTS[keras_class(layer)] if variable in held]
            for index, variable in enumerate(order):
                store.create_dataset(str(index), data=held[variable])
    return buffer.getvalue()


FORMAT = Format(
    name="Keras weights file",
    suffixes=(".weights.h5",),
    framework="keras",
    read=read,
    encode=encode,
)
