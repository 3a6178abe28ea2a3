"""Known models of full size: their parameter counts, and torchvision's logits for the same weights.

The expected logits were printed once by `benchmarks/print_torchvision_logits.py`. Weights and
images come from a closed formula, so no file of weights is needed.
"""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from conversion.layouts import move_axes
from parity.errors import DivergenceError
from parity.frameworks.build import FRAMEWORKS, build_twin
from parity.spec.conventions import TORCH
from parity.spec.resnet import resnet_spec
from parity.testing.assertions import assert_close
from parity.testing.faults import seed_array_fault
from parity.testing.formula import formula_array, formula_images, formula_state

EXPECTED = json.loads(
    Path(__file__).with_name("data").joinpath("torchvision_logits.json").read_text("utf-8")
)
IMAGES = formula_images(tuple(EXPECTED["images"]["shape"]), patch_px=EXPECTED["images"]["patch_px"])

# Of the largest logit; measured worst in either framework: 4.8e-7.
BOUND = 1e-5

# The same of a sum over the thousand logits, whose rounding adds up; measured worst: 1.2e-5.
SUM_BOUND = 1e-4

# Model -> trained parameters, and all arrays of its state: batch norms carry two buffers a channel.
COUNTS = {
    "resnet18-cifar": (11_173_962, 11_183_562),
    "resnet20-cifar": (272_474, 274_042),
    "resnet50-imagenet": (25_557_032, 25_610_152),
    "resnet110-cifar": (1_730_714, 1_739_002),
}


def named_spec(name):
    model, _, stem = name.partition("-")
    if stem == "imagenet":
        return imagenet_spec(model, input_size=(224, 224))
    return resnet_spec(
        model, conventions=TORCH.conventions, in_channels=3, input_size=(32, 32), classes=10
    )


def imagenet_spec(model, *, input_size):
    return resnet_spec(
        f"{model}:stem=imagenet",
        conventions=TORCH.conventions,
        in_channels=3,
        input_size=input_size,
        classes=1000,
    )


def count_torch(spec):
    import torch

    import models_torch

    with torch.device("meta"):  # counting needs no numbers
        module = models_torch.resnet(spec)
    buffers = [b for name, b in module.named_buffers() if not name.endswith("batches_tracked")]
    trained = sum(parameter.numel() for parameter in module.parameters())
    return trained, trained + sum(buffer.numel() for buffer in buffers)


def count_keras(spec):
    import models_keras

    model = models_keras.resnet(spec)
    trained = sum(math.prod(variable.shape) for variable in model.trainable_variables)
    return trained, model.count_params()


COUNTERS = {"torch": count_torch, "keras": count_keras}


@pytest.mark.slow
@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("name", COUNTS)
def test_parameter_counts_are_the_published_ones(framework, name):
    assert COUNTERS[framework](named_spec(name)) == COUNTS[name]


def compute_logits(framework, model, *, faults=()):
    spec = imagenet_spec(model, input_size=IMAGES.shape[2:])
    state = formula_state(spec.state_shapes())
    net = build_twin(framework, spec)
    net.load_state(state | {name: seed_array_fault(fault, state[name]) for name, fault in faults})
    return net.forward(move_axes(IMAGES, source="nchw", target="nhwc"), training=False)


def assert_matches_torchvision(logits, model):
    expected, wide = EXPECTED["models"][model], logits.astype(np.float64)
    first, largest = np.array(expected["first"]), expected["largest"]
    rows = {
        "first": (wide[:, : first.shape[1]], BOUND),
        "largest": (np.abs(wide).max(), BOUND),
        "sums": (wide.sum(axis=1), SUM_BOUND),
        # The sum cannot tell one class from another; this can.
        "projections": (wide @ formula_array("projection", wide.shape[1:]), SUM_BOUND),
    }
    for name, (actual, bound) in rows.items():
        assert_close(actual, expected[name], atol=bound * largest, rtol=0.0, where=name)


@pytest.mark.slow
@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("model", EXPECTED["models"])
def test_logits_are_torchvisions(framework, model):
    assert_matches_torchvision(compute_logits(framework, model), model)


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("stages.3.blocks.1.bn2.running_var", "channels_swapped"),
        ("stages.1.blocks.0.shortcut.conv.weight", "through_float16"),
        ("head.weight", "channels_swapped"),
    ],
)
def test_logits_check_catches_a_fault(name, fault):
    logits = compute_logits("torch", "resnet18", faults=[(name, fault)])

    with pytest.raises(DivergenceError):
        assert_matches_torchvision(logits, "resnet18")


@pytest.mark.parametrize("model", EXPECTED["models"])
def test_expected_logits_depend_on_the_images(model):
    first, second = np.array(EXPECTED["models"][model]["first"])

    assert np.abs(first - second).max() > 0.05 * EXPECTED["models"][model]["largest"]
