"""`AirbenchSpec`: the small, fast CIFAR-10 networks of Jordan 2024 (arXiv 2404.00498), any width.

A table holds the published ones.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from parity.errors import SpecError, describe_nearest
from parity.spec.conventions import Conventions
from parity.spec.layers import BatchNorm2d, Conv2d, Layer, Linear
from parity.spec.model_names import WIDTH, parse_options, split_name
from parity.spec.model_spec import (
    ModelSpec,
    describe_wrong_sizes,
    describe_wrong_types,
    refuse,
)

Residual = Literal["none", "before_activation", "after_activation"]
GeluForm = Literal["exact", "tanh"]
EigenvalueOrder = Literal["descending", "ascending"]

WHITENING_KERNEL = 2
BLOCKS = 3
POOL = 2

# Smallest image side whose map still has a pixel after the whitening and the pools.
SMALLEST_SIDE = POOL**BLOCKS + WHITENING_KERNEL - 1


@dataclass(frozen=True, kw_only=True)
class AirbenchSpec(ModelSpec):
    """A frozen whitening convolution, three blocks that each halve the map, max pool, head.

    Every block is `depth` 3x3 convolutions with batch norm without a scale and GELU; the first one
    is max pooled before its batch norm. The last map is max pooled to one pixel, which at 32x32 is
    the published 3x3 pool.

    Attributes:
        widths: Channels of each block.
        depth: Convolutions of a block, 2 or 3.
        residual: Whether the first activation of a block is added to its last convolution's batch
            norm `before_activation`, to the last activation's output (`after_activation`), or not
            at all (`none`).
        logit_scale: Factor on the head's outputs.
        gelu: `exact` (erf) or its approximation by `tanh`.
        whitening_order: Of the eigenvalues whose eigenvectors are the whitening filters.
    """

    family: Literal["airbench"] = "airbench"
    widths: tuple[int, ...]
    depth: int
    residual: Residual
    logit_scale: float
    gelu: GeluForm = "exact"
    whitening_order: EigenvalueOrder = "descending"

    def __post_init__(self) -> None:
        refuse("AirbenchSpec", describe_wrong_types(self, counts=("depth",)))
        problems = describe_wrong_sizes(self, counts=())
        if len(self.widths) != BLOCKS or min(self.widths) < 1:
            problems.append(f"widths must be {BLOCKS} counts of channels; got {self.widths!r}.")
        if self.depth not in (2, 3):
            problems.append(f"depth must be 2 or 3; got {self.depth!r}.")
        choices = {
            "residual": ("none", "before_activation", "after_activation"),
            "gelu": ("exact", "tanh"),
            "whitening_order": ("descending", "ascending"),
        }
        problems += [
            f"{field} must be one of {', '.join(known)}; got {getattr(self, field)!r}."
            for field, known in choices.items()
            if getattr(self, field) not in known
        ]
        if not 0.0 < self.logit_scale < float("inf"):
            problems.append(f"logit_scale must be > 0 and finite; got {self.logit_scale!r}.")
        if min(self.input_size) < SMALLEST_SIDE:
            problems.append(
                f"input_size must be >= {SMALLEST_SIDE} pixels a side, or the pools leave nothing; "
                f"got {self.input_size!r}."
            )
        refuse("AirbenchSpec", problems)

    @property
    def whitening_channels(self) -> int:
        """Channels of the whitening convolution: each filter and its negative."""
        return 2 * self.in_channels * WHITENING_KERNEL**2

    @property
    def last_map(self) -> tuple[int, int]:
        """Height and width in pixels of the last block's output."""
        height, width = ((side - WHITENING_KERNEL + 1) // POOL**BLOCKS for side in self.input_size)
        return height, width

    def layers(self) -> tuple[Layer, ...]:
        """See `ModelSpec.layers`."""
        return tuple(_airbench_layers(self))


@dataclass(frozen=True, kw_only=True)
class AirbenchBlockSpec:
    """One block: its path and channels."""

    path: str
    in_channels: int
    out_channels: int


def airbench_blocks(spec: AirbenchSpec) -> Iterator[AirbenchBlockSpec]:
    """Yield the blocks in the order they run."""
    channels = spec.whitening_channels
    for index, width in enumerate(spec.widths):
        yield AirbenchBlockSpec(path=f"blocks.{index}", in_channels=channels, out_channels=width)
        channels = width


def _airbench_layers(spec: AirbenchSpec) -> Iterator[Layer]:
    yield Conv2d(
        path="whiten",
        in_channels=spec.in_channels,
        out_channels=spec.whitening_channels,
        kernel=WHITENING_KERNEL,
        stride=1,
        use_bias=True,
        is_padded=False,
        is_frozen=True,
    )
    for block in airbench_blocks(spec):
        channels = block.in_channels
        for index in range(1, spec.depth + 1):
            yield Conv2d(
                path=f"{block.path}.conv{index}",
                in_channels=channels,
                out_channels=block.out_channels,
                kernel=3,
                stride=1,
                use_bias=spec.conventions.conv_bias,
            )
            yield BatchNorm2d(
                path=f"{block.path}.bn{index}", channels=block.out_channels, has_scale=False
            )
            channels = block.out_channels
    yield Linear(
        path="head", in_features=spec.widths[-1], out_features=spec.classes, use_bias=False
    )


@dataclass(frozen=True, kw_only=True)
class _Row:
    """A published network: channels of the first block, and of each block in multiples of them."""

    width: int
    multiples: tuple[int, ...]
    depth: int = 2
    residual: Residual = "none"
    logit_scale: float = 1.0 / 9.0
    whitening_order: EigenvalueOrder = "descending"
    stats_decay: float = 0.6
    head_weight_init: str = "fan_in_uniform"
    bias_init: str = "zeros"


# Source: airbench 0.1.8 `make_net93` to `make_net96` (the paper's 96), and the scripts of the
# repository cifar10-airbench: its 96 has other channels and another residual connection.
_NETWORKS: dict[str, _Row] = {
    "airbench93": _Row(width=64, multiples=(1, 2, 2)),
    "airbench94": _Row(width=64, multiples=(1, 4, 4)),
    "airbench94_muon": _Row(
        width=64,
        multiples=(1, 4, 4),
        logit_scale=1.0 / 256.0,
        whitening_order="ascending",
        head_weight_init="fan_in_uniform_unit_deviation",
        bias_init="fan_in_uniform",
    ),
    "airbench95": _Row(width=128, multiples=(1, 3, 3)),
    "airbench96": _Row(
        width=128,
        multiples=(1, 3, 4),
        depth=3,
        residual="before_activation",
        stats_decay=0.9,
    ),
    "airbench96_paper": _Row(width=128, multiples=(1, 4, 4), depth=3, residual="after_activation"),
}
AIRBENCHES: tuple[str, ...] = tuple(_NETWORKS)
AIRBENCH_OPTIONS = {"width": WIDTH}


def airbench_conventions(name: str) -> Conventions:
    """Return the conventions that a network was published with, by its name.

    Raises:
        SpecError: If there is no such network.
    """
    row = _row(name)
    return Conventions(
        conv_bias=False,
        stats_decay=row.stats_decay,
        bn_variance_correction=1,
        bn_epsilon=1e-12,
        conv_init="fan_in_uniform_dirac",
        head_weight_init=row.head_weight_init,
        head_bias_init=row.bias_init,
        stride_offset="start",
    )


def _row(name: str) -> _Row:
    base, _ = split_name(name)
    if base not in _NETWORKS:
        message = f"model {base!r} not found.{describe_nearest(base, _NETWORKS)}"
        raise SpecError(message)
    return _NETWORKS[base]


def airbench_spec(
    name: str,
    *,
    conventions: Conventions,
    in_channels: int,
    input_size: tuple[int, int],
    classes: int,
) -> AirbenchSpec:
    """Return the spec of a network by name: `airbench94`, `airbench94:width=16`.

    `width=` sets the channels of the first block; the others stay in proportion.

    Raises:
        SpecError: If the name or an option is unknown, or an option has a value of the wrong kind.
    """
    row = _row(name)
    width = int(parse_options(name, AIRBENCH_OPTIONS).get("width", row.width))
    return AirbenchSpec(
        conventions=conventions,
        widths=tuple(width * multiple for multiple in row.multiples),
        depth=row.depth,
        residual=row.residual,
        logit_scale=row.logit_scale,
        whitening_order=row.whitening_order,
        in_channels=in_channels,
        input_size=input_size,
        classes=classes,
    )
