"""Views of a test image whose logits are averaged: test-time augmentation.

Source: airbench 0.1.8, `infer`. Imports numpy only.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

# Upper left corners of the shifted windows in the padded image.
_SHIFTS = (0, 2)


def build_views(
    images: NDArray[np.float32], *, level: int
) -> Iterator[tuple[float, NDArray[np.float32]]]:
    """Yield the views of `(n, h, w, c)` images, the images themselves first, each with its weight.

    The weights add up to 1. Level 0 is the images alone; level 1 gives half the weight to their
    mirror images; level 2 gives half of it to level 1 of the images shifted by one pixel, down and
    right or up and left, over a border that reflects.
    """
    if level == 0:
        yield 1.0, images
        return
    share = 0.5 if level == 1 else 0.25
    yield from _mirrored_too(images, share)
    if level == 1:
        return
    height, width = images.shape[1:3]
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect")
    for shift in _SHIFTS:
        window = padded[:, shift : shift + height, shift : shift + width]
        yield from _mirrored_too(window, 0.125)


def _mirrored_too(
    images: NDArray[np.float32], weight: float
) -> Iterator[tuple[float, NDArray[np.float32]]]:
    yield weight, np.ascontiguousarray(images)
    yield weight, np.ascontiguousarray(images[:, :, ::-1])
