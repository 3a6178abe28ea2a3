"""Keras opens what is written, what Keras saved is read, and nothing in a config is ever run."""

import io
import json
import subprocess
import sys
import zipfile

import keras
import pytest

import models_keras
from conversion.formats import keras_archive
from conversion.states import checked_state
from parity.errors import ConversionError, MissingFrameworkError
from parity.rng import stream
from parity.testing.assertions import assert_identical

STOCK_ONLY = """
import sys, keras, numpy
model = keras.models.load_model(sys.argv[1])
images = numpy.load(sys.argv[2])
numpy.save(sys.argv[3], keras.ops.convert_to_numpy(model(images)))
assert not {"conversion", "parity", "models_keras"} & set(sys.modules)
"""


def edited(path, *, config=lambda config: config, drop=(), weights=lambda content: content):
    """Rewrite an archive with an edited config or weights, or without some members."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members["config.json"] = json.dumps(config(json.loads(members["config.json"]))).encode()
    members["model.weights.h5"] = weights(members["model.weights.h5"])
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            if name not in drop:
                archive.writestr(name, content)
    return path


@pytest.fixture
def images():
    return stream(0, "images").standard_normal((2, 32, 32, 3)).astype("float32")


@pytest.mark.parametrize(
    ("model", "preset"),
    [
        ("resnet8:width=4", "torch"),
        ("resnet8:width=4", "keras"),
        ("resnet8:width=4,stochastic_depth=0.3,dropout=0.2", "torch"),
    ],
)
def test_written_archive_opens_in_keras_and_predicts_as_the_twin(
    checkpoint, specs, states, images, model, preset
):
    spec = specs(model, preset=preset)
    state = states(spec)
    twin = models_keras.resnet(spec)
    twin.load_weights(checkpoint("x.weights.h5", spec=spec, state=state))

    loaded = keras.models.load_model(checkpoint("x.keras", spec=spec, state=state))

    expected = keras.ops.convert_to_numpy(twin(images))
    assert_identical(keras.ops.convert_to_numpy(loaded(images)), expected)


@pytest.mark.slow
def test_written_archive_opens_without_this_package(checkpoint, tmp_path, images):
    import numpy as np

    np.save(tmp_path / "images.npy", images)
    arguments = [checkpoint("x.keras"), tmp_path / "images.npy", tmp_path / "logits.npy"]

    subprocess.run(
        [sys.executable, "-c", STOCK_ONLY, *arguments],
        check=True,
        capture_output=True,
        cwd=tmp_path,
    )

    assert np.load(tmp_path / "logits.npy").shape == (2, 5)


def test_written_archive_leaves_keras_precision_as_it_was(checkpoint, spec, states):
    checkpoint("x.keras", state=states(spec, dtype="float64"))

    assert keras.config.floatx() == "float32"
    assert keras.config.dtype_policy().name == "float32"


def test_archive_of_mixed_precision_is_refused(checkpoint, state):
    state["head.bias"] = state["head.bias"].astype("float64")

    with pytest.raises(ConversionError, match="expected arrays of one precision; got float32, fl"):
        checkpoint("x.keras")


@pytest.mark.parametrize("preset", ["torch", "keras"])
def test_archive_saved_from_the_twin_is_read_with_its_conventions(tmp_path, specs, preset):
    spec = specs(preset=preset)
    model = models_keras.resnet(spec)
    model.compile("adam", "mse")
    model.save(tmp_path / "x.keras")

    stored = keras_archive.read(tmp_path / "x.keras")

    state = checked_state(stored.named(spec), spec, where="x")
    assert_identical(state["head.bias"], keras.ops.convert_to_numpy(model.layers[-1].bias))
    assert stored.conventions == {
        "bn_epsilon": spec.conventions.bn_epsilon,
        "stats_decay": spec.conventions.stats_decay,
        "stride_offset": spec.conventions.stride_offset,
    }


def test_lambda_layer_is_named_and_its_code_never_runs(tmp_path):
    inputs = keras.Input((4,))
    outputs = keras.layers.Lambda(lambda x: x * 2.0, name="twice")(inputs)
    keras.Model(inputs, keras.layers.Dense(2)(outputs)).save(tmp_path / "x.keras")

    with pytest.raises(ConversionError, match=r"expected layers of known classes; got twice \(Lam"):
        keras_archive.read(tmp_path / "x.keras")


def test_registered_custom_layer_is_named(checkpoint):
    def customize(config):
        config["config"]["layers"][1] |= {"class_name": "Evil", "registered_name": "evil>Evil"}
        return config

    with pytest.raises(ConversionError, match=r"got stem-conv \(Evil\). Rebuild the model without"):
        keras_archive.read(edited(checkpoint("x.keras"), config=customize))


def test_config_that_names_other_layers_than_the_weights_is_refused(checkpoint):
    def swap(config):
        convs = [x for x in config["config"]["layers"] if x["class_name"] == "Conv2D"]
        convs[0]["config"]["name"], convs[1]["config"]["name"] = "a", "stem-conv"
        return config

    with pytest.raises(
        ConversionError, match=r"expected model.weights.h5 to follow config.json; g"
    ):
        keras_archive.read(edited(checkpoint("x.keras"), config=swap))


def test_config_of_mixed_epsilons_is_refused(checkpoint):
    def change(config):
        norms = [x for x in config["config"]["layers"] if x["class_name"] == "BatchNormalization"]
        norms[0]["config"]["epsilon"] = 0.5
        return config

    with pytest.raises(ConversionError, match="expected one value in all layers; got bn_epsilon"):
        keras_archive.read(edited(checkpoint("x.keras"), config=change))


@pytest.mark.parametrize(
    "config", [{}, [], {"config": {"layers": [{}]}}, {"config": None}], ids=str
)
def test_config_of_another_kind_is_refused(checkpoint, config):
    path = edited(checkpoint("x.keras"), config=lambda _: config)

    with pytest.raises(ConversionError, match="expected a functional or sequential model"):
        keras_archive.read(path)


@pytest.mark.parametrize("member", ["config.json", "model.weights.h5"])
def test_archive_without_a_member_is_refused(checkpoint, member):
    with pytest.raises(ConversionError, match=f"it holds no {member}"):
        keras_archive.read(edited(checkpoint("x.keras"), drop=[member]))


def test_archive_with_damaged_weights_is_refused(checkpoint):
    path = edited(checkpoint("x.keras"), weights=lambda content: content[:5000])

    with pytest.raises(ConversionError, match="expected a whole HDF5 file; it is damaged"):
        keras_archive.read(path)


def test_archive_that_unpacks_to_far_more_than_its_size_is_refused(tmp_path):
    path = tmp_path / "x.keras"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", "{}" + " " * 10**7)
        archive.writestr("model.weights.h5", b"")

    with pytest.raises(ConversionError, match=r"expected config.json no larger than its archive"):
        keras_archive.read(path)


@pytest.mark.parametrize("kept", [0.1, 0.9])
def test_truncated_archive_is_described(checkpoint, kept):
    path = checkpoint("x.keras")
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])

    with pytest.raises(ConversionError, match="expected a whole Keras archive; got"):
        keras_archive.read(path)


def test_flipped_bit_is_noticed(checkpoint):
    path = checkpoint("x.keras")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)

    with pytest.raises(ConversionError, match="truncated or damaged"):
        keras_archive.read(path)


def test_foreign_file_is_described_by_its_start(tmp_path):
    path = tmp_path / "x.keras"
    path.write_bytes(b"\x89HDF\r\n\x1a\n")

    with pytest.raises(ConversionError, match=r"expected a Keras archive \(zip\); got 8 bytes"):
        keras_archive.read(path)


def test_missing_keras_is_named_with_its_extra(spec, state, monkeypatch):
    monkeypatch.delitem(sys.modules, "keras")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)

    with pytest.raises(MissingFrameworkError, match=r"framework-parity\[keras\]"):
        keras_archive.encode(state, spec)


def test_archive_is_a_zip_of_bytes(state, spec):
    assert zipfile.is_zipfile(io.BytesIO(keras_archive.encode(state, spec)))
