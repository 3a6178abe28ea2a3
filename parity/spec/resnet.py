"""`ResNetSpec`: post-activation ResNets of any depth, width, stem and input size.

A table holds the known ones.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from parity.errors import SpecError, describe_nearest
from parity.spec.conventions import Conventions
from parity.spec.layers import BatchNorm2d, Conv2d, Dropout, Layer, Linear, StochasticDepth
from parity.spec.model_names import WIDTH, Option, parse_options, split_name
from parity.spec.model_spec import (
    ModelSpec,
    describe_wrong_sizes,
    describe_wrong_types,
    refuse,
)

Block = Literal["basic", "bottleneck"]
Stem = Literal["cifar", "imagenet"]

# Channels out of a bottleneck per channel of its 3x3 (He et al. 2016, table 1).
EXPANSION = {"basic": 1, "bottleneck": 4}

# Where a model's name does not say its stem, the smaller input side does: the CIFAR stem keeps the
# resolution.
LARGEST_CIFAR_INPUT = 64

_RATES = ("stochastic_depth", "dropout")


@dataclass(frozen=True, kw_only=True)
class ResNetSpec(ModelSpec):
    """A post-activation ResNet (He et al. 2016); bottlenecks stride on the 3x3, as in torchvision.

    Attributes:
        block: `basic` (two 3x3) or `bottleneck` (1x1, 3x3, 1x1 with four times the channels).
        blocks: Number of blocks of each stage; every stage after the first halves the resolution.
        stem: `cifar` (3x3, stride 1) or `imagenet` (7x7, stride 2, then a 3x3 max pool of stride
            2).
        width: Channels of the stem and of the first stage's 3x3; each later stage doubles them.
        stochastic_depth: Rate at which the last block's residual branch is dropped, sample by
            sample; block `i` of `b`, from 0, has `stochastic_depth * i / (b - 1)`: the linear decay
            of Huang et al. 2016, section 3, from a first block that is always kept, as in timm
            1.0.31, `models/resnet.py`, `make_blocks`. 0.0 is off.
        dropout: Rate at which the features before the head are dropped. 0.0 is off.
    """

    family: Literal["resnet"] = "resnet"
    block: Block
    blocks: tuple[int, ...]
    stem: Stem
    width: int
    stochastic_depth: float = 0.0
    dropout: float = 0.0

    def __post_init__(self) -> None:
        wrong_types = describe_wrong_types(self, counts=("width",))
        wrong_types += [
            f"{name} must be a float; got {getattr(self, name)!r}."
            for name in _RATES
            if type(getattr(self, name)) is not float
        ]
        refuse("ResNetSpec", wrong_types)
        problems = []
        if self.block not in EXPANSION:
            problems.append(f"block must be 'basic' or 'bottleneck'; got {self.block!r}.")
        if self.stem not in ("cifar", "imagenet"):
            problems.append(f"stem must be 'cifar' or 'imagenet'; got {self.stem!r}.")
        if not self.blocks or min(self.blocks) < 1:
            problems.append(f"blocks must hold at least one block a stage; got {self.blocks!r}.")
        problems += describe_wrong_sizes(self, counts=("width",))
        problems += [
            f"{field} must be a rate with 0 <= rate < 1; got {getattr(self, field)!r}."
            for field in _RATES
            if not 0.0 <= getattr(self, field) < 1.0
        ]
        if self.stochastic_depth != 0.0 and sum(self.blocks) < 2:
            problems.append(
                "stochastic_depth must be 0.0 for a single block, which is always kept; "
                f"got {self.stochastic_depth!r}."
            )
        refuse("ResNetSpec", problems)

    @property
    def out_channels(self) -> int:
        """Channels that reach the head."""
        return self.stage_width(len(self.blocks) - 1) * EXPANSION[self.block]

    def stage_width(self, stage: int) -> int:
        """Return the channels of that stage's 3x3 convolutions."""
        return self.width << stage

    def layers(self) -> tuple[Layer, ...]:
        """See `ModelSpec.layers`."""
        return tuple(_resnet_layers(self))


@dataclass(frozen=True, kw_only=True)
class BlockSpec:
    """One residual block: its path, channels and stride.

    Attributes:
        path: Layer path of the block.
        in_channels: Channels it receives.
        width: Channels of its 3x3 convolutions.
        out_channels: Channels it returns.
        stride: Of its first 3x3 and of its shortcut.
        drop_rate: Of stochastic depth on its residual branch; 0.0 for none.
    """

    path: str
    in_channels: int
    width: int
    out_channels: int
    stride: int
    drop_rate: float

    @property
    def has_projection(self) -> bool:
        """Whether the shortcut is a 1x1 convolution with batch norm, not the identity."""
        return self.stride != 1 or self.in_channels != self.out_channels


def block_specs(spec: ResNetSpec) -> Iterator[BlockSpec]:
    """Yield the residual blocks of a ResNet in the order they run."""
    channels = spec.width
    last, place = max(sum(spec.blocks) - 1, 1), 0
    for stage, count in enumerate(spec.blocks):
        width = spec.stage_width(stage)
        for index in range(count):
            yield BlockSpec(
                path=f"stages.{stage}.blocks.{index}",
                in_channels=channels,
                width=width,
                out_channels=width * EXPANSION[spec.block],
                stride=2 if stage > 0 and index == 0 else 1,
                drop_rate=spec.stochastic_depth * place / last,
            )
            channels = width * EXPANSION[spec.block]
            place += 1


def _resnet_layers(spec: ResNetSpec) -> Iterator[Layer]:
    use_bias = spec.conventions.conv_bias

    def conv_bn(
        conv: str, norm: str, in_channels: int, out_channels: int, *, kernel: int, stride: int = 1
    ) -> Iterator[Layer]:
        yield Conv2d(
            path=conv,
            in_channels=in_channels,
            out_channels=out_channels,
            kernel=kernel,
            stride=stride,
            use_bias=use_bias,
        )
        yield BatchNorm2d(path=norm, channels=out_channels)

    kernel, stride = (3, 1) if spec.stem == "cifar" else (7, 2)
    yield from conv_bn(
        "stem.conv", "stem.bn", spec.in_channels, spec.width, kernel=kernel, stride=stride
    )
    for block in block_specs(spec):
        path, width, stride = block.path, block.width, block.stride
        widths = [(width, 3, stride), (width, 3, 1)]
        if spec.block == "bottleneck":
            widths = [(width, 1, 1), (width, 3, stride), (block.out_channels, 1, 1)]
        channels = block.in_channels
        for index, (out_channels, kernel, step) in enumerate(widths, start=1):
            yield from conv_bn(
                f"{path}.conv{index}",
                f"{path}.bn{index}",
                channels,
                out_channels,
                kernel=kernel,
                stride=step,
            )
            channels = out_channels
        if block.drop_rate > 0.0:
            yield StochasticDepth(path=f"{path}.stochastic_depth", rate=block.drop_rate)
        if block.has_projection:
            yield from conv_bn(
                f"{path}.shortcut.conv",
                f"{path}.shortcut.bn",
                block.in_channels,
                block.out_channels,
                kernel=1,
                stride=stride,
            )
    if spec.dropout > 0.0:
        yield Dropout(path="dropout", features=spec.out_channels, rate=spec.dropout)
    yield Linear(path="head", in_features=spec.out_channels, out_features=spec.classes)


# name -> (block, blocks a stage, width, stem or None for "by input size").
# Source: He et al. 2016, table 1 (18 to 152) and section 4.2 (6n+2 for CIFAR, width 16).
_FAMILY: dict[str, tuple[Block, tuple[int, ...], int, Stem | None]] = {
    **{f"resnet{6 * n + 2}": ("basic", (n, n, n), 16, "cifar") for n in (1, 3, 5, 7, 9, 18)},
    "resnet18": ("basic", (2, 2, 2, 2), 64, None),
    "resnet34": ("basic", (3, 4, 6, 3), 64, None),
    "resnet50": ("bottleneck", (3, 4, 6, 3), 64, None),
    "resnet101": ("bottleneck", (3, 4, 23, 3), 64, None),
    "resnet152": ("bottleneck", (3, 8, 36, 3), 64, None),
}
RESNETS: tuple[str, ...] = tuple(_FAMILY)

_RATE = {"pattern": r"0(\.[0-9]+)?", "expected": "a rate with 0 <= rate < 1, such as 0.2"}
RESNET_OPTIONS = {
    "width": WIDTH,
    "stem": Option(form="stem=cifar|imagenet"),
    **{name: Option(form=f"{name}=RATE", **_RATE) for name in _RATES},
}


def resnet_spec(
    name: str,
    *,
    conventions: Conventions,
    in_channels: int,
    input_size: tuple[int, int],
    classes: int,
) -> ResNetSpec:
    """Return the spec of a model by name: `resnet20`, `resnet8:width=32`, `resnet18:stem=imagenet`.

    Without `stem=`, the ImageNet depths take the CIFAR stem for inputs of at most 64 pixels.
    Further options are two rates: `resnet20:stochastic_depth=0.2,dropout=0.1`.

    Raises:
        SpecError: If the name or an option is unknown, or an option has a value of the wrong kind.
    """
    base, _ = split_name(name)
    if base not in _FAMILY:
        message = f"model {base!r} not found.{describe_nearest(base, _FAMILY)}"
        raise SpecError(message)
    block, blocks, width, stem = _FAMILY[base]
    values = parse_options(name, RESNET_OPTIONS)
    default_stem: Stem = "cifar" if min(input_size) <= LARGEST_CIFAR_INPUT else "imagenet"
    return ResNetSpec(
        conventions=conventions,
        block=block,
        blocks=blocks,
        stem=values.get("stem") or stem or default_stem,  # type: ignore[arg-type]  # validated by the spec
        width=int(values.get("width", width)),
        in_channels=in_channels,
        input_size=input_size,
        classes=classes,
        stochastic_depth=float(values.get("stochastic_depth", 0.0)),
        dropout=float(values.get("dropout", 0.0)),
    )
