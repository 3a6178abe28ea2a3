"""`Dataset`: labelled uint8 images, checked at construction, and its change of resolution."""

import dataclasses
import math

import numpy as np
from numpy.typing import NDArray

from parity.errors import DataError


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Dataset:
    """Square images with labels, as published: raw pixel values, no normalization.

    Attributes:
        name: In the table of data sets.
        train_images: `(n, h, w, c)` uint8, h = w.
        train_labels: `(n,)` int64, each an index into `classes`.
        test_images: As `train_images`, of the same `(h, w, c)`.
        test_labels: As `train_labels`.
        classes: Name of each class.
        mean: Of each channel, as a share of `scale`.
        std: Of each channel over all pixels, as a share of `scale`.
        scale: Largest pixel value of the format: 255, or 16 for the digits.
        source: Where the images come from, and what was done to them since.
    """

    name: str
    train_images: NDArray[np.uint8]
    train_labels: NDArray[np.int64]
    test_images: NDArray[np.uint8]
    test_labels: NDArray[np.int64]
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    scale: int
    source: str

    def __post_init__(self) -> None:
        problems = [
            *_describe_split("train", self.train_images, self.train_labels, self),
            *_describe_split("test", self.test_images, self.test_labels, self),
        ]
        if not problems:
            problems = _describe_constants(self)
        if problems:
            message = f"{self.name} ({self.source}): " + " ".join(problems)
            raise DataError(message)

    @property
    def input_size(self) -> tuple[int, int]:
        """Image `(height, width)` in pixels."""
        height, width = self.train_images.shape[1:3]
        return height, width

    @property
    def channels(self) -> int:
        """Channels of an image: 1 for grey, 3 for colour."""
        return int(self.train_images.shape[3])


def _describe_split(
    split: str, images: NDArray[np.uint8], labels: NDArray[np.int64], dataset: Dataset
) -> list[str]:
    problems = []
    if images.dtype != np.uint8 or images.ndim != 4 or 0 in images.shape:
        problems.append(
            f"{split}_images must be uint8 (n, h, w, c), none of them 0; "
            f"got {images.dtype} {images.shape}."
        )
    elif images.shape[1] != images.shape[2]:
        problems.append(f"{split}_images must be square; got {images.shape[1:3]}.")
    elif int(images.max()) > dataset.scale:
        problems.append(
            f"{split}_images must not exceed scale {dataset.scale}; got {int(images.max())}."
        )
    if labels.dtype != np.int64 or labels.shape != images.shape[:1]:
        problems.append(
            f"{split}_labels must be int64 {images.shape[:1]}; got {labels.dtype} {labels.shape}."
        )
    elif labels.size and not 0 <= labels.min() <= labels.max() < len(dataset.classes):
        problems.append(
            f"{split}_labels must be in [0, {len(dataset.classes) - 1}]; "
            f"got {labels.min()} to {labels.max()}."
        )
    return problems


def _describe_constants(dataset: Dataset) -> list[str]:
    problems = []
    if dataset.test_images.shape[1:] != dataset.train_images.shape[1:]:
        problems.append(
            f"test_images must be {dataset.train_images.shape[1:]} as train_images; "
            f"got {dataset.test_images.shape[1:]}."
        )
    if not 1 <= dataset.scale <= 255:
        problems.append(f"scale must be in [1, 255]; got {dataset.scale!r}.")
    for field in ("mean", "std"):
        values = getattr(dataset, field)
        if len(values) != dataset.channels or not all(map(math.isfinite, values)):
            problems.append(
                f"{field} must be {dataset.channels} finite numbers, one a channel; got {values!r}."
            )
    if any(value <= 0 for value in dataset.std):
        problems.append(f"std must be > 0; got {dataset.std!r}.")
    return problems


def measure_moments(
    images: NDArray[np.uint8], *, scale: int
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return each channel's mean and standard deviation over all pixels, as shares of `scale`.

    The variance divides by the count. Sums are taken in integers, so the result does not depend on
    the order of summation.
    """
    pixels = images.shape[0] * images.shape[1] * images.shape[2]
    means, deviations = [], []
    for channel in range(images.shape[3]):
        counts = np.bincount(images[..., channel].ravel(), minlength=256)
        values = np.arange(256)
        total, squares = int(counts @ values), int(counts @ values**2)
        means.append(total / (pixels * scale))
        deviations.append(math.sqrt(pixels * squares - total**2) / (pixels * scale))
    return tuple(means), tuple(deviations)


def resize_dataset(dataset: Dataset, resolution: int) -> Dataset:
    """Return the data set with images of `resolution` pixels a side; 0 returns it unchanged.

    A multiple of the side repeats pixels (8 -> 32). A divisor averages blocks and rounds halves up
    (28 -> 14). A side larger by an even number of pixels but less than double gets that border of
    zeros (28 -> 32). `mean` and `std` stay: they are constants of the pixel values.

    Raises:
        DataError: If none of the three applies; the message lists the resolutions that work.
    """
    side = dataset.input_size[0]
    if resolution in (0, side):
        return dataset
    if resolution > 0 and resolution % side == 0:
        resize, how = _repeat_pixels, "pixels repeated"
    elif resolution > 0 and side % resolution == 0:
        resize, how = _average_blocks, "mean pooled"
    elif side < resolution < 2 * side and (resolution - side) % 2 == 0:
        resize, how = _pad_border, "zero padded"
    else:
        raise DataError(describe_resolutions(dataset.name, side, resolution))
    return dataclasses.replace(
        dataset,
        train_images=resize(dataset.train_images, resolution),
        test_images=resize(dataset.test_images, resolution),
        source=f"{dataset.source}; {how} from {side}x{side} to {resolution}x{resolution}",
    )


def describe_resolutions(name: str, side: int, resolution: int) -> str:
    """Return which resolutions a data set of that side can be brought to."""
    divisors = [str(value) for value in range(1, side) if side % value == 0]
    padded = [str(value) for value in range(side + 2, 2 * side, 2)]
    choices = [f"0 or {side}"]
    if divisors:
        choices.append(f"below it {', '.join(divisors)}")
    border = f"an even border ({_join_or(padded)}) or " if padded else ""
    choices.append(f"above it {border}a multiple ({2 * side}, {3 * side}, ...)")
    return f"{name}: resolution must be {', '.join(choices)}; got {resolution}."


def _join_or(values: list[str]) -> str:
    return " or ".join([", ".join(values[:-1]), values[-1]] if len(values) > 1 else values)


def _repeat_pixels(images: NDArray[np.uint8], resolution: int) -> NDArray[np.uint8]:
    factor = resolution // images.shape[1]
    return images.repeat(factor, axis=1).repeat(factor, axis=2)


def _average_blocks(images: NDArray[np.uint8], resolution: int) -> NDArray[np.uint8]:
    factor = images.shape[1] // resolution
    # SHAPE: (n, h, w, c) -> (n, h / f, f, w / f, f, c)
    blocks = images.reshape(len(images), resolution, factor, resolution, factor, images.shape[3])
    sums = blocks.sum(axis=(2, 4), dtype=np.uint32)
    area = factor**2
    means: NDArray[np.uint8] = ((2 * sums + area) // (2 * area)).astype(np.uint8)
    return means


def _pad_border(images: NDArray[np.uint8], resolution: int) -> NDArray[np.uint8]:
    border = (resolution - images.shape[1]) // 2
    return np.pad(images, ((0, 0), (border, border), (border, border), (0, 0)))
