"""The order of layers in a weights file, which names no layer by itself, follows from the spec."""

import dataclasses
import itertools

import h5py
import pytest

from conversion.keras_groups import group_names
from parity.spec.paths import layer_path

MODELS = [
    "resnet8:width=2", "resnet20:width=2", "resnet18:width=2", "resnet50:width=2",
    "resnet18:width=2,stem=imagenet", "resnet50:width=2,stem=imagenet",
]  # fmt: skip
SLOW_MODELS = [
    "resnet32:width=1", "resnet44:width=1", "resnet56:width=1", "resnet110:width=1",
    "resnet34:width=1", "resnet101:width=1", "resnet152:width=1",
]  # fmt: skip
CONVENTIONS = list(itertools.product(["start", "end"], [False, True]))


def saved_names(spec, path):
    import models_keras

    models_keras.resnet(spec).save_weights(path)
    with h5py.File(path) as file:
        layers = file["layers"]
        weighted = [group for group in layers if len(layers[group]["vars"])]
        return {group: layer_path(layers[group]["vars"].attrs["name"]) for group in weighted}


def expected_names(spec):
    return {group: layer.path for group, layer in group_names(spec).items()}


@pytest.mark.parametrize("model", MODELS)
def test_groups_are_in_the_order_keras_saves_them(specs, tmp_path, model):
    spec = specs(model)

    assert expected_names(spec) == saved_names(spec, tmp_path / "x.weights.h5")


@pytest.mark.parametrize(("stride_offset", "conv_bias"), CONVENTIONS)
def test_groups_do_not_depend_on_conventions(specs, tmp_path, stride_offset, conv_bias):
    spec = specs("resnet50:width=2,stem=imagenet")
    conventions = dataclasses.replace(
        spec.conventions, stride_offset=stride_offset, conv_bias=conv_bias
    )
    spec = dataclasses.replace(spec, conventions=conventions)

    assert expected_names(spec) == saved_names(spec, tmp_path / "x.weights.h5")


@pytest.mark.slow
@pytest.mark.parametrize("model", SLOW_MODELS)
def test_groups_of_deep_models_are_in_the_order_keras_saves_them(specs, tmp_path, model):
    spec = specs(model)

    assert expected_names(spec) == saved_names(spec, tmp_path / "x.weights.h5")
