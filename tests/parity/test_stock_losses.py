"""The losses of a spec are those that the frameworks ship, and what the shipped defaults do."""

import dataclasses

import numpy as np
import pytest
import torch
from torch.nn import functional

from parity import runtime
from parity.reference.losses import evaluate_loss
from parity.rng import stream
from parity.spec.losses import BinaryCrossEntropy, CrossEntropy, TwoViewCrossEntropy, build_targets
from parity.testing.assertions import assert_close

runtime.select_keras_backend(None)

import keras  # noqa: E402  # after the backend is chosen

CLASSES, ROWS, SMOOTHING = 5, 6, 0.1
LOGITS = 2.0 * stream(0, "test", "logits").standard_normal((ROWS, CLASSES))
LABELS = np.array([0, 1, 2, 3, 4, 1])
ONE_HOT = np.eye(CLASSES)[LABELS]
MIXTURES = stream(0, "test", "mixtures").dirichlet(np.ones(CLASSES), size=ROWS)
SOFTMAX = CrossEntropy(label_smoothing=SMOOTHING, reduction="mean")
BINARY = BinaryCrossEntropy(
    label_smoothing=SMOOTHING,
    smoothing_form="towards_half",
    binarized=False,
    target_threshold=0.0,
    reduction="mean",
)
REDUCTIONS = {"mean": "sum_over_batch_size", "sum": "sum"}
TOLERANCE = {"atol": 0.0, "rtol": 1e-13}


@pytest.fixture(autouse=True)
def float64():
    with runtime.precision("float64"):
        yield


def loss_of(spec, targets=LABELS, logits=LOGITS):
    return evaluate_loss(spec, logits, build_targets(spec, targets, classes=CLASSES))[0]


def in_torch(function, targets, logits=LOGITS, **options):
    return function(torch.tensor(logits), torch.tensor(targets), **options).item()


def in_keras(loss, targets, logits=LOGITS):
    return float(loss(targets, logits))


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("targets", [LABELS, MIXTURES], ids=["labels", "mixtures"])
def test_cross_entropy_is_torchs_with_its_own_smoothing(reduction, targets):
    shipped = in_torch(
        functional.cross_entropy, targets, reduction=reduction, label_smoothing=SMOOTHING
    )

    spec = dataclasses.replace(SOFTMAX, reduction=reduction)

    assert_close(loss_of(spec, targets), shipped, **TOLERANCE)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("targets", [ONE_HOT, MIXTURES], ids=["labels", "mixtures"])
def test_cross_entropy_is_keras_with_its_own_smoothing(reduction, targets):
    shipped = keras.losses.CategoricalCrossentropy(
        from_logits=True, label_smoothing=SMOOTHING, reduction=REDUCTIONS[reduction]
    )

    spec = dataclasses.replace(SOFTMAX, reduction=reduction)

    assert_close(loss_of(spec, targets), in_keras(shipped, targets), **TOLERANCE)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_binary_cross_entropy_is_torchs_on_unsmoothed_targets(reduction):
    function = functional.binary_cross_entropy_with_logits

    spec = dataclasses.replace(BINARY, label_smoothing=0.0, reduction=reduction)

    shipped = in_torch(function, MIXTURES, reduction=reduction)
    assert_close(loss_of(spec, MIXTURES), shipped, **TOLERANCE)


def test_binary_cross_entropy_is_keras_with_its_own_smoothing():
    shipped = keras.losses.BinaryCrossentropy(from_logits=True, label_smoothing=SMOOTHING)

    assert_close(loss_of(BINARY, MIXTURES), in_keras(shipped, MIXTURES), **TOLERANCE)


def test_binary_smoothing_of_keras_and_timm_differ_by_their_targets_times_the_mean_logit():
    over_classes = dataclasses.replace(BINARY, smoothing_form="over_classes")
    by_hand = (1.0 - SMOOTHING) * ONE_HOT + SMOOTHING / CLASSES
    function, logits = functional.binary_cross_entropy_with_logits, LOGITS + 1.0

    timm = loss_of(over_classes, logits=logits)

    assert_close(timm, in_torch(function, by_hand, logits), **TOLERANCE)
    expected = SMOOTHING * (1 / 2 - 1 / CLASSES) * logits.mean()
    assert_close(timm - loss_of(BINARY, logits=logits), expected, atol=1e-14, rtol=0.0)
    assert expected > 0.02


def test_two_views_are_the_shipped_losses_added_up():
    spec = TwoViewCrossEntropy(label_smoothing=SMOOTHING, consistency_weight=0.3, reduction="mean")
    halves = np.split(LOGITS, 2)
    entropies = [
        in_torch(functional.cross_entropy, labels, logits, label_smoothing=SMOOTHING)
        for labels, logits in zip(np.split(LABELS, 2), halves, strict=True)
    ]
    gaps = {
        "torch": in_torch(functional.mse_loss, halves[1], halves[0]),
        "keras": in_keras(keras.losses.MeanSquaredError(), halves[1], halves[0]),
    }

    expected = {name: sum(entropies) / 2 + 0.3 * gap for name, gap in gaps.items()}

    assert_close(loss_of(spec), expected["torch"], **TOLERANCE)
    assert_close(loss_of(spec), expected["keras"], **TOLERANCE)


@pytest.mark.parametrize(
    ("torch_loss", "keras_loss"),
    [
        (
            functional.binary_cross_entropy_with_logits,
            lambda: keras.losses.BinaryCrossentropy(from_logits=True, reduction="sum"),
        ),
        (functional.mse_loss, lambda: keras.losses.MeanSquaredError(reduction="sum")),
    ],
    ids=["binary cross-entropy", "squared error"],
)
def test_sum_of_keras_is_over_images_of_means_over_classes(torch_loss, keras_loss):
    summed = in_torch(torch_loss, MIXTURES, reduction="sum")

    assert_close(CLASSES * in_keras(keras_loss(), MIXTURES), summed, **TOLERANCE)


@pytest.mark.parametrize("name", ["CategoricalCrossentropy", "BinaryCrossentropy"])
def test_default_of_keras_takes_probabilities_and_cuts_the_loss(name):
    logits = np.array([[60.0, -60.0]])
    targets = np.array([[0.0, 1.0]])
    shipped = getattr(keras.losses, name)

    cut = in_keras(shipped(), targets, np.array([[1.0, 0.0]]))

    assert in_keras(shipped(from_logits=True), targets, logits) >= 60.0
    assert_close(cut, -np.log(1e-7), atol=0.0, rtol=1e-6)


def test_default_of_torch_is_the_plain_mean():
    spec = CrossEntropy(label_smoothing=0.0, reduction="mean")

    assert_close(loss_of(spec), in_torch(functional.cross_entropy, LABELS), **TOLERANCE)
