"""Rounding to shorter number formats that NumPy does not have."""

import numpy as np
from numpy.typing import ArrayLike

from parity.reference.optimizers.types import Array

# A bfloat16 is the upper half of a float32.
_DROPPED_BITS = 16


def round_to_bfloat16(array: ArrayLike) -> Array:
    """Return the nearest bfloat16 of each finite element, ties to even, as float64.

    >>> round_to_bfloat16([1.0, 1.0 + 2**-8, 1.0 + 3 * 2**-8, 0.1]).tolist()
    [1.0, 1.0, 1.015625, 0.10009765625]
    """
    bits = np.asarray(array, dtype=np.float32).view(np.uint32)
    is_odd = (bits >> np.uint32(_DROPPED_BITS)) & np.uint32(1)
    rounded = (bits + np.uint32(0x7FFF) + is_odd) & np.uint32(0xFFFF0000)
    return rounded.view(np.float32).astype(np.float64)
