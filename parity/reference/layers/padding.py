"""Padding of images forward and backward."""

from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from parity.errors import SpecError
from parity.reference.layers.arrays import Array, widen
from parity.reference.layers.windows import ImagePads, Pads

PadMode = Literal["constant", "reflect", "symmetric", "edge", "wrap"]
_Indices = NDArray[np.intp]


def pad2d(images: ArrayLike, *, pads: ImagePads, mode: PadMode, value: float) -> Array:
    """Return images with pixels added around them; a negative number of pads drops pixels.

    With pixels `a b c`, `reflect` adds `b` before `a`, `symmetric` and `edge` add `a`, `wrap` adds
    `c`; two pixels further out `symmetric` has `b` and `edge` still `a`.

    Args:
        images: `(n, c, h, w)`.
        pads: Pixels `((above, below), (left, right))`, in Keras's order; torch lists
            `(left, right, above, below)`.
        mode: What the added pixels hold.
        value: What they hold with `constant`; of no effect otherwise.

    Source: torch 2.13.0, `torch.nn.functional.pad` (its `replicate` is `edge`, its `circular`
        `wrap`; it has no `symmetric`); keras 3.15.1, `keras.ops.pad`.

    Raises:
        SpecError: If `reflect` is asked for as many pixels as there are, `symmetric` or `wrap` for
            more, or nothing is left.
    """
    images = widen(images)
    rows, columns = _sources(images, pads, mode=mode)
    padded = images[:, :, np.maximum(rows, 0)[:, np.newaxis], np.maximum(columns, 0)]
    return np.where(_is_read(rows, columns), padded, value)


def pad2d_backward(
    d_outputs: ArrayLike, images: ArrayLike, *, pads: ImagePads, mode: PadMode
) -> Array:
    """Return `d_images` of `pad2d`: each pixel's sum of `dy` over the places that hold it."""
    images, d_outputs = widen(images), widen(d_outputs)
    rows, columns = _sources(images, pads, mode=mode)
    height, width = images.shape[2:]
    d_images: Array = _read_matrix(rows, height).T @ d_outputs @ _read_matrix(columns, width)
    return d_images


def _read_matrix(sources: _Indices, size: int) -> Array:
    """Return the `(place, pixel)` matrix that is 1 where a place holds a pixel."""
    return np.asarray(sources[:, np.newaxis] == np.arange(size), dtype=np.float64)


def _is_read(rows: _Indices, columns: _Indices) -> NDArray[np.bool_]:
    return (rows >= 0)[:, np.newaxis] & (columns >= 0)


def _sources(images: Array, pads: ImagePads, *, mode: PadMode) -> tuple[_Indices, _Indices]:
    rows, columns = (
        _axis_sources(size, pair, mode=mode)
        for size, pair in zip(images.shape[2:], pads, strict=True)
    )
    return rows, columns


def _axis_sources(size: int, pads: Pads, *, mode: PadMode) -> _Indices:
    """Return the pixel that each place of a padded side holds, -1 for a constant."""
    if mode not in get_args(PadMode):
        message = f"pad2d: mode must be one of {', '.join(get_args(PadMode))}; got {mode!r}."
        raise SpecError(message)
    limit = {"reflect": size - 1, "symmetric": size, "wrap": size}.get(mode)
    if sum(pads) <= -size or (limit is not None and max(pads) > limit):
        message = f"pad2d: {mode} cannot pad {size} pixels by {pads}."
        raise SpecError(message)
    places = np.arange(-pads[0], size + pads[1])
    if mode == "constant":
        return np.where((places >= 0) & (places < size), places, -1)
    if mode == "edge":
        return np.clip(places, 0, size - 1)
    if mode == "wrap":
        return places % size
    # A mirror on a border pixel skips it, one between pixels repeats it.
    skipped = 1 if mode == "reflect" else 0
    folded = np.where(places < 0, -places - 1 + skipped, places)
    return np.where(folded >= size, 2 * size - 1 - skipped - folded, folded)
