"""Airbench checkpoints: a frozen kernel, batch norms without a scale, a head without a bias."""

import h5py
import numpy as np
import pytest

import conversion
from conversion.formats.table import find_format
from parity.errors import ConversionError
from parity.spec.airbench import airbench_conventions, airbench_spec
from parity.testing.assertions import assert_identical

MODEL = "airbench94:width=4"

# Each format is read once and written once, always for the other framework.
CROSSINGS = [
    ("pt", "keras"),
    ("keras", "safetensors"),
    ("safetensors", "weights.h5"),
    ("weights.h5", "pt"),
]


@pytest.fixture
def spec():
    return airbench_spec(
        MODEL,
        conventions=airbench_conventions(MODEL),
        in_channels=3,
        input_size=(32, 32),
        classes=10,
    )


@pytest.fixture
def state(spec, states):
    return states(spec)


@pytest.mark.parametrize(("source", "target"), CROSSINGS)
def test_every_format_converts_to_the_other_framework_by_name(checkpoint, tmp_path, source, target):
    report = conversion.convert_checkpoint(
        checkpoint(f"x.{source}"), tmp_path / f"y.{target}", model=MODEL
    )

    assert report.verdict.startswith("verified bit for bit; logits numerically equivalent")


def test_torch_twin_loads_what_was_converted(checkpoint, tmp_path, spec, state):
    import torch

    import models_torch

    conversion.convert_checkpoint(checkpoint("x.weights.h5"), tmp_path / "y.pt", model=MODEL)

    module = models_torch.airbench(spec)
    module.load_state_dict(torch.load(tmp_path / "y.pt", weights_only=True), strict=True)
    assert_identical(module.whiten.weight.detach().numpy(), state["whiten.weight"])
    assert not module.whiten.weight.requires_grad


def test_file_that_keras_saved_without_names_is_read_by_position(tmp_path, spec):
    import keras

    import models_keras

    model = models_keras.airbench(spec)
    model.save_weights(tmp_path / "x.weights.h5")
    with h5py.File(tmp_path / "x.weights.h5", "r+") as file:
        for group in file["layers"].values():
            group["vars"].attrs.pop("name", None)

    conversion.convert_checkpoint(tmp_path / "x.weights.h5", tmp_path / "y.pt", model=MODEL)

    import torch

    state = torch.load(tmp_path / "y.pt", weights_only=True)
    kernel = keras.ops.convert_to_numpy(model.get_layer("blocks-2-conv2").kernel)
    expected = np.ascontiguousarray(kernel.transpose(3, 2, 0, 1))
    assert_identical(state["blocks.2.conv2.weight"].numpy(), expected)


def test_twin_saved_as_a_keras_file_is_read_though_it_has_layers_of_its_own(tmp_path, spec):
    import keras

    import models_keras

    model = models_keras.airbench(spec)
    model.save(tmp_path / "x.keras")

    arrays = find_format(tmp_path / "x.keras").read(tmp_path / "x.keras").arrays

    assert sorted(arrays) == sorted(spec.slots())
    whiten = keras.ops.convert_to_numpy(model.get_layer("whiten").kernel)
    assert_identical(arrays["whiten.weight"], np.ascontiguousarray(whiten.transpose(3, 2, 0, 1)))


def test_another_width_is_refused_with_the_shapes(checkpoint, tmp_path):
    with pytest.raises(ConversionError, match=r"of another shape .*blocks\.0\.conv1\.weight"):
        conversion.convert_checkpoint(
            checkpoint("x.pt"), tmp_path / "y.weights.h5", model="airbench94:width=8"
        )


def test_resnet_file_is_no_airbench(checkpoint, tmp_path, specs, states):
    resnet = specs()
    source = checkpoint("x.pt", spec=resnet, state=states(resnet))

    with pytest.raises(ConversionError, match=r"expected whiten\.weight \(oihw\)"):
        conversion.convert_checkpoint(source, tmp_path / "y.weights.h5", model=MODEL)
