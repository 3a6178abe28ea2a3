"""Generated images for smoke tests: quickly learned, so an accuracy on them means nothing."""

import numpy as np
from numpy.typing import NDArray

from parity.data.dataset import Dataset, measure_moments
from parity.rng import stream

CLASSES = 10
SIDE = 32
CHANNELS = 3
TRAIN_COUNT = 512
TEST_COUNT = 128
CELL_PX = 8  # side of a pattern's cells: wide, so that a crop by a few pixels leaves it readable
CONTRAST = 48  # pixel values between a pattern's levels and grey
NOISE = 64  # largest pixel value added or taken away at random


def load_synthetic() -> Dataset:
    """Return 512 training and 128 test images of 32x32x3 in ten classes, always the same.

    An image is grey, plus its class's pattern of light and dark cells, plus uniform noise of its
    own. `mean` and `std` are measured on the training images.
    """
    cells = SIDE // CELL_PX
    signs = stream(0, "synthetic", "patterns").integers(
        0, 2, size=(CLASSES, cells, cells, CHANNELS)
    )
    patterns = (2 * signs - 1).repeat(CELL_PX, axis=1).repeat(CELL_PX, axis=2) * CONTRAST
    train_images, train_labels = _draw_split("train", TRAIN_COUNT, patterns)
    test_images, test_labels = _draw_split("test", TEST_COUNT, patterns)
    mean, std = measure_moments(train_images, scale=255)
    return Dataset(
        name="synthetic",
        train_images=train_images,
        train_labels=train_labels,
        test_images=test_images,
        test_labels=test_labels,
        classes=tuple(f"pattern {index}" for index in range(CLASSES)),
        mean=mean,
        std=std,
        scale=255,
        source="generated",
    )


def _draw_split(
    split: str, count: int, patterns: NDArray[np.int64]
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    generator = stream(0, "synthetic", split)
    labels = generator.permutation(np.arange(count) % CLASSES)
    noise = generator.integers(-NOISE, NOISE, size=(count, SIDE, SIDE, CHANNELS), endpoint=True)
    return (128 + patterns[labels] + noise).astype(np.uint8), labels.astype(np.int64)
