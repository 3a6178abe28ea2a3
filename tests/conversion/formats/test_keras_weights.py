"""Keras loads what is written, what Keras saved is read, and links or bombs are not followed."""

import h5py
import keras
import numpy as np
import pytest

import models_keras
from conversion.formats import keras_weights
from conversion.states import checked_state
from parity.errors import ConversionError
from parity.rng import stream
from parity.spec.paths import keras_name
from parity.testing.assertions import assert_identical

ENDS = {"conv2d": "stem.conv", "dense": "head"}


@pytest.fixture
def images():
    return stream(0, "images").standard_normal((2, 32, 32, 3)).astype("float32")


@pytest.fixture
def damage(checkpoint):
    """Returns the path of a weights file once an edit was made to it."""

    def edit(change):
        path = checkpoint("x.weights.h5")
        with h5py.File(path, "r+") as file:
            change(file)
        return path

    return edit


@pytest.mark.parametrize("preset", ["torch", "keras"])
def test_written_file_loads_into_the_twin(checkpoint, specs, states, preset):
    spec = specs(preset=preset)
    state = states(spec)
    model = models_keras.resnet(spec)

    model.load_weights(checkpoint("x.weights.h5", spec=spec, state=state))

    last = model.get_layer(keras_name("stages.2.blocks.0.shortcut.conv"))
    expected = state["stages.2.blocks.0.shortcut.conv.weight"].transpose(2, 3, 1, 0)
    assert_identical(keras.ops.convert_to_numpy(last.kernel), expected.copy())


@pytest.mark.parametrize("preset", ["torch", "keras"])
def test_file_saved_by_keras_is_read_and_predicts_the_same_when_written(
    tmp_path, specs, images, preset
):
    spec = specs(preset=preset)
    saved, written = tmp_path / "saved.weights.h5", tmp_path / "written.weights.h5"
    models_keras.resnet(spec).save_weights(saved)
    models = [models_keras.resnet(spec), models_keras.resnet(spec)]

    state = checked_state(keras_weights.read(saved).named(spec), spec, where="saved")
    written.write_bytes(keras_weights.encode(state, spec))
    models[0].load_weights(saved)
    models[1].load_weights(written)

    first, second = (keras.ops.convert_to_numpy(model(images)) for model in models)
    assert_identical(second, first)


def test_file_without_layer_names_is_read_by_position(damage, spec, state):
    def forget_names(file):
        for group in file["layers"].values():
            del group["vars"].attrs["name"]

    stored = keras_weights.read(damage(forget_names))

    assert stored.by_position
    assert list(stored.outline(ENDS)) == ["stem.conv.weight", "head.weight", "head.bias"]
    named = checked_state(stored.named(spec), spec, where="x")
    for name in state:
        assert_identical(named[name], state[name], where=name)


def test_file_of_a_model_with_other_layer_names_lists_them(tmp_path, spec):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, name="my.dense")])
    model.save_weights(tmp_path / "x.weights.h5")

    stored = keras_weights.read(tmp_path / "x.weights.h5")

    with pytest.raises(ConversionError, match=r"2 slots unexpected \(my.dense.weight, my.dense.b"):
        checked_state(stored.named(spec), spec, where="x")


@pytest.mark.parametrize(
    ("layer", "described"),
    [
        (keras.layers.LSTM(2), "layers/lstm: expected a single layer; got one that holds cell"),
        (keras.layers.DepthwiseConv2D(3), "layers/depthwise_conv2d: expected one of conv2d"),
        (
            keras.layers.BatchNormalization(scale=False, center=False),
            "expected 3 or 4 arrays numbered from 0; got 0",
        ),
        (keras.layers.Conv1D(2, 1), "layers/conv1d: expected one of conv2d, batch_normalization"),
    ],
    ids=["lstm", "depthwise", "bare batch norm", "conv1d"],
)
def test_layer_of_an_unknown_kind_is_named(tmp_path, layer, described):
    shape = (8, 8, 3) if "2D" in type(layer).__name__ else (8, 3)
    keras.Sequential([keras.Input(shape), layer]).save_weights(tmp_path / "x.weights.h5")

    with pytest.raises(ConversionError, match=described):
        keras_weights.read(tmp_path / "x.weights.h5")


def replace_first_kernel(file, make):
    store = file["layers/conv2d/vars"]
    del store["0"]
    make(store)


FAULTS = {
    "external link": (
        lambda store: store.__setitem__("0", h5py.ExternalLink("/etc/passwd", "/x")),
        "got a link to elsewhere",
    ),
    "soft link": (
        lambda store: store.__setitem__("0", h5py.SoftLink("/layers/conv2d_1/vars/0")),
        "got a link to elsewhere",
    ),
    "group": (lambda store: store.create_group("0"), "expected an array stored in this file"),
    "external data": (
        lambda store: store.create_dataset(
            "0", (3, 3, 3, 4), "f4", external=[("/etc/passwd", 0, 432)]
        ),
        "expected an array stored in this file",
    ),
    "bomb": (
        lambda store: store.create_dataset("0", (3, 3, 3, 10**8), "f4", chunks=True),
        "expected data no larger than its file",
    ),
    "rank": (
        lambda store: store.create_dataset("0", data=np.zeros((3, 3), "f4")),
        r"expected 4 axes \(hwio\); got shape \(3, 3\)",
    ),
    "index": (
        lambda store: store.create_dataset("7", data=np.zeros(1, "f4")),
        "expected 1 or 2 arrays numbered from 0; got 7",
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_array_that_is_not_plain_data_is_refused(damage, fault):
    make, described = FAULTS[fault]

    path = damage(lambda file: replace_first_kernel(file, make))

    with pytest.raises(ConversionError, match=f"layers/conv2d: .*{described}"):
        keras_weights.read(path)


def test_all_faulty_layers_are_listed_at_once(damage):
    def break_two(file):
        for group in ("conv2d", "conv2d_3"):
            del file[f"layers/{group}/vars/0"]
            file[f"layers/{group}/vars/0"] = np.zeros(3, "f4")

    with pytest.raises(ConversionError, match=r"layers/conv2d: .*layers/conv2d_3: "):
        keras_weights.read(damage(break_two))


def test_names_used_twice_are_refused(damage):
    def rename(file):
        file["layers/conv2d_1/vars"].attrs["name"] = "stem-conv"

    with pytest.raises(ConversionError, match=r"expected one layer a name; got stem.conv repeat"):
        keras_weights.read(damage(rename))


@pytest.mark.parametrize("kept", [0.05, 0.5, 0.95])
def test_truncated_file_is_described(checkpoint, kept):
    path = checkpoint("x.weights.h5")
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])

    with pytest.raises(ConversionError, match="expected a whole Keras weights file; got"):
        keras_weights.read(path)


def test_foreign_hdf5_file_is_described(tmp_path):
    path = tmp_path / "x.weights.h5"
    with h5py.File(path, "w") as file:
        file["images"] = np.zeros(3)

    with pytest.raises(ConversionError, match="got an HDF5 file with images in it"):
        keras_weights.read(path)


def test_keras_2_layout_is_described(tmp_path):
    path = tmp_path / "x.weights.h5"
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = ["conv"]

    with pytest.raises(ConversionError, match=r"got the Keras 2 layout. Load it in Keras and save"):
        keras_weights.read(path)


def test_foreign_file_is_described_by_its_start(checkpoint, tmp_path):
    path = checkpoint("x.pt").rename(tmp_path / "x.weights.h5")

    with pytest.raises(
        ConversionError, match=r"expected a Keras weights file \(HDF5\); got .* b'PK"
    ):
        keras_weights.read(path)
