"""Arrays from a closed formula of name and shape, so that two programs can hold the same weights.

For comparing a model with one that lives in another environment: no file of weights changes hands.
Imports numpy and `parity.spec` only.
"""

import math
import zlib
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from parity.spec.layers import Shape

# Elements repeat after a prime number of them; no array of a ResNet's shapes aligns with it.
_PERIOD = 1_000_003


def formula_array(name: str, shape: Shape) -> NDArray[np.float64]:
    """Return `sqrt(2) sin(2 pi ((k^3 + s k) mod p) / p)`, of mean 0 and variance 1.

    `k` counts the elements from 1 in C order, `s` is the CRC-32 of the name and `p` 1,000,003. The
    cube is taken in whole numbers, and keeps a matrix of such elements from having a low rank.

    >>> formula_array("head.bias", (2,)).round(6).tolist()
    [1.352691, 0.789232]
    """
    k = np.arange(1, math.prod(shape) + 1, dtype=np.int64)
    shift = zlib.crc32(name.encode()) % _PERIOD
    phase = (k * k % _PERIOD + shift) * k % _PERIOD
    values: NDArray[np.float64] = math.sqrt(2.0) * np.sin(2.0 * math.pi / _PERIOD * phase)
    return values.reshape(shape)


def formula_state(shapes: Mapping[str, Shape]) -> dict[str, NDArray[np.float32]]:
    """Return an array for each slot, scaled so that a deep net's outputs stay of moderate size.

    Kernels have variance `2 / fan_in`; a batch norm's weight lies around 0.8, its variance around 1
    and never below 0.5.

    Args:
        shapes: `layer path.slot name` -> shape in PyTorch's layout, such as a spec's
            `state_shapes()`.
    """
    return {name: _scaled(name, shape).astype(np.float32) for name, shape in shapes.items()}


def formula_images(shape: Shape, *, patch_px: int) -> NDArray[np.float32]:
    """Return images `(n, c, h, w)` of coarse patches under fine noise.

    White noise alone has the same statistics in every image, and a deep net would hardly tell one
    from the other.
    """
    count, channels, height, width = shape
    grid = (count, channels, -(-height // patch_px), -(-width // patch_px))
    patches = formula_array("patches", grid).repeat(patch_px, axis=2).repeat(patch_px, axis=3)
    images = 2.0 * patches[:, :, :height, :width] + 0.5 * formula_array("noise", shape)
    return images.astype(np.float32)


def _scaled(name: str, shape: Shape) -> NDArray[np.float64]:
    values = formula_array(name, shape)
    if len(shape) > 1:
        return values * math.sqrt(2.0 / math.prod(shape[1:]))
    slot = name.rpartition(".")[2]
    if slot == "running_var":
        return 1.0 + 0.3 * values
    return 0.8 + 0.2 * values if slot == "weight" else 0.1 * values
