"""Print what the PyPI package airbench computes under formula-generated weights, as JSON.

    pip install torch==2.13.0 numpy && pip install --no-deps airbench==0.1.8
    python -m benchmarks.print_airbench_figures

The output, in an environment of its own, is `tests/parity/data/airbench_figures.json`:
`tests/parity/test_airbench.py` expects it of both twins, which run where airbench need not be. The
package builds its networks in half precision on a GPU; here they stay in float32 on the CPU.
"""

import importlib
import importlib.util
import json
import sys
import types
from typing import Any

import numpy as np
import torch
from torch import nn

from parity.testing.formula import formula_images, formula_state

NETWORKS = ("93", "94", "95", "96")
IMAGES_SHAPE = (4, 3, 32, 32)
PATCH_PX = 8
WHITENED_SHAPE = (64, 3, 32, 32)

# Children of the package's Sequential -> our layer paths.
CHILDREN = {"0": "whiten", "2": "blocks.0", "3": "blocks.1", "4": "blocks.2", "7": "head"}


def import_airbench() -> Any:  # noqa: ANN401  # a module
    """Import the package; torchvision is read by its data loader only."""
    for name in ("torchvision", "torchvision.transforms"):
        sys.modules.setdefault(name, types.ModuleType(name))
    return importlib.import_module("airbench")


def canonical_name(name: str) -> str:
    """Return our name of one of the package's arrays.

    >>> canonical_name("3.norm2.running_var")
    'blocks.1.bn2.running_var'
    """
    child, _, rest = name.partition(".")
    return f"{CHILDREN[child]}.{rest.replace('norm', 'bn')}"


def build_network(airbench: Any, network: str) -> nn.Module:  # noqa: ANN401  # a module
    """Return a network of the package in float32 on the CPU."""
    moves = nn.Module.half, nn.Module.cuda
    nn.Module.half = nn.Module.cuda = lambda self: self  # type: ignore[method-assign,assignment]
    try:
        net: nn.Module = getattr(airbench, f"make_net{network}")()
    finally:
        nn.Module.half, nn.Module.cuda = moves  # type: ignore[method-assign]
    return net


def build(airbench: Any, network: str) -> tuple[nn.Module, dict[str, torch.Tensor]]:  # noqa: ANN401
    """Return a network of the package, holding formula arrays, and its trained arrays."""
    net = build_network(airbench, network)
    scales = {
        name
        for name, parameter in net.named_parameters()
        if "norm" in name and not parameter.requires_grad
    }
    names = {
        name: tuple(array.shape)
        for name, array in net.state_dict().items()
        if name not in scales and not name.endswith("num_batches_tracked")
    }
    state = formula_state({canonical_name(name): shape for name, shape in names.items()})
    arrays = {name: torch.from_numpy(state[canonical_name(name)]) for name in names}
    net.load_state_dict(arrays, strict=False)
    return net, {canonical_name(name): p for name, p in net.named_parameters() if p.requires_grad}


def measure(airbench: Any, network: str) -> dict[str, Any]:  # noqa: ANN401  # a module
    """Return the logits of one network in evaluation and in training mode, and its counts."""
    net, trained = build(airbench, network)
    images = torch.from_numpy(formula_images(IMAGES_SHAPE, patch_px=PATCH_PX))
    with torch.no_grad():
        evaluated = net.eval()(images)
        in_training = net.train()(images)
    return {
        "evaluation": evaluated.numpy().astype(float).tolist(),
        "training": in_training.numpy().astype(float).tolist(),
        "trained": sum(parameter.numel() for parameter in trained.values()),
        "parameters": sum(parameter.numel() for parameter in net.parameters()),
    }


def whiten(airbench: Any) -> list[Any]:  # noqa: ANN401  # a module
    """Return the whitening filters of formula images, computed in float64."""
    utils = importlib.import_module(f"{airbench.__name__}.utils")
    images = torch.from_numpy(formula_images(WHITENED_SHAPE, patch_px=PATCH_PX)).double()
    layer = nn.Conv2d(3, 24, 2).double()
    to_float32 = torch.Tensor.float  # the package rounds the patches
    torch.Tensor.float = lambda self: self  # type: ignore[method-assign,assignment]
    try:
        utils.init_whitening_conv(layer, images)
    finally:
        torch.Tensor.float = to_float32  # type: ignore[method-assign]
    filters: list[Any] = layer.weight.detach().numpy().tolist()
    return filters


def main() -> None:
    """Print what the test reads."""
    if importlib.util.find_spec("airbench") is None:
        print("airbench is not installed here: nothing to repeat.", file=sys.stderr)
        return
    airbench = import_airbench()
    record = {
        "versions": {"torch": torch.__version__, "airbench": "0.1.8", "numpy": np.__version__},
        "images": {"shape": IMAGES_SHAPE, "patch_px": PATCH_PX},
        "networks": {network: measure(airbench, network) for network in NETWORKS},
        "whitening": {"shape": WHITENED_SHAPE, "filters": whiten(airbench)},
    }
    print(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
