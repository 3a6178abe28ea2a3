"""Axes and paddings of Keras's layers and functions, as plain numbers. Imports no framework."""

from collections.abc import Sequence

from parity.frameworks.keras_capture.calls import Nest, Tensor

Shape = tuple[int, ...]
Widths = tuple[tuple[int, int], ...]


def channel_axis(data_format: str, rank: int) -> int:
    """Return the axis of the channels.

    >>> channel_axis("channels_last", 4), channel_axis("channels_first", 4)
    (3, 1)
    """
    return 1 if data_format == "channels_first" else rank - 1


def spatial_axes(data_format: str, rank: int) -> tuple[int, ...]:
    """Return the axes that are neither the batch nor the channels."""
    start = 2 if data_format == "channels_first" else 1
    return tuple(range(start, start + rank - 2))


def as_axes(axis: Nest, rank: int) -> tuple[int, ...]:
    """Return axes counted from the front; None stands for all.

    >>> as_axes(-1, 3), as_axes(None, 2), as_axes([0, -2], 3)
    ((2,), (0, 1), (0, 1))
    """
    if axis is None:
        return tuple(range(rank))
    axes = axis if isinstance(axis, list | tuple) else (axis,)
    return tuple(sorted(int(one) % rank for one in axes))


def as_tuple(number: Nest, count: int) -> tuple[int, ...]:
    """Return one number for each of `count` axes."""
    if isinstance(number, list | tuple):
        return tuple(int(one) for one in number)
    return (int(number),) * count


def explicit_padding(
    padding: str, sizes: Shape, *, kernel: Shape, stride: Shape, dilation: Shape
) -> Widths:
    """Return how many zeros are put before and after each spatial axis.

    >>> explicit_padding("same", (8,), kernel=(3,), stride=(2,), dilation=(1,))
    ((0, 1),)

    Source: keras 3.15.1, layers/convolutional/base_conv.py; "same" is tensorflow's on all backends.
    """
    rows = zip(sizes, kernel, stride, dilation, strict=True)
    return tuple(_widths(padding, size, (k - 1) * d + 1, step) for size, k, step, d in rows)


def _widths(padding: str, size: int, extent: int, stride: int) -> tuple[int, int]:
    if padding == "causal":
        return extent - 1, 0
    if padding != "same":
        return 0, 0
    total = max((-(-size // stride) - 1) * stride + extent - size, 0)
    return total // 2, total - total // 2


def shape_of(tensor: Tensor) -> Shape:
    """Return a shape as numbers, -1 where Keras does not know one."""
    return tuple(-1 if size is None else int(size) for size in tensor.shape)


def pick(shape: Sequence[int], axes: Sequence[int]) -> Shape:
    """Return the sizes along some axes."""
    return tuple(shape[axis] for axis in axes)
