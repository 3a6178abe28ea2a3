"""Batches of a training run: shuffled, augmented, normalized.

A batch is a function of seed, epoch and index alone, so batches can be read in any order. The order
of an epoch, its crops and its flips are whole arrays drawn by key.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from parity.augment.crop import crop_images, draw_crop_offsets
from parity.augment.flip import draw_flips, flip_images
from parity.data.dataset import Dataset
from parity.errors import DataError
from parity.frameworks.net import Batch
from parity.rng import stream
from parity.spec.losses import LossSpec, TwoViewCrossEntropy, build_targets, evaluation_loss
from parity.spec.recipe import ResolvedRecipe

START_DIGEST = "0" * 64


@dataclass(frozen=True, kw_only=True)
class DrawnBatch:
    """A batch before normalization: what the digest of a run covers.

    Attributes:
        images: `(n, h, w, c)` uint8, augmented.
        labels: `(n,)` int64.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class _EpochDraws:
    epoch: int
    order: NDArray[np.int64]
    offsets: NDArray[np.uint16]
    flips: NDArray[np.bool_]


def chain_digest(previous: str, images: NDArray[np.uint8], labels: NDArray[np.int64]) -> str:
    """Return the SHA-256 of `previous` and one more batch, both digests in hexadecimal.

    The chain starts from `START_DIGEST`. Hashed are the 32 bytes of `previous`, the images' shape
    as text, the images, and the labels as little-endian int64. A chain needs no hidden state, so a
    resumed run goes on from the recorded text.
    """
    digest = hashlib.sha256(bytes.fromhex(previous))
    digest.update(repr(tuple(map(int, images.shape))).encode())
    digest.update(np.ascontiguousarray(images).data)
    digest.update(labels.astype("<i8").data)
    return digest.hexdigest()


def normalization_table(dataset: Dataset) -> NDArray[np.float32]:
    """Return `(x / scale - mean) / std` of each channel and pixel value, `(c, 256)` float32.

    It is computed in float64 and rounded once.
    """
    shares = np.arange(256, dtype=np.float64) / dataset.scale
    mean, std = np.array(dataset.mean)[:, np.newaxis], np.array(dataset.std)[:, np.newaxis]
    table: NDArray[np.float32] = ((shares - mean) / std).astype(np.float32)
    return table


def normalize_images(images: NDArray[np.uint8], table: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return `(n, h, w, c)` float32: each pixel value looked up in its channel's row of `table`."""
    count, height, width, channels = images.shape
    # PERF: one flat lookup: 0.7 ms for 128 images of 32x32x3, against 1.1 ms channel by channel.
    rows = np.tile(np.arange(channels, dtype=np.uint16) * 256, height * width)
    entries = images.reshape(count, height * width * channels) + rows
    return table.ravel().take(entries).reshape(images.shape)


class BatchStream:
    """The batches of one training run.

    Args:
        dataset: Source of the images, already at the recipe's resolution.
        recipe: Batch size, augmentation, loss targets and evaluation.
        seed: Of the run; order, crops and flips are keyed by it.

    Raises:
        DataError: If the data set does not fit the recipe.
    """

    def __init__(self, dataset: Dataset, recipe: ResolvedRecipe, *, seed: int) -> None:
        problems = _describe_misfit(dataset, recipe)
        if problems:
            message = f"{dataset.name} for recipe {recipe.name!r}: " + " ".join(problems)
            raise DataError(message)
        self.dataset = dataset
        self.recipe = recipe
        self.seed = seed
        self._table = normalization_table(dataset)
        self._draws: _EpochDraws | None = None

    @property
    def steps_per_epoch(self) -> int:
        """Batches of an epoch; a last smaller one counts unless the recipe drops it."""
        whole, rest = divmod(len(self.dataset.train_labels), self.recipe.batch_size)
        return whole + (rest > 0 and not self.recipe.drop_last)

    def batch(self, epoch: int, index: int) -> Batch:
        """Return the normalized batch `index` of `epoch`, both counted from 0."""
        return self.finish(self.draw(epoch, index))

    def draw(self, epoch: int, index: int) -> DrawnBatch:
        """Return the augmented uint8 batch `index` of `epoch`, both counted from 0.

        Raises:
            IndexError: If there is no such epoch or batch.
        """
        if epoch < 0 or not 0 <= index < self.steps_per_epoch:
            message = (
                f"batch stream: expected an epoch >= 0 and an index in "
                f"[0, {self.steps_per_epoch - 1}]; got epoch {epoch!r}, index {index!r}."
            )
            raise IndexError(message)
        draws = self._draw_epoch(epoch)
        samples = self.samples(epoch, index)
        images = self.dataset.train_images[samples]
        if self.recipe.augment.crop_px:
            images = crop_images(images, draws.offsets[samples], self.recipe.augment.crop_px)
        if self.recipe.augment.flip:
            images = flip_images(images, draws.flips[samples])
        return DrawnBatch(images=images, labels=self.dataset.train_labels[samples])

    def samples(self, epoch: int, index: int) -> NDArray[np.int64]:
        """Return which training samples batch `index` of `epoch` holds, both counted from 0."""
        size = self.recipe.batch_size
        return self._draw_epoch(epoch).order[index * size : (index + 1) * size]

    def finish(self, drawn: DrawnBatch) -> Batch:
        """Return the batch with normalized images and the loss's targets."""
        return self._finish(drawn, self.recipe.loss)

    def training_images(self, count: int) -> NDArray[np.float32]:
        """Return the first `count` training images, or all if there are fewer, normalized.

        They come as `(n, h, w, c)` in the data set's own order; nothing is augmented.
        """
        return normalize_images(self.dataset.train_images[:count], self._table)

    def test_batches(self) -> Iterator[Batch]:
        """Yield the test set in its own order, `evaluation.batch_size` images at a time.

        Nothing is augmented. Targets are those of `evaluation_loss`: the recipe's own where it
        trains on a cross-entropy.
        """
        yield from self.evaluation_batches(
            self.dataset.test_images,
            self.dataset.test_labels,
            batch_size=self.recipe.evaluation.batch_size,
        )

    def evaluation_batches(
        self, images: NDArray[np.uint8], labels: NDArray[np.int64], *, batch_size: int
    ) -> Iterator[Batch]:
        """Yield `images` in order, normalized, `batch_size` at a time; the last may be fewer."""
        loss = evaluation_loss(self.recipe.loss)
        for start in range(0, len(images), batch_size):
            part = slice(start, start + batch_size)
            yield self._finish(DrawnBatch(images=images[part], labels=labels[part]), loss)

    def _finish(self, drawn: DrawnBatch, loss: LossSpec) -> Batch:
        return Batch(
            images=normalize_images(drawn.images, self._table),
            labels=drawn.labels,
            targets=build_targets(loss, drawn.labels, classes=len(self.dataset.classes)),
        )

    def _draw_epoch(self, epoch: int) -> _EpochDraws:
        if self._draws is None or self._draws.epoch != epoch:
            count = len(self.dataset.train_labels)
            self._draws = _EpochDraws(
                epoch=epoch,
                order=stream(self.seed, "order", epoch).permutation(count),
                offsets=draw_crop_offsets(self.seed, epoch, count, self.recipe.augment.crop_px),
                flips=draw_flips(self.seed, epoch, count),
            )
        return self._draws


def _describe_misfit(dataset: Dataset, recipe: ResolvedRecipe) -> list[str]:
    problems = []
    side = dataset.input_size[0]
    if recipe.resolution not in (0, side):
        problems.append(
            f"expected images of {recipe.resolution} pixels a side; got {side}. "
            f"Load it with resolution={recipe.resolution}."
        )
    if isinstance(recipe.loss, TwoViewCrossEntropy):
        problems.append(
            f"loss.kind {recipe.loss.kind!r} compares two views of each image; the batches of a "
            "recipe hold one. Choose another loss."
        )
    if recipe.augment.crop_px >= side:
        problems.append(
            f"augment.crop_px must be below the side of {side} pixels; "
            f"got {recipe.augment.crop_px}."
        )
    if recipe.drop_last and recipe.batch_size > len(dataset.train_labels):
        problems.append(
            f"batch_size must be at most {len(dataset.train_labels)} with drop_last, "
            f"or no batch is left; got {recipe.batch_size}."
        )
    return problems
