"""The training loop: the same batches and rates for every net in a list, and evaluation."""

import dataclasses
import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from parity.augment.views import build_views
from parity.data.batches import BatchStream, chain_digest
from parity.frameworks.net import Batch, Net, State, StepRecord
from parity.initialize import initial_state
from parity.masks import draw_masks
from parity.spec.model_spec import ModelSpec
from parity.spec.models import named_spec
from parity.spec.optimizers import AVERAGE, AveragingSpec
from parity.spec.position import Position, position_at
from parity.spec.recipe import ResolvedRecipe
from parity.spec.schedules import count_steps, schedule_factor
from parity.whitening import WHITENING_IMAGES


@dataclass(frozen=True, kw_only=True)
class StepEvent:
    """One training step of every net.

    Attributes:
        step: 0-based count over the whole training.
        rates: Learning rate of each net; they differ only where a net was given another base rate.
        position: Where in the training the step is.
        batch: What the nets were fed.
        records: What each net returned.
        digest: Digest of the stream up to and including this batch.
    """

    step: int
    rates: tuple[float, ...]
    position: Position
    batch: Batch
    records: tuple[StepRecord, ...]
    digest: str


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """A net's score on the test set.

    Attributes:
        loss: Mean cross-entropy an image, under `parity.spec.losses.evaluation_loss`.
        accuracy: Share of images whose largest logit is the label's.
        plain_accuracy: As `accuracy`, from the images alone where loss and accuracy are those of
            logits averaged over views; None where no others are looked at.
    """

    loss: float
    accuracy: float
    plain_accuracy: float | None = None


def model_spec(recipe: ResolvedRecipe, stream: BatchStream) -> ModelSpec:
    """Return the spec of the recipe's model for the stream's images."""
    dataset = stream.dataset
    return named_spec(
        recipe.model,
        conventions=recipe.conventions,
        in_channels=dataset.channels,
        input_size=dataset.input_size,
        classes=len(dataset.classes),
    )


def total_steps(recipe: ResolvedRecipe, stream: BatchStream) -> int:
    """Return the steps of the full recipe."""
    return count_steps(recipe.epochs, steps_per_epoch=stream.steps_per_epoch)


def rate_at(recipe: ResolvedRecipe, stream: BatchStream, *, step: int) -> float:
    """Return the recipe's learning rate at a 0-based step."""
    factor = schedule_factor(
        recipe.schedule, step=step, steps_per_epoch=stream.steps_per_epoch, epochs=recipe.epochs
    )
    return recipe.update.rule.lr * factor


def with_masks(batch: Batch, spec: ModelSpec, stream: BatchStream, *, step: int) -> Batch:
    """Return the batch of a 0-based step with what the model's layers keep in it."""
    epoch, index = divmod(step, stream.steps_per_epoch)
    keys = stream.draw_keys(epoch, index)
    masks = draw_masks(spec, seed=stream.seed, epoch=epoch, samples=keys)
    return dataclasses.replace(batch, masks=masks)


def training_steps(
    nets: Sequence[Net],
    stream: BatchStream,
    *,
    recipes: Sequence[ResolvedRecipe],
    start: int,
    stop: int,
    digest: str,
    with_gradients: bool = False,
) -> Iterator[StepEvent]:
    """Train every net on the same batches from step `start` up to `stop`, yielding after each step.

    Args:
        nets: Nets to train, each under the recipe at its place in `recipes`.
        stream: Source of the batches.
        recipes: Read for the learning rate and the number of steps; the masks are those of the
            first one's model.
        start: First step, 0-based.
        stop: Step to stop before.
        digest: Digest of the stream before `start`.
        with_gradients: Whether records hold gradients.
    """
    spec = model_spec(recipes[0], stream)
    for step in range(start, stop):
        epoch, index = divmod(step, stream.steps_per_epoch)
        drawn = stream.draw(epoch, index)
        digest = chain_digest(digest, drawn)
        batch = with_masks(stream.finish(drawn), spec, stream, step=step)
        rates = tuple(rate_at(recipe, stream, step=step) for recipe in recipes)
        position = position_at(
            step,
            steps_per_epoch=stream.steps_per_epoch,
            steps=total_steps(recipes[0], stream),
        )
        records = tuple(
            net.step(batch, rate=rate, position=position, with_gradients=with_gradients)
            for net, rate in zip(nets, rates, strict=True)
        )
        yield StepEvent(
            step=step,
            rates=rates,
            position=position,
            batch=batch,
            records=records,
            digest=digest,
        )


def start_state(spec: ModelSpec, stream: BatchStream) -> State:
    """Return the arrays that every twin of `spec` starts from on the stream's images."""
    return dict(
        initial_state(spec, seed=stream.seed, images=stream.training_images(WHITENING_IMAGES))
    )


def evaluate(net: Net, stream: BatchStream) -> Evaluation:
    """Score a net on the test set, in evaluation mode, at the recipe's level of augmentation."""
    level = stream.recipe.evaluation.tta_level
    loss, correct, plain, count = 0.0, 0, 0, 0
    for batch in stream.test_batches():
        views = build_views(batch.images, level=level)
        parts = [weight * _evaluation_logits(net, images) for weight, images in views]
        logits = np.sum(parts, axis=0)
        loss += float(_cross_entropies(logits, batch.targets).sum())
        correct += count_correct(logits, batch)
        plain += count_correct(parts[0], batch)
        count += len(batch.labels)
    return Evaluation(
        loss=loss / count,
        accuracy=correct / count,
        plain_accuracy=plain / count if level else None,
    )


def _evaluation_logits(net: Net, images: np.ndarray) -> np.ndarray:
    logits: np.ndarray = net.forward(images, training=False).astype(np.float64)
    return logits


@contextmanager
def scored_weights(net: Net, averaging: AveragingSpec) -> Iterator[None]:
    """Give a net, for the time inside, the weights that are evaluated and saved."""
    if not averaging.is_scored():
        yield
        return
    trained = net.state()
    net.load_state({**trained, **net.optimizer_state().slots[AVERAGE]})
    try:
        yield
    finally:
        net.load_state(trained)


def count_correct(logits: np.ndarray, batch: Batch) -> int:
    """Return how many images' largest logit is their label's."""
    return int((logits.argmax(axis=1) == batch.labels).sum())


def state_digest(state: dict[str, np.ndarray]) -> str:
    """Return the SHA-256 of a state's names, types and bytes."""
    digest = hashlib.sha256()
    for name in sorted(state):
        digest.update(f"{name} {state[name].dtype} {state[name].shape}".encode())
        digest.update(np.ascontiguousarray(state[name]).data)
    return digest.hexdigest()


def _cross_entropies(logits: np.ndarray, targets: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(axis=1, keepdims=True)
    entropies: np.ndarray = -(
        targets * (shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))
    ).sum(axis=1)
    return entropies
