"""Case tables of the layers: every knob in every setting, on small images.

Each case draws its own arrays, keyed by its name, so a case sees the same numbers wherever it runs.
Imports numpy, `parity.rng` and `parity.spec` only.
"""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from parity.rng import stream
from parity.spec.conventions import StrideOffset
from parity.spec.layers import Shape

Array = NDArray[np.float64]
Size = tuple[int, int]

Sign = Literal["positive", "negative"]
Correction = Literal[0, 1]

OFFSETS: tuple[StrideOffset, ...] = ("start", "end")
SIGNS: tuple[Sign, ...] = ("positive", "negative")
CORRECTIONS: tuple[Correction, ...] = (0, 1)


@dataclass(frozen=True, kw_only=True)
class ConvCase:
    """A convolution of `(2, 3, h, w)` images to 4 channels.

    Attributes:
        kernel: Side in pixels.
        stride: In pixels, both ways.
        size: Image `(h, w)`.
        stride_offset: Which pixel the first window starts at.
        use_bias: Whether it carries a bias.
    """

    kernel: int
    stride: int
    size: Size
    stride_offset: StrideOffset
    use_bias: bool

    @property
    def name(self) -> str:
        """Readable id, such as `conv-k3-s2-8x5-end-bias`."""
        bias = "bias" if self.use_bias else "nobias"
        size = f"{self.size[0]}x{self.size[1]}"
        return f"conv-k{self.kernel}-s{self.stride}-{size}-{self.stride_offset}-{bias}"

    def arrays(self) -> dict[str, Array]:
        """Return `images`, `weight` and, if it carries one, `bias`."""
        weight = (4, 3, self.kernel, self.kernel)
        shapes: dict[str, Shape] = {"images": (2, 3, *self.size), "weight": weight}
        if self.use_bias:
            shapes["bias"] = (4,)
        return _normal_arrays(self.name, shapes)


@dataclass(frozen=True, kw_only=True)
class MaxPoolCase:
    """A 3x3 max pool of stride 2 over `(2, 3, h, w)` images.

    Attributes:
        size: Image `(h, w)`.
        stride_offset: Which pixel the first window starts at.
        sign: `positive` images, which pads of zero would pass unseen, or `negative` ones, which
            show them.
    """

    size: Size
    stride_offset: StrideOffset
    sign: Sign

    @property
    def name(self) -> str:
        """Readable id, such as `maxpool-8x5-end-positive`."""
        return f"maxpool-{self.size[0]}x{self.size[1]}-{self.stride_offset}-{self.sign}"

    def arrays(self) -> dict[str, Array]:
        """Return `images` whose pixels all differ."""
        shape = (2, 3, *self.size)
        order = stream(0, "case", self.name, "images").permutation(int(np.prod(shape)))
        images = (order.reshape(shape) + 1.0) / order.size
        return {"images": images if self.sign == "positive" else -images}


@dataclass(frozen=True, kw_only=True)
class BatchNormCase:
    """A batch normalization of `(n, 3, h, w)` images, their mean not 0 nor variance 1.

    Attributes:
        batch: Images.
        size: Image `(h, w)`.
        training: Whether the batch's statistics are used.
        stats_decay: Weight kept of the old running statistic.
        variance_correction: 1 stores the unbiased variance, 0 the biased one.
        epsilon: Added to the variance under the root.
    """

    batch: int
    size: Size
    training: bool
    stats_decay: float
    variance_correction: Correction
    epsilon: float

    @property
    def name(self) -> str:
        """Readable id, such as `bn-n4-5x7-train-decay0.9-unbiased-eps1e-05`."""
        mode = "train" if self.training else "eval"
        variance = "unbiased" if self.variance_correction else "biased"
        shape = f"n{self.batch}-{self.size[0]}x{self.size[1]}"
        return f"bn-{shape}-{mode}-decay{self.stats_decay:g}-{variance}-eps{self.epsilon:g}"

    def arrays(self) -> dict[str, Array]:
        """Return `images`, `weight`, `bias`, `running_mean` and `running_var`."""
        shapes: dict[str, Shape] = {"images": (self.batch, 3, *self.size)}
        for slot in ("weight", "bias", "running_mean", "running_var"):
            shapes[slot] = (3,)
        arrays = _normal_arrays(self.name, shapes)
        arrays["images"] = 0.3 * arrays["images"] + 0.7
        arrays["running_var"] = 0.5 + arrays["running_var"] ** 2
        return arrays


@dataclass(frozen=True, kw_only=True)
class LinearCase:
    """An affine map of `(3, in_features)` inputs.

    Attributes:
        in_features: Inputs.
        out_features: Outputs.
    """

    in_features: int
    out_features: int

    @property
    def name(self) -> str:
        """Readable id, such as `linear-5-2`."""
        return f"linear-{self.in_features}-{self.out_features}"

    def arrays(self) -> dict[str, Array]:
        """Return `inputs`, `weight` and `bias`."""
        weight = (self.out_features, self.in_features)
        shapes = {"inputs": (3, self.in_features), "weight": weight, "bias": (self.out_features,)}
        return _normal_arrays(self.name, shapes)


@dataclass(frozen=True, kw_only=True)
class DropoutCase:
    """Dropout by element of `(6, 5)` inputs, the mask given.

    Attributes:
        rate: Share dropped on average.
        training: Whether anything is dropped.
    """

    rate: float
    training: bool

    @property
    def name(self) -> str:
        """Readable id, such as `dropout-0.25-train`."""
        return f"dropout-{self.rate:g}-{'train' if self.training else 'eval'}"

    def arrays(self) -> dict[str, Array]:
        """Return `inputs`."""
        return _normal_arrays(self.name, {"inputs": (6, 5)})

    def kept(self) -> NDArray[np.bool_]:
        """Return the mask, `(6, 5)`."""
        return stream(0, "case", self.name, "kept").random((6, 5)) >= self.rate


@dataclass(frozen=True, kw_only=True)
class StochasticDepthCase:
    """Dropout by sample of `(6, 3, h, w)` residuals, the mask given.

    Attributes:
        size: Image `(h, w)`.
        rate: Share of the samples dropped on average.
        training: Whether anything is dropped.
    """

    size: Size
    rate: float
    training: bool

    @property
    def name(self) -> str:
        """Readable id, such as `depth-5x7-0.25-train`."""
        mode = "train" if self.training else "eval"
        return f"depth-{self.size[0]}x{self.size[1]}-{self.rate:g}-{mode}"

    def arrays(self) -> dict[str, Array]:
        """Return `images`."""
        return _normal_arrays(self.name, {"images": (6, 3, *self.size)})

    def kept(self) -> NDArray[np.bool_]:
        """Return the mask, `(6, 1, 1, 1)`."""
        return stream(0, "case", self.name, "kept").random((6, 1, 1, 1)) >= self.rate


Case = ConvCase | MaxPoolCase | BatchNormCase | LinearCase | DropoutCase | StochasticDepthCase


def case_name(case: Case) -> str:
    """Return a case's readable id, for `pytest.mark.parametrize(..., ids=case_name)`."""
    return case.name


def output_gradient(case: Case, shape: Shape) -> Array:
    """Return a gradient for the outputs of a case: every element weighs differently in the loss."""
    return stream(0, "case", case.name, "d_outputs").standard_normal(shape)


CONV_CASES: tuple[ConvCase, ...] = tuple(
    ConvCase(kernel=kernel, stride=stride, size=size, stride_offset=offset, use_bias=use_bias)
    for kernel, stride, size, offset, use_bias in itertools.product(
        (1, 3, 7), (1, 2), ((5, 6), (8, 7), (9, 9)), OFFSETS, (False, True)
    )
)
MAX_POOL_CASES: tuple[MaxPoolCase, ...] = tuple(
    MaxPoolCase(size=size, stride_offset=offset, sign=sign)
    for size, offset, sign in itertools.product(((5, 6), (8, 7), (9, 9)), OFFSETS, SIGNS)
)
BATCH_NORM_CASES: tuple[BatchNormCase, ...] = tuple(
    BatchNormCase(
        batch=batch,
        size=size,
        training=training,
        stats_decay=decay,
        variance_correction=correction,
        epsilon=epsilon,
    )
    for (batch, size), training, decay, correction, epsilon in itertools.product(
        ((4, (5, 7)), (2, (2, 1))), (True, False), (0.9, 0.99), CORRECTIONS, (1e-5, 1e-3)
    )
)
LINEAR_CASES: tuple[LinearCase, ...] = (
    LinearCase(in_features=5, out_features=2),
    LinearCase(in_features=4, out_features=4),
    LinearCase(in_features=1, out_features=3),
)
DROPOUT_CASES: tuple[DropoutCase, ...] = tuple(
    DropoutCase(rate=rate, training=training)
    for rate, training in itertools.product((0.1, 0.5, 0.9), (True, False))
)
STOCHASTIC_DEPTH_CASES: tuple[StochasticDepthCase, ...] = tuple(
    StochasticDepthCase(size=size, rate=rate, training=training)
    for size, rate, training in itertools.product(((5, 7), (1, 1)), (0.1, 0.5), (True, False))
)


def _normal_arrays(name: str, shapes: Mapping[str, Shape]) -> dict[str, Array]:
    return {key: stream(0, "case", name, key).standard_normal(shapes[key]) for key in shapes}
