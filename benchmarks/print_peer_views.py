"""Print the logits that airbench's test-time augmentation gives for a net of a formula.

In an environment of its own, with the toolkit's checkout beside it:

    pip install torch==2.13.0 numpy && pip install --no-deps airbench==0.1.8
    python -m benchmarks.print_peer_views > tests/augment/data/peer_views.json

airbench is read without torchvision, which its data loader alone uses.
"""

import importlib
import json
import sys
import types
from typing import Any

import torch

from parity.rng import stream

IMAGES, CLASSES, SIDE = 3, 4, 32


class TanhNet(torch.nn.Module):
    """`tanh(x W)` over all pixels: every shift and mirror image of an image has other logits."""

    def __init__(self, weights: torch.Tensor) -> None:
        super().__init__()
        self.weights = weights

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return the logits of `(n, c, h, w)` images."""
        return torch.tanh(inputs.flatten(1) @ self.weights.flatten(0, 2))


def draw(purpose: str, *shape: int) -> torch.Tensor:
    """Return normal numbers in float64."""
    return torch.from_numpy(stream(0, "peer views", purpose).standard_normal(shape))


def main() -> None:
    """Print one JSON object: versions, shapes, and the logits of each level."""
    for name in ("torchvision", "torchvision.transforms"):
        sys.modules.setdefault(name, types.ModuleType(name))
    utils: Any = importlib.import_module("airbench.utils")
    images = draw("images", IMAGES, SIDE, SIDE, 3).permute(0, 3, 1, 2)
    weights = draw("weights", SIDE, SIDE, 3, CLASSES).permute(2, 0, 1, 3) / SIDE
    loader = types.SimpleNamespace(images=images, normalize=lambda raw: raw)
    record = {
        "versions": {"torch": torch.__version__, "airbench": "0.1.8"},
        "images": [IMAGES, SIDE, SIDE, 3],
        "weights": [SIDE, SIDE, 3, CLASSES],
        "logits": [
            utils.infer(TanhNet(weights), loader, tta_level=level).tolist() for level in (0, 1, 2)
        ],
    }
    json.dump(record, sys.stdout, indent=1)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
