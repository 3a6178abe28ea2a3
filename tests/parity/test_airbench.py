"""The airbench networks: published counts and shapes, and what the PyPI package computes.

The expected figures were printed once by `benchmarks/print_airbench_figures.py`. Weights and images
come from a closed formula, so no file of weights is needed.
"""

import functools
import json
import math
from pathlib import Path

import numpy as np
import pytest

from parity import runtime
from parity.data.batches import BatchStream
from parity.data.table import load_dataset
from parity.errors import DivergenceError
from parity.frameworks.build import FRAMEWORKS, build_twin
from parity.lockstep.training import RunSettings, start_run
from parity.spec.airbench import AIRBENCHES, airbench_conventions, airbench_spec
from parity.spec.recipe import load_recipe
from parity.testing.assertions import assert_close
from parity.testing.faults import seed_array_fault
from parity.testing.formula import formula_images, formula_state
from parity.whitening import whitening_filters

PRINTED = json.loads(
    Path(__file__).with_name("data").joinpath("airbench_figures.json").read_text("utf-8")
)
IMAGES = formula_images(tuple(PRINTED["images"]["shape"]), patch_px=PRINTED["images"]["patch_px"])
NETWORKS = {"93": "airbench93", "94": "airbench94", "95": "airbench95", "96": "airbench96_paper"}

# Of the largest logit. The package's conventions and ours differ by rounding alone.
BOUND = 1e-5

# Network -> trained parameters, and with the frozen whitening filters and scales that stay 1.
# Source: the paper for 1.97 M; the others by hand from its table of layers.
COUNTS = {
    "airbench93": (568_728, 569_656),
    "airbench94": (1_971_352, 1_972_792),
    "airbench94_muon": (1_971_352, 1_972_792),
    "airbench95": (4_604_440, 4_606_520),
    "airbench96": (9_915_416, 9_918_776),
    "airbench96_paper": (12_717_464, 12_721_208),
}

# Layer outputs of airbench94 at 32x32, as published.
SHAPES_94 = {
    "whiten": (24, 31, 31),
    "gelu": (24, 31, 31),
    "blocks.0.conv1": (64, 31, 31),
    "blocks.0.pool": (64, 15, 15),
    "blocks.0.gelu1": (64, 15, 15),
    "blocks.0.gelu2": (64, 15, 15),
    "blocks.1.pool": (256, 7, 7),
    "blocks.1.gelu2": (256, 7, 7),
    "blocks.2.pool": (256, 3, 3),
    "blocks.2.gelu2": (256, 3, 3),
    "pool": (256, 1, 1),
    "head": (10,),
    "scale": (10,),
}


def published_spec(name):
    return airbench_spec(
        name,
        conventions=airbench_conventions(name),
        in_channels=3,
        input_size=(32, 32),
        classes=10,
    )


@functools.cache
def built_net(framework, name):
    return build_twin(framework, published_spec(name))


def filled_net(framework, name):
    """Return a twin that holds the formula's arrays; a network's is built once and filled again."""
    net = built_net(framework, name)
    net.load_state(formula_state(published_spec(name).state_shapes()))
    return net


def count_torch(spec):
    import torch

    import models_torch

    with torch.device("meta"):  # counting needs no numbers
        module = models_torch.airbench(spec)
    trained = sum(p.numel() for p in module.parameters() if p.requires_grad)
    scales = sum(m.num_features for m in module.modules() if hasattr(m, "running_var"))
    return trained, sum(p.numel() for p in module.parameters()) + scales


def count_keras(spec):
    import keras

    import models_keras

    model = models_keras.airbench(spec)
    trained = sum(math.prod(variable.shape) for variable in model.trainable_variables)
    frozen = math.prod(model.get_layer("whiten").kernel.shape)
    norms = [x for x in model.layers if isinstance(x, keras.layers.BatchNormalization)]
    return trained, trained + frozen + sum(layer.beta.shape[0] for layer in norms)


COUNTERS = {"torch": count_torch, "keras": count_keras}


def test_every_network_has_counts():
    assert set(COUNTS) == set(AIRBENCHES)


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("name", COUNTS)
def test_parameter_counts_are_the_published_ones(framework, name):
    assert COUNTERS[framework](published_spec(name)) == COUNTS[name]


@pytest.mark.parametrize("network", NETWORKS)
def test_the_package_counts_as_we_do(network):
    printed = PRINTED["networks"][network]

    assert (printed["trained"], printed["parameters"]) == COUNTS[NETWORKS[network]]


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_layers_have_the_published_shapes(framework):
    spec = published_spec("airbench94")
    net = build_twin(framework, spec)

    trace = net.trace(IMAGES[:1].transpose(0, 2, 3, 1), training=False)

    assert {path: trace[path].shape[1:] for path in SHAPES_94} == SHAPES_94


@pytest.mark.backend
@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("mode", ["evaluation", "training"])
def test_logits_are_those_of_the_package(framework, network, mode):
    net = filled_net(framework, NETWORKS[network])

    logits = net.forward(IMAGES.transpose(0, 2, 3, 1), training=mode == "training")

    expected = np.array(PRINTED["networks"][network][mode])
    assert_close(logits.astype(np.float64), expected, atol=BOUND * abs(expected).max(), rtol=0.0)


@pytest.mark.parametrize("fault", ["scaled", "kernel_mirrored", "channels_swapped"])
def test_a_wrong_kernel_moves_the_logits_of_the_package_out_of_bounds(fault):
    spec = published_spec("airbench94")
    net, state = build_twin("torch", spec), formula_state(spec.state_shapes())
    name = "blocks.1.conv2.weight"
    net.load_state({**state, name: seed_array_fault(fault, state[name], seed=0)})

    logits = net.forward(IMAGES.transpose(0, 2, 3, 1), training=False)

    expected = np.array(PRINTED["networks"]["94"]["evaluation"])
    with pytest.raises(DivergenceError):
        assert_close(
            logits.astype(np.float64), expected, atol=BOUND * abs(expected).max(), rtol=0.0
        )


def test_whitening_filters_are_those_of_the_package_but_for_their_signs():
    shape = tuple(PRINTED["whitening"]["shape"])
    images = formula_images(shape, patch_px=PRINTED["images"]["patch_px"])

    filters = whitening_filters(images.transpose(0, 2, 3, 1), kernel=2, order="descending")

    expected = np.array(PRINTED["whitening"]["filters"])
    signs = np.sign((filters * expected).sum(axis=(1, 2, 3)))
    assert_close(filters * signs[:, None, None, None], expected, atol=1e-9, rtol=0.0)


@pytest.mark.slow
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_narrow_network_learns_the_digits(framework, tmp_path):
    recipe = load_recipe("airbench94", data="digits", overrides=["epochs=4"])
    dataset = load_dataset("digits", resolution=recipe.resolution)
    settings = RunSettings(
        seed=0,
        framework=framework,
        dtype="float32",
        compiled=False,
        device="cpu",
        keras_backend=runtime.select_keras_backend(None) if framework == "keras" else None,
        memory_format="channels_first" if framework == "torch" else None,
    )
    stream = BatchStream(dataset, recipe, seed=0)

    result = start_run(recipe, settings, stream=stream, folder=tmp_path / "run").train()

    # Measured in both frameworks: 92.2 %; the whole recipe comes to 98 %.
    assert result["test_accuracy"] >= 0.85
