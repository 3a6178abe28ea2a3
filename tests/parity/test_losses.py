"""Losses of the twins, forward and backward: against the reference, and wrong in one convention."""

import dataclasses

import numpy as np
import pytest
import torch

import models_torch
from parity import runtime
from parity.frameworks.build import build_twin
from parity.frameworks.net import Batch
from parity.initialize import initial_state
from parity.reference.losses import evaluate_loss
from parity.rng import stream
from parity.spec.losses import (
    BinaryCrossEntropy,
    CrossEntropy,
    TwoViewCrossEntropy,
    build_targets,
)
from parity.testing import specs
from parity.testing.assertions import assert_close, relative_gap
from parity.testing.faults import LOSS_FAULTS, seed_spec_fault

CLASSES = 5
# Worst seen on the three backends: 4e-16 relative, at huge logits 3.3e-15; the smallest seeded
# fault changes 5e-5.
BOUND = 1e-13
NOTICED = 1e-6

CROSS_ENTROPY = CrossEntropy(label_smoothing=0.1, reduction="mean")
SOFT = BinaryCrossEntropy(
    label_smoothing=0.1,
    smoothing_form="over_classes",
    binarized=False,
    target_threshold=0.0,
    reduction="mean",
)
HARD = dataclasses.replace(SOFT, label_smoothing=0.0, binarized=True, target_threshold=0.2)
TWO_VIEWS = TwoViewCrossEntropy(label_smoothing=0.1, consistency_weight=0.1, reduction="mean")
CASES = {
    "cross entropy": CROSS_ENTROPY,
    "cross entropy, summed": dataclasses.replace(CROSS_ENTROPY, reduction="sum"),
    "binary, over classes": SOFT,
    "binary, towards half, summed": dataclasses.replace(
        SOFT, smoothing_form="towards_half", reduction="sum"
    ),
    "binary, binarized": HARD,
    "binary, binarized at zero": dataclasses.replace(HARD, target_threshold=0.0),
    "two views": TWO_VIEWS,
    "two views, summed": dataclasses.replace(TWO_VIEWS, reduction="sum"),
}
LOGITS = 3.0 * stream(0, "test", "logits").standard_normal((6, CLASSES))
# Mixtures of two labels, one of them with a share between 0.2 and 0.22.
SHARES = np.array([1.0, 0.9, 0.79, 0.6, 0.5, 0.7])[:, np.newaxis]
FIRST, SECOND = np.eye(CLASSES)[[0, 1, 2, 3, 4, 1]], np.eye(CLASSES)[[1, 1, 0, 2, 3, 0]]
MIXTURES = SHARES * FIRST + (1.0 - SHARES) * SECOND


def torch_outcome(spec, targets, logits=LOGITS):
    leaf = torch.tensor(logits, requires_grad=True)
    loss = models_torch.build_loss(spec)(leaf, torch.tensor(targets))
    loss.backward()
    return loss.item(), leaf.grad.numpy()


def keras_outcome(spec, targets, logits=LOGITS):
    runtime.select_keras_backend(None)
    import models_keras
    from parity.frameworks.keras_layer import run_keras_layer

    with runtime.precision("float64"):
        loss = models_keras.build_loss(spec)
        outcome = run_keras_layer(lambda leaf: loss(targets, leaf), [logits], np.array(1.0))
    return float(outcome.outputs), outcome.input_gradients[0]


OUTCOMES = {"torch": torch_outcome, "keras": keras_outcome}


def gap_to_reference(outcome, spec, logits=LOGITS):
    """Return the larger relative gap of loss and gradient to those of `spec`."""
    expected = evaluate_loss(spec, logits, build_targets(spec, MIXTURES, classes=CLASSES))
    return max(relative_gap(*pair) for pair in zip(outcome, expected, strict=True))


@pytest.mark.backend
@pytest.mark.parametrize("framework", OUTCOMES)
@pytest.mark.parametrize("spec", CASES.values(), ids=CASES)
def test_loss_and_its_gradient_match_the_reference(framework, spec):
    outcome = OUTCOMES[framework](spec, build_targets(spec, MIXTURES, classes=CLASSES))

    assert gap_to_reference(outcome, spec) <= BOUND


@pytest.mark.backend
@pytest.mark.parametrize("framework", OUTCOMES)
@pytest.mark.parametrize("spec", CASES.values(), ids=CASES)
def test_loss_stays_exact_at_huge_logits(framework, spec):
    logits = 1e3 * LOGITS

    outcome = OUTCOMES[framework](spec, build_targets(spec, MIXTURES, classes=CLASSES), logits)

    assert gap_to_reference(outcome, spec, logits) <= BOUND


def changes(spec, fault):
    """Return whether a fault applies to a loss: it has the field, another value, and a meaning."""
    field, change = LOSS_FAULTS[fault]
    if not hasattr(spec, field) or change(getattr(spec, field)) == getattr(spec, field):
        return False
    if field == "smoothing_form":
        return spec.label_smoothing > 0.0
    return fault != "binarizing_missing" or spec.target_threshold == 0.0


SEEDED = [
    pytest.param(spec, fault, id=f"{name}-{fault}")
    for name, spec in CASES.items()
    for fault in LOSS_FAULTS
    if changes(spec, fault)
]


def test_every_fault_is_seeded_somewhere():
    assert {fault for parameters in SEEDED for fault in parameters.values[1:]} == set(LOSS_FAULTS)


@pytest.mark.parametrize("framework", OUTCOMES)
@pytest.mark.parametrize(("spec", "fault"), SEEDED)
def test_a_wrong_convention_in_one_twin_is_noticed(framework, spec, fault):
    wrong = seed_spec_fault(fault, spec)

    outcome = OUTCOMES[framework](wrong, build_targets(wrong, MIXTURES, classes=CLASSES))

    assert gap_to_reference(outcome, spec) > NOTICED


@pytest.mark.parametrize(
    "name", ["binary, over classes", "binary, towards half, summed", "two views"]
)
def test_compiled_training_step_has_the_reference_loss(name):
    spec = CASES[name]
    labels = np.array([0, 1, 2, 3])
    images = stream(0, "test", "images").standard_normal((4, 9, 6, 2)).astype(np.float32)
    targets = build_targets(spec, labels, classes=specs.RESNET.classes)
    net = build_twin("keras", specs.RESNET, loss=spec, dtype="float64")
    net.load_state(initial_state(specs.RESNET, seed=0))

    record = net.step(Batch(images=images, labels=labels, targets=targets), rate=0.1)

    assert_close(record.loss, evaluate_loss(spec, record.logits, targets)[0], atol=0.0, rtol=BOUND)


@pytest.mark.backend
@pytest.mark.parametrize("framework", OUTCOMES)
def test_odd_number_of_views_is_refused(framework):
    with pytest.raises(Exception, match=r"(?i)split|divid|size|shape"):
        OUTCOMES[framework](TWO_VIEWS, MIXTURES[:3], LOGITS[:3])


@pytest.mark.backend
def test_loss_of_keras_is_built_again_from_its_config():
    runtime.select_keras_backend(None)
    import models_keras

    loss = models_keras.build_loss(TWO_VIEWS)

    again = type(loss).from_config(loss.get_config())

    assert (again.weight, again.reduction) == (0.1, "sum_over_batch_size")
