"""Sliding windows over padded images, which convolution and pooling share."""

from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from parity.errors import SpecError
from parity.reference.layers.arrays import Array
from parity.spec.conventions import StrideOffset

Pads = tuple[int, int]
Pair = tuple[int, int]
ImagePads = tuple[Pads, Pads]

# A rule, or the pixels `((above, below), (left, right))`.
Padding = StrideOffset | ImagePads


@dataclass(frozen=True, kw_only=True)
class Windows:
    """Where the windows of a layer lie over its images, by rows and columns.

    Attributes:
        size: Of the images, `(h, w)`.
        kernel: Pixels that a window reads, each way.
        stride: Pixels between the first pixels of neighbouring windows.
        dilation: Pixels between neighbouring pixels of one window.
        pads: Pixels added before and after the images, `((above, below), (left, right))`.
    """

    size: Pair
    kernel: Pair
    stride: Pair
    dilation: Pair
    pads: ImagePads

    def __post_init__(self) -> None:
        numbers = (*self.size, *self.kernel, *self.stride, *self.dilation)
        if min(numbers) < 1 or min(*self.pads[0], *self.pads[1]) < 0:
            message = (
                "windows: expected sizes, kernels, strides and dilations of at least 1 and pads of "
                f"at least 0; got {self}."
            )
            raise SpecError(message)
        if min(self.counts) < 1:
            message = (
                f"a window of {self.kernel[0]}x{self.kernel[1]}, dilated by {self.dilation}, does "
                f"not fit images of {self.size[0]}x{self.size[1]} padded by {self.pads}."
            )
            raise SpecError(message)

    @property
    def extent(self) -> Pair:
        """Pixels from the first to the last that a window reads, both included."""
        rows, columns = (
            window_extent(k, dilation=d) for k, d in zip(self.kernel, self.dilation, strict=True)
        )
        return rows, columns

    @property
    def counts(self) -> Pair:
        """Windows each way, `(h', w')`."""
        rows, columns = (
            (size + sum(pads) - extent) // stride + 1
            for size, pads, extent, stride in zip(
                self.size, self.pads, self.extent, self.stride, strict=True
            )
        )
        return rows, columns


def as_pair(value: int | Pair) -> Pair:
    """Return a number of pixels for rows and columns, which one number gives for both."""
    return (value, value) if isinstance(value, int) else value


def window_extent(kernel: int, *, dilation: int) -> int:
    """Return the pixels from the first to the last that a window reads, both included.

    >>> window_extent(3, dilation=2)
    5
    """
    return (kernel - 1) * dilation + 1


def window_pads(
    size: int, *, kernel: int, stride: int, stride_offset: StrideOffset, dilation: int = 1
) -> Pads:
    """Return the pixels `(before, after)` that a sliding window adds to a side of `size` pixels.

    `start` pads `dilation * (kernel - 1) // 2` on either side whatever the size (torch's
    `padding=kernel // 2` for odd kernels; an even kernel then loses a window). `end` pads just
    enough for `ceil(size / stride)` windows, the odd pixel after: the first window of a strided
    layer then begins later than with `start`, or not, depending on the size.

    >>> window_pads(8, kernel=3, stride=2, stride_offset="start")
    (1, 1)
    >>> window_pads(8, kernel=3, stride=2, stride_offset="end")
    (0, 1)

    Source: `start`, torchvision 0.28 models/resnet.py; `end`, tensorflow 2.21.0 `tf.nn`, "SAME"
        padding, and torch 2.13.0 `padding="same"`, which exists at stride 1 only.
    """
    extent = window_extent(kernel, dilation=dilation)
    if stride_offset == "start":
        return (extent - 1) // 2, (extent - 1) // 2
    if stride_offset != "end":
        message = f"stride_offset must be 'start' or 'end'; got {stride_offset!r}."
        raise SpecError(message)
    total = max((-(-size // stride) - 1) * stride + extent - size, 0)
    return total // 2, total - total // 2


def place_windows(
    images: Array,
    kernel: int | Pair,
    *,
    stride: int | Pair,
    padding: Padding,
    dilation: int | Pair,
) -> Windows:
    """Return the windows of a kernel over `(n, c, h, w)` images.

    Args:
        images: Of which only the shape matters.
        kernel: Pixels a window reads.
        stride: Pixels between windows.
        padding: A rule of `window_pads`, or the pixels `((above, below), (left, right))`.
        dilation: Pixels between neighbouring pixels of a window.
    """
    size = (images.shape[2], images.shape[3])
    kernel, stride, dilation = as_pair(kernel), as_pair(stride), as_pair(dilation)
    if isinstance(padding, str):
        rows, columns = (
            window_pads(n, kernel=k, stride=s, stride_offset=padding, dilation=d)
            for n, k, s, d in zip(size, kernel, stride, dilation, strict=True)
        )
        padding = (rows, columns)
    return Windows(size=size, kernel=kernel, stride=stride, dilation=dilation, pads=padding)


def take_windows(images: Array, windows: Windows, *, fill: float) -> Array:
    """Return a view `(n, c, h', w', i, j)` of every window over the padded images."""
    padded = np.pad(images, ((0, 0), (0, 0), *windows.pads), constant_values=fill)
    views = sliding_window_view(padded, windows.extent, axis=(2, 3))
    (rows, columns), (i, j) = windows.stride, windows.dilation
    return views[:, :, ::rows, ::columns, ::i, ::j]


def sum_windows(d_windows: Array, windows: Windows) -> Array:
    """Return each pixel's sum over the windows that read it: the transpose of `take_windows`."""
    (top, bottom), (left, right) = windows.pads
    height, width = windows.size
    padded = np.zeros((*d_windows.shape[:2], top + height + bottom, left + width + right))
    for i, j in np.ndindex(windows.kernel):
        rows = _read_at(i, windows, axis=0)
        columns = _read_at(j, windows, axis=1)
        padded[:, :, rows, columns] += d_windows[..., i, j]
    return padded[:, :, top : top + height, left : left + width]


def read_counts(windows: Windows, *, pads: ImagePads) -> Array:
    """Return how many pixels of images padded by `pads` each window reads, `(h', w')`."""
    counts = []
    for axis in (0, 1):
        starts = np.arange(windows.counts[axis]) * windows.stride[axis] - windows.pads[axis][0]
        taps = np.arange(windows.kernel[axis]) * windows.dilation[axis]
        reads = starts[:, np.newaxis] + taps
        before, after = pads[axis]
        inside = (reads >= -before) & (reads < windows.size[axis] + after)
        counts.append(inside.sum(axis=1, dtype=np.float64))
    grid: Array = np.multiply.outer(counts[0], counts[1])
    return grid


def _read_at(tap: int, windows: Windows, *, axis: int) -> slice:
    """Return the padded pixels that stand at one place of their windows."""
    first = tap * windows.dilation[axis]
    last = first + (windows.counts[axis] - 1) * windows.stride[axis]
    return slice(first, last + 1, windows.stride[axis])
