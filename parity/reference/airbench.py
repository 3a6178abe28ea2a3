"""The layer calls of an airbench network. Imports `parity.spec` and the reference's nodes only."""

from collections.abc import Iterator

from parity.reference.nodes import IMAGES, Node
from parity.spec.airbench import POOL, AirbenchBlockSpec, AirbenchSpec, airbench_blocks


def airbench_nodes(spec: AirbenchSpec) -> Iterator[Node]:
    """Yield every layer call of an airbench network, each after those it reads."""
    yield Node(path="whiten", kind="conv", inputs=(IMAGES,), is_padded=False)
    yield Node(path="gelu", kind="gelu", inputs=("whiten",), form=spec.gelu)
    last: tuple[str, ...] = ("gelu",)
    for block in airbench_blocks(spec):
        yield from _block_nodes(spec, block, last)
        last = (f"{block.path}.gelu{spec.depth}",)
        if spec.residual == "after_activation":
            last = (*last, f"{block.path}.gelu1")
    yield _tiled_pool("pool", last, spec.last_map)
    yield Node(path="head", kind="linear", inputs=("pool",))
    yield Node(path="scale", kind="scale", inputs=("head",), factor=spec.logit_scale)


def _block_nodes(
    spec: AirbenchSpec, block: AirbenchBlockSpec, start: tuple[str, ...]
) -> Iterator[Node]:
    path = block.path
    yield Node(path=f"{path}.conv1", kind="conv", inputs=start)
    yield _tiled_pool(f"{path}.pool", (f"{path}.conv1",), (POOL, POOL))
    yield Node(path=f"{path}.bn1", kind="bn", inputs=(f"{path}.pool",))
    yield Node(path=f"{path}.gelu1", kind="gelu", inputs=(f"{path}.bn1",), form=spec.gelu)
    for index in range(2, spec.depth + 1):
        yield Node(path=f"{path}.conv{index}", kind="conv", inputs=(f"{path}.gelu{index - 1}",))
        yield Node(path=f"{path}.bn{index}", kind="bn", inputs=(f"{path}.conv{index}",))
        added = index == spec.depth and spec.residual == "before_activation"
        inputs = (f"{path}.bn{index}", *([f"{path}.gelu1"] if added else []))
        yield Node(path=f"{path}.gelu{index}", kind="gelu", inputs=inputs, form=spec.gelu)


def _tiled_pool(path: str, inputs: tuple[str, ...], kernel: tuple[int, int]) -> Node:
    return Node(
        path=path, kind="max_pool", inputs=inputs, kernel=kernel, stride=kernel, is_padded=False
    )
