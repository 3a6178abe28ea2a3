"""The training loop's parts: scores worked by hand, and digests that tell states apart."""

import dataclasses

import numpy as np
import pytest

from parity.cli.options import open_stream, resolve
from parity.data.batches import BatchStream
from parity.lockstep.loop import (
    evaluate,
    model_spec,
    rate_at,
    state_digest,
    total_steps,
    with_masks,
)
from parity.masks import draw_masks
from parity.spec.losses import BinaryCrossEntropy
from parity.testing.assertions import assert_close, assert_identical


def make_stream(*overrides, model=None, epochs=4):
    recipe = resolve(
        "best_sgd", data="synthetic", model=model, epochs=epochs, overrides=list(overrides)
    )
    return recipe, open_stream(recipe, seed=0, folder=None, download=False)


class Oracle:
    """A net whose logits are `margin` for the class it names and zero for the others."""

    def __init__(self, stream, *, margin, right):
        self._batches = iter(stream.test_batches())
        self._margin = margin
        self._right = right

    def forward(self, images, *, training):
        assert not training
        batch = next(self._batches)
        np.testing.assert_array_equal(images, batch.images)
        named = batch.labels if self._right else (batch.labels + 1) % batch.targets.shape[1]
        return self._margin * np.eye(batch.targets.shape[1])[named]


@pytest.mark.parametrize("right", [True, False])
def test_evaluation_is_the_mean_over_images_of_accuracy_and_cross_entropy(right):
    _, stream = make_stream()
    classes = len(stream.dataset.classes)
    total = np.exp(2.0) + classes - 1

    score = evaluate(Oracle(stream, margin=2.0, right=right), stream)

    assert score.accuracy == float(right)
    assert score.loss == pytest.approx(np.log(total) - (2.0 if right else 0.0), abs=1e-12)


def test_evaluation_of_a_binary_loss_is_by_cross_entropy():
    recipe, stream = make_stream()
    loss = BinaryCrossEntropy(
        label_smoothing=0.1,
        smoothing_form="towards_half",
        binarized=False,
        target_threshold=0.0,
        reduction="sum",
    )
    binary = BatchStream(stream.dataset, dataclasses.replace(recipe, loss=loss), seed=0)

    scores = [evaluate(Oracle(each, margin=2.0, right=True), each) for each in (binary, stream)]

    assert scores[0] == scores[1]


def test_the_rate_is_the_schedules_share_of_the_base_rate():
    recipe, stream = make_stream("optimizer.lr=0.5")

    rates = [rate_at(recipe, stream, step=step) for step in range(total_steps(recipe, stream))]

    assert rates[0] == 0.5
    assert len(rates) == 4 * stream.steps_per_epoch
    assert rates == sorted(rates, reverse=True)


class Revealing:
    """A net that gives its n-th view a logit of 1 for class n, so that weights can be read off."""

    def __init__(self):
        self.seen = []

    def forward(self, images, *, training):
        assert not training
        self.seen.append(images)
        logits = np.zeros((len(images), 10), dtype=np.float32)
        logits[:, len(self.seen) - 1] = 1.0
        return logits


@pytest.mark.parametrize(
    ("level", "weights"),
    [(0, [1.0]), (1, [0.5, 0.5]), (2, [0.25, 0.25, 0.125, 0.125, 0.125, 0.125])],
)
def test_logits_of_views_are_averaged_with_the_published_weights(level, weights):
    _, stream = make_stream(f"evaluation.tta_level={level}", "evaluation.batch_size=5000")
    (batch,) = stream.test_batches()
    net = Revealing()

    score = evaluate(net, stream)

    logits = np.array([*weights, *[0.0] * (10 - len(weights))])
    expected = np.log(np.exp(logits).sum()) - logits[batch.labels].mean()
    assert len(net.seen) == len(weights)
    assert_close(score.loss, expected, atol=1e-12, rtol=0.0)


def test_views_of_a_level_are_mirrored_and_shifted_by_one_pixel():
    _, stream = make_stream("evaluation.tta_level=2", "evaluation.batch_size=5000")
    (batch,) = stream.test_batches()
    net = Revealing()

    evaluate(net, stream)

    plain, mirror, down, down_mirror, up, up_mirror = net.seen
    assert_identical(plain, batch.images)
    assert_identical(mirror, plain[:, :, ::-1])
    assert_identical(down[:, 1:, 1:], plain[:, :-1, :-1])
    assert_identical(down[:, 0, 1:], plain[:, 1, :-1])
    assert_identical(up[:, :-1, :-1], plain[:, 1:, 1:])
    assert_identical(up[:, -1, :-1], plain[:, -2, 1:])
    assert_identical(down_mirror, down[:, :, ::-1])
    assert_identical(up_mirror, up[:, :, ::-1])


class RightOnMirrors:
    """A net that is wrong on images as they are, and surely right on every other view of them."""

    def __init__(self, stream):
        (self._batch,) = stream.test_batches()

    def forward(self, images, *, training):
        is_plain = np.array_equal(images, self._batch.images)
        margin, shift = (1.0, 1) if is_plain else (3.0, 0)
        return margin * np.eye(10, dtype=np.float32)[(self._batch.labels + shift) % 10]


@pytest.mark.parametrize(("level", "scores"), [(0, (0.0, None)), (1, (1.0, 0.0)), (2, (1.0, 0.0))])
def test_accuracy_without_views_is_told_beside_the_one_with_them(level, scores):
    _, stream = make_stream(f"evaluation.tta_level={level}", "evaluation.batch_size=5000")

    score = evaluate(RightOnMirrors(stream), stream)

    assert (score.accuracy, score.plain_accuracy) == scores


@pytest.mark.parametrize(("epochs", "steps"), [(4, 24), (1.05, 7), (1.5, 9), (2.01, 13)], ids=str)
def test_a_fraction_of_an_epoch_adds_the_steps_that_it_begins(epochs, steps):
    recipe, stream = make_stream("batch_size=100", epochs=epochs)

    assert (stream.steps_per_epoch, total_steps(recipe, stream)) == (6, steps)


@pytest.mark.parametrize("sampling", ["reshuffled", "with_replacement"])
def test_masks_are_keyed_as_the_other_draws_of_a_sample_are(sampling):
    _, stream = make_stream(f"sampling={sampling}", model="resnet8:width=2,dropout=0.5")
    spec = model_spec(stream.recipe, stream)
    step = stream.steps_per_epoch + 3

    masks = with_masks(stream.batch(1, 3), spec, stream, step=step).masks

    keys = {
        "reshuffled": stream.samples(1, 3),
        "with_replacement": range(3 * 64, 4 * 64),
    }[sampling]
    drawn = draw_masks(spec, seed=0, epoch=1, samples=keys)
    assert_identical(masks["dropout"], drawn["dropout"])


def test_a_sample_drawn_twice_in_an_epoch_drops_otherwise_each_time():
    _, stream = make_stream("sampling=with_replacement", model="resnet8:width=8,dropout=0.5")
    spec = model_spec(stream.recipe, stream)

    masks = with_masks(stream.batch(0, 0), spec, stream, step=0).masks["dropout"]

    samples = stream.samples(0, 0).tolist()
    twice = next(sample for sample in samples if samples.count(sample) > 1)
    first, second = (masks[place] for place, sample in enumerate(samples) if sample == twice)
    assert (first != second).any()


@pytest.mark.parametrize(
    "other",
    [
        {"a": np.array([1.0, 2.5]), "b": np.zeros(2)},
        {"a": np.array([1.0, 2.0]), "c": np.zeros(2)},
        {"a": np.array([1.0, 2.0]), "b": np.zeros(2, dtype=np.float32)},
        {"a": np.array([1.0, 2.0]), "b": np.zeros((1, 2))},
    ],
    ids=["value", "name", "dtype", "shape"],
)
def test_a_states_digest_tells_any_change(other):
    state = {"a": np.array([1.0, 2.0]), "b": np.zeros(2)}

    assert state_digest(state) != state_digest(other)
    assert state_digest(state) == state_digest(dict(reversed(state.items())))
