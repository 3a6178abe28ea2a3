"""Print the logits of torchvision's ResNets under formula-generated weights, as JSON.

    pip install torch==2.13.0 numpy pillow
    pip install --no-deps torchvision==0.28.0
    python -m benchmarks.print_torchvision_logits

The output, in an environment of its own, is `tests/parity/data/torchvision_logits.json`:
`tests/parity/test_logits.py` expects it of both twins, which run where torchvision need not be.
"""

import importlib.util
import json
import re
import sys
from typing import Any

import numpy as np

from parity.testing.formula import formula_array, formula_images, formula_state

MODELS = ("resnet18", "resnet50")
# An even and an odd side, so that every stride meets both.
IMAGES_SHAPE = (2, 3, 75, 64)
PATCH_PX = 16
PRINTED = 16

# torchvision's names -> ours, first match first.
RENAMINGS = (
    (r"^conv1\.", "stem.conv."),
    (r"^bn1\.", "stem.bn."),
    (r"^fc\.", "head."),
    (r"\.downsample\.0\.", ".shortcut.conv."),
    (r"\.downsample\.1\.", ".shortcut.bn."),
)
STAGE = re.compile(r"^layer(\d)\.(\d+)\.")


def canonical_name(name: str) -> str:
    """Return our name of one of torchvision's arrays.

    >>> canonical_name("layer2.0.downsample.1.running_var")
    'stages.1.blocks.0.shortcut.bn.running_var'
    """
    name = STAGE.sub(lambda match: f"stages.{int(match[1]) - 1}.blocks.{match[2]}.", name)
    for pattern, replacement in RENAMINGS:
        name = re.sub(pattern, replacement, name)
    return name


def import_torchvision() -> Any:  # noqa: ANN401  # a module
    """Import torchvision beside a torch it was not compiled for.

    Its compiled operators do not load there; models need none, but it registers shapes for two.
    """
    import torch

    library = torch.library.Library("torchvision", "DEF")
    for operator in ("nms", "qnms"):
        library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    import torchvision

    return torchvision


def measure(torchvision: Any, model: str) -> dict[str, Any]:  # noqa: ANN401  # a module
    """Return the expected values of one model in eval mode."""
    import torch

    net = getattr(torchvision.models, model)(weights=None).eval()
    shapes = {
        name: tuple(array.shape)
        for name, array in net.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    state = formula_state({canonical_name(name): shape for name, shape in shapes.items()})
    arrays = {name: torch.from_numpy(state[canonical_name(name)]) for name in shapes}
    counters = net.state_dict().keys() - shapes.keys()
    net.load_state_dict(arrays | {name: torch.tensor(0) for name in counters})
    images = torch.from_numpy(formula_images(IMAGES_SHAPE, patch_px=PATCH_PX))
    with torch.no_grad():
        logits = net(images).numpy()
    wide = logits.astype(np.float64)
    return {
        "first": [[float(value) for value in row[:PRINTED]] for row in logits],
        "sums": [float(row.sum()) for row in wide],
        "projections": [float(row @ formula_array("projection", row.shape)) for row in wide],
        "largest": float(np.abs(logits).max()),
    }


def main() -> None:
    """Print what the test reads."""
    if importlib.util.find_spec("torchvision") is None:
        print("torchvision is not installed here: nothing to repeat.", file=sys.stderr)
        return
    torchvision = import_torchvision()
    versions = {name: sys.modules[name].__version__ for name in ("torch", "torchvision", "numpy")}
    record = {
        "versions": versions,
        "images": {"shape": IMAGES_SHAPE, "patch_px": PATCH_PX},
        "models": {model: measure(torchvision, model) for model in MODELS},
    }
    print(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
