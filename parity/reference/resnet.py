"""The layer calls of a ResNet, in order. Imports `parity.spec` and the reference's nodes only."""

from collections.abc import Iterator, Mapping

from parity.reference.nodes import IMAGES, Node
from parity.spec.layers import Conv2d
from parity.spec.resnet import BlockSpec, ResNetSpec, block_specs

_STEM_POOL = (3, 3)


def resnet_nodes(spec: ResNetSpec) -> Iterator[Node]:
    """Yield every layer call of a ResNet, each after those it reads."""
    strides = {layer.path: layer.stride for layer in spec.layers() if isinstance(layer, Conv2d)}
    yield from _conv_bn("stem.conv", "stem.bn", IMAGES, strides)
    yield Node(path="stem.relu", kind="relu", inputs=("stem.bn",))
    last = "stem.relu"
    if spec.stem == "imagenet":
        yield Node(
            path="stem.pool", kind="max_pool", inputs=("stem.relu",), kernel=_STEM_POOL, stride=2
        )
        last = "stem.pool"
    for block in block_specs(spec):
        *nodes, end = _block_nodes(spec, block, last, strides)
        yield from [*nodes, end]
        last = end.path
    yield Node(path="pool", kind="average_pool", inputs=(last,))
    last = "pool"
    if spec.dropout > 0.0:
        last = "dropout"
        yield Node(path=last, kind="dropout", inputs=("pool",), rate=spec.dropout)
    yield Node(path="head", kind="linear", inputs=(last,))


def _block_nodes(
    spec: ResNetSpec, block: BlockSpec, start: str, strides: Mapping[str, int]
) -> Iterator[Node]:
    count = 2 if spec.block == "basic" else 3
    last = start
    for index in range(1, count + 1):
        norm = f"{block.path}.bn{index}"
        yield from _conv_bn(f"{block.path}.conv{index}", norm, last, strides)
        last = f"{block.path}.relu{index}"
        if index < count:
            yield Node(path=last, kind="relu", inputs=(norm,))
    shortcut = start
    if block.has_projection:
        shortcut = f"{block.path}.shortcut.bn"
        yield from _conv_bn(f"{block.path}.shortcut.conv", shortcut, start, strides)
    branch = f"{block.path}.bn{count}"
    if block.drop_rate > 0.0:
        path, rate = f"{block.path}.stochastic_depth", block.drop_rate
        yield Node(path=path, kind="stochastic_depth", inputs=(branch,), rate=rate)
        branch = path
    yield Node(path=last, kind="relu", inputs=(branch, shortcut))


def _conv_bn(conv: str, norm: str, source: str, strides: Mapping[str, int]) -> Iterator[Node]:
    yield Node(path=conv, kind="conv", inputs=(source,), stride=strides[conv])
    yield Node(path=norm, kind="bn", inputs=(conv,))
