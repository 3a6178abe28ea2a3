"""The training loop's parts: scores worked by hand, and digests that tell states apart."""

import dataclasses

import numpy as np
import pytest

from parity.cli.options import open_stream, resolve
from parity.data.batches import BatchStream
from parity.lockstep.loop import evaluate, rate_at, state_digest, total_steps
from parity.spec.losses import BinaryCrossEntropy


def make_stream(*overrides):
    recipe = resolve("best_sgd", data="synthetic", model=None, epochs=4, overrides=list(overrides))
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
