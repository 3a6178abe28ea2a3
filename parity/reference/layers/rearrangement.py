"""Layers that only move numbers: pixel shuffling and flattening, forward and backward."""

from typing import Literal, get_args

from numpy.typing import ArrayLike

from parity.errors import SpecError
from parity.reference.layers.arrays import Array, widen

ShuffleOrder = Literal["cij", "ijc"]
FlattenOrder = Literal["chw", "hwc"]


def pixel_shuffle(images: ArrayLike, *, factor: int, order: ShuffleOrder) -> Array:
    """Return `(n, c, h*factor, w*factor)` images of `(n, c*factor**2, h, w)` ones.

    Row `h*factor + i`, column `w*factor + j` of channel `c` comes from pixel `(h, w)` of channel
    `(c*factor + i)*factor + j` with order `cij` (torch), `(i*factor + j)*channels + c` with order
    `ijc` (Keras).

    Source: torch 2.13.0, `torch.nn.PixelShuffle`; keras 3.15.1, `keras.ops.depth_to_space`.

    Raises:
        SpecError: If the square of the factor does not divide the channels.
    """
    images = widen(images)
    _require_order(order)
    count, channels, height, width = images.shape
    if factor < 1 or channels % factor**2:
        message = f"pixel_shuffle: {factor}x{factor} does not divide {channels} channels."
        raise SpecError(message)
    kept = channels // factor**2
    if order == "cij":
        split = images.reshape(count, kept, factor, factor, height, width)
        moved = split.transpose(0, 1, 4, 2, 5, 3)
    else:
        split = images.reshape(count, factor, factor, kept, height, width)
        moved = split.transpose(0, 3, 4, 1, 5, 2)
    return moved.reshape(count, kept, height * factor, width * factor)


def pixel_shuffle_backward(d_outputs: ArrayLike, *, factor: int, order: ShuffleOrder) -> Array:
    """Return `d_images` of `pixel_shuffle`: the gradients moved back."""
    return pixel_unshuffle(d_outputs, factor=factor, order=order)


def pixel_unshuffle(images: ArrayLike, *, factor: int, order: ShuffleOrder) -> Array:
    """Return `(n, c*factor**2, h/factor, w/factor)` images: the inverse of `pixel_shuffle`.

    Source: torch 2.13.0, `torch.nn.PixelUnshuffle`; keras 3.15.1, `keras.ops.space_to_depth`.

    Raises:
        SpecError: If the factor does not divide rows and columns.
    """
    images = widen(images)
    _require_order(order)
    count, channels, height, width = images.shape
    if factor < 1 or height % factor or width % factor:
        message = f"pixel_unshuffle: {factor} does not divide images of {height}x{width}."
        raise SpecError(message)
    rows, columns = height // factor, width // factor
    split = images.reshape(count, channels, rows, factor, columns, factor)
    axes = (0, 1, 3, 5, 2, 4) if order == "cij" else (0, 3, 5, 1, 2, 4)
    return split.transpose(axes).reshape(count, channels * factor**2, rows, columns)


def pixel_unshuffle_backward(d_outputs: ArrayLike, *, factor: int, order: ShuffleOrder) -> Array:
    """Return `d_images` of `pixel_unshuffle`: the gradients moved back."""
    return pixel_shuffle(d_outputs, factor=factor, order=order)


def flatten(images: ArrayLike, *, order: FlattenOrder) -> Array:
    """Return `(n, c*h*w)` values of images, channels outermost (`chw`, torch) or innermost (`hwc`).

    Keras flattens the axes as its images have them, `hwc` for channels-last ones. The linear layer
    behind is settled by moving the inputs of its weight: from `o(chw)` to `(hwc)o`.
    """
    images = widen(images)
    _require_flatten_order(order)
    moved = images if order == "chw" else images.transpose(0, 2, 3, 1)
    return moved.reshape(images.shape[0], -1).copy()


def flatten_backward(d_outputs: ArrayLike, images: ArrayLike, *, order: FlattenOrder) -> Array:
    """Return `d_images` of `flatten`: the gradients moved back."""
    count, channels, height, width = widen(images).shape
    _require_flatten_order(order)
    if order == "chw":
        return widen(d_outputs).reshape(count, channels, height, width).copy()
    moved = widen(d_outputs).reshape(count, height, width, channels)
    return moved.transpose(0, 3, 1, 2).copy()


def _require_order(order: str) -> None:
    if order not in get_args(ShuffleOrder):
        message = f"order must be 'cij' or 'ijc'; got {order!r}."
        raise SpecError(message)


def _require_flatten_order(order: str) -> None:
    if order not in get_args(FlattenOrder):
        message = f"order must be 'chw' or 'hwc'; got {order!r}."
        raise SpecError(message)
