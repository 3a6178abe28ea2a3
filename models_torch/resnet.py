"""The post-activation ResNet (He et al. 2016) as a PyTorch user would write it.

Mirrors `models_keras.resnet`. Module names are the layer paths: `stages.0.blocks.1.conv2`.
"""

from collections import OrderedDict
from itertools import groupby

from torch import Tensor, nn

from models_torch.layers import build_layer, max_pool2d
from parity.spec.layers import Conv2d, Layer
from parity.spec.resnet import BlockSpec, ResNetSpec, block_specs


def resnet(spec: ResNetSpec) -> nn.Module:
    """Return the module `(n, c, h, w) -> (n, classes)` logits.

    Weights are drawn by torch's own generator from the distributions that the conventions name.
    """
    return ResNet(spec)


def stem(spec: ResNetSpec) -> nn.Module:
    """Return the first convolution, batch norm and ReLU, and the max pool of an ImageNet stem."""
    layers = {layer.path: layer for layer in spec.layers()}
    modules: OrderedDict[str, nn.Module] = OrderedDict(
        conv=_build(layers["stem.conv"], spec),
        bn=_build(layers["stem.bn"], spec),
        relu=nn.ReLU(inplace=True),
    )
    if spec.stem == "imagenet":
        modules["pool"] = max_pool2d("stem.pool", stride_offset=spec.conventions.stride_offset)
    return nn.Sequential(modules)


def residual_block(block: BlockSpec, *, spec: ResNetSpec) -> nn.Module:
    """Return one residual block."""
    return ResidualBlock(block, spec=spec)


class ResNet(nn.Module):
    """Stem, stages of residual blocks, global average pool, dropout if any, head."""

    def __init__(self, spec: ResNetSpec) -> None:
        super().__init__()
        self.stem = stem(spec)
        stages = groupby(block_specs(spec), key=lambda block: block.path.split(".")[1])
        self.stages = nn.Sequential(*(Stage(list(blocks), spec=spec) for _, blocks in stages))
        self.pool = nn.AdaptiveAvgPool2d(1)
        layers = {layer.path: layer for layer in spec.layers()}
        self.dropout = _build(layers["dropout"], spec) if "dropout" in layers else nn.Sequential()
        self.head = _build(layers["head"], spec)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits `(n, classes)` of images `(n, c, h, w)`."""
        return self.head(self.dropout(self.pool(self.stages(self.stem(x))).flatten(1)))


class Stage(nn.Module):
    """Residual blocks of one resolution."""

    def __init__(self, blocks: list[BlockSpec], *, spec: ResNetSpec) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(residual_block(block, spec=spec) for block in blocks))

    def forward(self, x: Tensor) -> Tensor:
        """Return the last block's output."""
        return self.blocks(x)


class ResidualBlock(nn.Module):
    """Two or three convolutions with batch norm, added to a shortcut; ReLU after the addition."""

    def __init__(self, block: BlockSpec, *, spec: ResNetSpec) -> None:
        super().__init__()
        prefix = f"{block.path}."
        layers = [layer for layer in spec.layers() if layer.path.startswith(prefix)]
        branch = [layer for layer in layers if ".shortcut." not in layer.path]
        self.depth = sum(isinstance(layer, Conv2d) for layer in branch)
        self.stochastic_depth: nn.Module = nn.Sequential()
        for layer in branch:
            self.add_module(layer.path.removeprefix(prefix), _build(layer, spec))
        for index in range(1, self.depth + 1):
            self.add_module(f"relu{index}", nn.ReLU(inplace=True))
        self.shortcut = nn.Sequential(
            OrderedDict(
                (layer.path.rpartition(".")[2], _build(layer, spec))
                for layer in layers
                if ".shortcut." in layer.path
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return `relu(branch(x) + shortcut(x))`; what is an identity is an empty sequence."""
        shortcut = self.shortcut(x)
        for index in range(1, self.depth + 1):
            x = self.get_submodule(f"conv{index}")(x)
            x = self.get_submodule(f"bn{index}")(x)
            if index == self.depth:
                x = self.stochastic_depth(x) + shortcut
            x = self.get_submodule(f"relu{index}")(x)
        return x


def _build(layer: Layer, spec: ResNetSpec) -> nn.Module:
    return build_layer(layer, conventions=spec.conventions_of(layer.path))
