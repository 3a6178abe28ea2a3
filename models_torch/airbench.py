"""The airbench networks (Jordan 2024) as a PyTorch user would write them.

Mirrors `models_keras.airbench`. Module names are the layer paths: `blocks.1.conv2`.
"""

from torch import Tensor, nn

from models_torch.layers import build_layer, gelu, scale, tiled_max_pool2d
from parity.spec.airbench import POOL, AirbenchBlockSpec, AirbenchSpec, airbench_blocks
from parity.spec.layers import Layer


def airbench(spec: AirbenchSpec) -> nn.Module:
    """Return the module `(n, c, h, w) -> (n, classes)` logits.

    Weights are drawn by torch's own generator from the distributions that the conventions name;
    the whitening filters need training images (`parity.initialize.initial_state`).
    """
    return Airbench(spec)


def airbench_block(block: AirbenchBlockSpec, *, spec: AirbenchSpec) -> nn.Module:
    """Return one block, which halves the map."""
    return AirbenchBlock(block, spec=spec)


class Airbench(nn.Module):
    """Whitening convolution, blocks, max pool, head, constant factor on the logits."""

    def __init__(self, spec: AirbenchSpec) -> None:
        super().__init__()
        layers = {layer.path: layer for layer in spec.layers()}
        self.whiten = _build(layers["whiten"], spec)
        self.gelu = gelu("gelu", form=spec.gelu)
        blocks = (airbench_block(block, spec=spec) for block in airbench_blocks(spec))
        self.blocks = nn.Sequential(*blocks)
        self.pool = tiled_max_pool2d("pool", kernel=spec.last_map)
        self.head = _build(layers["head"], spec)
        self.scale = scale("scale", factor=spec.logit_scale)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits `(n, classes)` of images `(n, c, h, w)`."""
        x = self.blocks(self.gelu(self.whiten(x)))
        return self.scale(self.head(self.pool(x).flatten(1)))


class AirbenchBlock(nn.Module):
    """Convolutions with batch norm and GELU; the first is max pooled before its batch norm."""

    def __init__(self, block: AirbenchBlockSpec, *, spec: AirbenchSpec) -> None:
        super().__init__()
        self.depth, self.residual = spec.depth, spec.residual
        prefix = f"{block.path}."
        for layer in spec.layers():
            if layer.path.startswith(prefix):
                self.add_module(layer.path.removeprefix(prefix), _build(layer, spec))
        self.pool = tiled_max_pool2d(f"{prefix}pool", kernel=(POOL, POOL))
        for index in range(1, spec.depth + 1):
            self.add_module(f"gelu{index}", gelu(f"{prefix}gelu{index}", form=spec.gelu))

    def forward(self, x: Tensor) -> Tensor:
        """Return the last activation, to which the first is added where the spec has a residual."""
        x = self.get_submodule("gelu1")(self.get_submodule("bn1")(self.pool(self._convolve(x, 1))))
        first = x
        for index in range(2, self.depth + 1):
            x = self.get_submodule(f"bn{index}")(self._convolve(x, index))
            if index == self.depth and self.residual == "before_activation":
                x = x + first
            x = self.get_submodule(f"gelu{index}")(x)
        return x + first if self.residual == "after_activation" else x

    def _convolve(self, x: Tensor, index: int) -> Tensor:
        return self.get_submodule(f"conv{index}")(x)


def _build(layer: Layer, spec: AirbenchSpec) -> nn.Module:
    return build_layer(layer, conventions=spec.conventions_of(layer.path))
