"""Model specs: post-activation ResNets of any depth, width, stem and input size.

A table holds the known ones.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from parity.errors import SpecError, describe_nearest
from parity.spec.conventions import Conventions
from parity.spec.layers import (
    BatchNorm2d,
    Conv2d,
    Dropout,
    Layer,
    Linear,
    MaskedLayer,
    Shape,
    Slot,
    StochasticDepth,
)

Block = Literal["basic", "bottleneck"]
Stem = Literal["cifar", "imagenet"]

# Channels out of a bottleneck per channel of its 3x3 (He et al. 2016, table 1).
EXPANSION = {"basic": 1, "bottleneck": 4}

# Where a model's name does not say its stem, the smaller input side does: the CIFAR stem keeps the
# resolution.
LARGEST_CIFAR_INPUT = 64


@dataclass(frozen=True, kw_only=True)
class ResNetSpec:
    """A post-activation ResNet (He et al. 2016); bottlenecks stride on the 3x3, as in torchvision.

    Attributes:
        conventions: Where the frameworks disagree.
        block: `basic` (two 3x3) or `bottleneck` (1x1, 3x3, 1x1 with four times the channels).
        blocks: Number of blocks of each stage; every stage after the first halves the resolution.
        stem: `cifar` (3x3, stride 1) or `imagenet` (7x7, stride 2, then a 3x3 max pool of stride
            2).
        width: Channels of the stem and of the first stage's 3x3; each later stage doubles them.
        in_channels: Image channels.
        input_size: Image `(height, width)` in pixels.
        classes: Number of logits.
        stochastic_depth: Rate at which the last block's residual branch is dropped, sample by
            sample; block `i` of `b`, from 0, has `stochastic_depth * i / (b - 1)`: the linear decay
            of Huang et al. 2016, section 3, from a first block that is always kept, as in timm
            1.0.31, `models/resnet.py`, `make_blocks`. 0.0 is off.
        dropout: Rate at which the features before the head are dropped. 0.0 is off.
        exceptions: Conventions of single layers that depart from the model's, by layer path.
    """

    conventions: Conventions
    block: Block
    blocks: tuple[int, ...]
    stem: Stem
    width: int
    in_channels: int
    input_size: tuple[int, int]
    classes: int
    stochastic_depth: float = 0.0
    dropout: float = 0.0
    exceptions: tuple[tuple[str, Conventions], ...] = ()

    def __post_init__(self) -> None:
        self._require_types()
        problems = []
        if self.block not in EXPANSION:
            problems.append(f"block must be 'basic' or 'bottleneck'; got {self.block!r}.")
        if self.stem not in ("cifar", "imagenet"):
            problems.append(f"stem must be 'cifar' or 'imagenet'; got {self.stem!r}.")
        if not self.blocks or min(self.blocks) < 1:
            problems.append(f"blocks must hold at least one block a stage; got {self.blocks!r}.")
        problems += [
            f"{field} must be >= 1; got {getattr(self, field)!r}."
            for field in ("width", "in_channels", "classes")
            if getattr(self, field) < 1
        ]
        if min(self.input_size) < 1:
            problems.append(f"input_size must be >= 1 pixel a side; got {self.input_size!r}.")
        problems += [
            f"{field} must be a rate with 0 <= rate < 1; got {getattr(self, field)!r}."
            for field in ("stochastic_depth", "dropout")
            if not 0.0 <= getattr(self, field) < 1.0
        ]
        if self.stochastic_depth != 0.0 and sum(self.blocks) < 2:
            problems.append(
                "stochastic_depth must be 0.0 for a single block, which is always kept; "
                f"got {self.stochastic_depth!r}."
            )
        if problems:
            message = "ResNetSpec: " + " ".join(problems)
            raise SpecError(message)

    def _require_types(self) -> None:
        problems = []
        if not isinstance(self.conventions, Conventions):
            kind = type(self.conventions).__name__
            hint = " Pass its .conventions." if hasattr(self.conventions, "conventions") else ""
            problems.append(f"conventions must be Conventions; got {kind}.{hint}")
        sizes = {name: getattr(self, name) for name in ("width", "in_channels", "classes")}
        problems += [
            f"{name} must be a whole number; got {value!r}."
            for name, value in sizes.items()
            if type(value) is not int
        ]
        problems += [
            f"{name} must be a float; got {getattr(self, name)!r}."
            for name in ("stochastic_depth", "dropout")
            if type(getattr(self, name)) is not float
        ]
        size = self.input_size
        if not isinstance(size, tuple) or len(size) != 2 or any(type(n) is not int for n in size):
            problems.append(f"input_size must be (height, width) in pixels; got {size!r}.")
        if problems:
            message = "ResNetSpec: " + " ".join(problems)
            raise SpecError(message)

    @property
    def out_channels(self) -> int:
        """Channels that reach the head."""
        return self.stage_width(len(self.blocks) - 1) * EXPANSION[self.block]

    def conventions_of(self, path: str) -> Conventions:
        """Return the conventions that the layer at `path` follows."""
        return dict(self.exceptions).get(path, self.conventions)

    def stage_width(self, stage: int) -> int:
        """Return the channels of that stage's 3x3 convolutions."""
        return self.width << stage

    def layers(self) -> tuple[Layer, ...]:
        """Return every layer that carries arrays or drops something.

        Those with arrays come in the order in which PyTorch registers them.
        """
        return tuple(_resnet_layers(self))

    def masked_layers(self) -> tuple[MaskedLayer, ...]:
        """Return the layers that drop something in training, in the order they run."""
        return tuple(layer for layer in self.layers() if isinstance(layer, MaskedLayer))

    def slots(self) -> dict[str, Slot]:
        """Return every array of the canonical state by `layer path.slot name`."""
        return {
            f"{layer.path}.{slot.name}": slot for layer in self.layers() for slot in layer.slots()
        }

    def state_shapes(self) -> dict[str, Shape]:
        """Return the shape of every array of the canonical state."""
        return {name: slot.shape for name, slot in self.slots().items()}


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
MODELS: tuple[str, ...] = tuple(_FAMILY)

_RATES = ("stochastic_depth", "dropout")


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
    base, _, options = str(name).partition(":")
    if base not in _FAMILY:
        message = f"model {base!r} not found.{describe_nearest(base, _FAMILY)}"
        raise SpecError(message)
    block, blocks, width, stem = _FAMILY[base]
    values = _parse_options(name, options)
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


def _parse_options(name: str, options: str) -> dict[str, str]:
    values = {}
    for option in filter(None, options.split(",")):
        key, separator, value = option.partition("=")
        if not separator or key not in ("width", "stem", *_RATES):
            message = (
                f"model {name!r}: option {option!r} must be width=CHANNELS, stem=cifar|imagenet, "
                "stochastic_depth=RATE or dropout=RATE."
            )
            raise SpecError(message)
        if key in _RATES and not re.fullmatch(r"0(\.[0-9]+)?", value):
            message = (
                f"model {name!r}: {key} must be a rate with 0 <= rate < 1, such as 0.2; "
                f"got {value!r}."
            )
            raise SpecError(message)
        if key == "width" and not re.fullmatch(r"[1-9][0-9]*", value):
            message = f"model {name!r}: width must be a whole number >= 1; got {value!r}."
            raise SpecError(message)
        if key in values:
            message = f"model {name!r}: {key} is given twice."
            raise SpecError(message)
        values[key] = value
    return values
