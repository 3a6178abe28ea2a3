"""Resizing of images and adaptive average pooling: one matrix for rows and one for columns."""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike

from parity.errors import SpecError
from parity.reference.layers.arrays import Array, widen
from parity.reference.layers.windows import Pair

Method = Literal["nearest", "bilinear", "bicubic"]
Centers = Literal["half_pixel", "corners", "origin"]
Border = Literal["repeat", "drop"]


@dataclass(frozen=True, kw_only=True)
class Resampling:
    """How pixels are interpolated.

    Attributes:
        method: `nearest` takes one pixel; `bilinear` weighs 2 each way by `1 - |t|`, `bicubic` 4 by
            Keys's kernel, `t` pixels away.
        centers: Where target pixel `i` of `m` lies among `n`: `half_pixel` at `(i + 1/2) n/m -
            1/2` (torch's `nearest-exact` and `align_corners=False`; all of Keras), `corners` at
            `i (n-1)/(m-1)` (torch's `align_corners=True`), `origin` at `i n/m` (torch's `nearest`).
            `nearest` takes the pixel in which the target's centre lies, or for `origin` its corner.
        antialias: Whether a smaller target widens the kernel by `n/m`.
        cubic_coefficient: The `a` of Keys's kernel, -0.75 or -0.5; None unless `bicubic`.
        border: What a kernel reads outside the images: `repeat` the border pixel, or `drop` it and
            divide by the sum of the remaining weights (both frameworks' antialias). They differ for
            `bicubic` and `antialias` only.
    """

    method: Method
    centers: Centers
    antialias: bool
    cubic_coefficient: float | None
    border: Border

    def __post_init__(self) -> None:
        problems = [
            f"{name} must be one of {', '.join(get_args(kinds))}; got {value!r}"
            for name, value, kinds in (
                ("method", self.method, Method),
                ("centers", self.centers, Centers),
                ("border", self.border, Border),
            )
            if value not in get_args(kinds)
        ]
        if (self.method == "bicubic") != (self.cubic_coefficient is not None):
            problems.append("cubic_coefficient is for bicubic, which needs it")
        if self.antialias and (self.method == "nearest" or self.centers != "half_pixel"):
            problems.append("antialias is for bilinear and bicubic with half_pixel centers")
        if self.centers == ("corners" if self.method == "nearest" else "origin"):
            problems.append(f"no framework has {self.method} with {self.centers} centers")
        if problems:
            message = f"resampling: {'; '.join(problems)}."
            raise SpecError(message)


def resize2d(
    images: ArrayLike,
    size: Pair,
    *,
    resampling: Resampling,
    scale_factors: tuple[float, float] | None,
) -> Array:
    """Return images of another size: `y[n,c,i,j] = sum_hw rows[i,h] columns[j,w] x[n,c,h,w]`.

    The matrices are those of `resize_matrix`.

    Args:
        images: `(n, c, h, w)`.
        size: Target rows and columns.
        resampling: How pixels are interpolated.
        scale_factors: Target pixels a source pixel, each way, where they are not those of the
            sizes: torch computes with the `scale_factor` it is given unless
            `recompute_scale_factor` is set, but not where a side keeps its size (`bicubic`
            excepted) or `nearest` doubles it. None for Keras, which takes sizes only.
    """
    images = widen(images)
    rows, columns = _resize_matrices(
        images, size, resampling=resampling, scale_factors=scale_factors
    )
    return _apply(rows, columns, images)


def resize2d_backward(
    d_outputs: ArrayLike,
    images: ArrayLike,
    size: Pair,
    *,
    resampling: Resampling,
    scale_factors: tuple[float, float] | None,
) -> Array:
    """Return `d_images` of `resize2d`: `sum_ij rows[i,h] columns[j,w] dy[n,c,i,j]`."""
    rows, columns = _resize_matrices(
        widen(images), size, resampling=resampling, scale_factors=scale_factors
    )
    return _apply(rows.T, columns.T, widen(d_outputs))


def resize_matrix(
    size: int, target: int, *, resampling: Resampling, scale_factor: float | None
) -> Array:
    """Return the `(target, size)` weights of the source pixels in each target pixel.

    `weight[i,h] = k((position_i - h) / width)`, divided by the sum over `h` where pixels outside
    are dropped; `width` is 1, with `antialias` at least `size / target`. Keys's kernel of `t = |t|`
    is `(a+2) t^3 - (a+3) t^2 + 1` up to 1 and `a t^3 - 5a t^2 + 8a t - 4a` up to 2.

    Source: Keys 1981, Cubic convolution interpolation for digital image processing, equation 15;
        torch 2.13.0 aten/src/ATen/native/UpSample.h; tensorflow 2.21.0
        core/kernels/image/resize_bicubic_op.cc; jax 0.10.2 _src/image/scale.py.

    Raises:
        SpecError: If a size is less than 1.
    """
    if min(size, target) < 1:
        message = f"resize_matrix: expected sizes of at least 1; got {size} to {target}."
        raise SpecError(message)
    if _is_recomputed(size, target, method=resampling.method):
        scale_factor = None
    step = size / target if scale_factor is None else 1.0 / scale_factor
    if resampling.method == "nearest":
        taken = _nearest(size, target, centers=resampling.centers, scale_factor=scale_factor)
        return np.eye(size)[taken]
    positions = _positions(size, target, centers=resampling.centers, step=step)
    width = max(step, 1.0) if resampling.antialias else 1.0
    reach = int(np.ceil(2 * width))
    taps = np.arange(-reach, size + reach)
    weights = _kernel((positions[:, np.newaxis] - taps) / width, resampling)
    if resampling.border == "drop":
        weights = weights[:, reach : reach + size]
        kept: Array = weights / weights.sum(axis=1, keepdims=True)
        return kept
    matrix = np.zeros((size, target))
    np.add.at(matrix, np.clip(taps, 0, size - 1), weights.T)
    folded: Array = matrix.T / matrix.T.sum(axis=1, keepdims=True)
    return folded


def adaptive_average_pool2d(images: ArrayLike, size: Pair) -> Array:
    """Return the mean of window `(i, j)` of `size`, rows `floor(i h/h')` to `ceil((i+1) h/h')`.

    Source: torch 2.13.0, `torch.nn.AdaptiveAvgPool2d`.
    """
    images = widen(images)
    rows, columns = _adaptive_matrices(images, size)
    return _apply(rows, columns, images)


def adaptive_average_pool2d_backward(d_outputs: ArrayLike, images: ArrayLike, size: Pair) -> Array:
    """Return `d_images` of `adaptive_average_pool2d`: a pixel's sum of `dy / count`."""
    rows, columns = _adaptive_matrices(widen(images), size)
    return _apply(rows.T, columns.T, widen(d_outputs))


def adaptive_bounds(size: int, target: int) -> list[tuple[int, int]]:
    """Return the first pixel of each adaptive window and the one past its last.

    >>> adaptive_bounds(5, 3)
    [(0, 2), (1, 4), (3, 5)]
    """
    return [(i * size // target, -(-(i + 1) * size // target)) for i in range(target)]


def _apply(rows: Array, columns: Array, images: Array) -> Array:
    return rows @ images @ columns.T


def _resize_matrices(
    images: Array,
    size: Pair,
    *,
    resampling: Resampling,
    scale_factors: tuple[float, float] | None,
) -> tuple[Array, Array]:
    factors = scale_factors or (None, None)
    rows, columns = (
        resize_matrix(n, m, resampling=resampling, scale_factor=factor)
        for n, m, factor in zip(images.shape[2:], size, factors, strict=True)
    )
    return rows, columns


def _is_recomputed(size: int, target: int, *, method: Method) -> bool:
    """Return whether torch leaves a scale factor aside for those sizes.

    Source: torch 2.13.0 aten/src/ATen/native/UpSample.h, `nearest_idx` and
        `compute_source_index_and_lambda`.
    """
    doubles = method == "nearest" and target == 2 * size
    return doubles or (method != "bicubic" and target == size)


def _positions(size: int, target: int, *, centers: Centers, step: float) -> Array:
    """Return where target pixels lie among source pixels, of which the first is at 0."""
    places = np.arange(target, dtype=np.float64)
    if centers == "corners":
        return places * ((size - 1) / (target - 1) if target > 1 else 0.0)
    return (places + 0.5) * step - 0.5


def _nearest(size: int, target: int, *, centers: Centers, scale_factor: float | None) -> list[int]:
    """Return the source pixel of each target pixel; in whole numbers where sizes say it."""
    half = centers == "half_pixel"
    if scale_factor is None:
        return [(2 * i + half) * size // (2 * target) for i in range(target)]
    places = np.arange(target) + (0.5 if half else 0.0)
    taken: list[int] = np.minimum(np.floor(places / scale_factor), size - 1).astype(int).tolist()
    return taken


def _kernel(distances: Array, resampling: Resampling) -> Array:
    t, a = np.abs(distances), resampling.cubic_coefficient
    if a is None:
        return np.maximum(1.0 - t, 0.0)
    near = ((a + 2.0) * t - (a + 3.0)) * t * t + 1.0
    far = ((t - 5.0) * t + 8.0) * t * a - 4.0 * a
    return np.where(t <= 1.0, near, np.where(t < 2.0, far, 0.0))


def _adaptive_matrices(images: Array, size: Pair) -> tuple[Array, Array]:
    if min(size) < 1:
        message = f"adaptive_average_pool2d: expected a size of at least 1x1; got {size}."
        raise SpecError(message)
    matrices = []
    for pixels, target in zip(images.shape[2:], size, strict=True):
        matrix = np.zeros((target, pixels))
        for i, (start, end) in enumerate(adaptive_bounds(pixels, target)):
            matrix[i, start:end] = 1.0 / (end - start)
        matrices.append(matrix)
    return matrices[0], matrices[1]
