"""Print what optimizers outside torch and Keras make of given gradients.

In an environment of its own, with the toolkit's checkout beside it:

    pip install torch==2.13.0 numpy && pip install --no-deps timm==1.0.31 airbench==0.1.8
    python -m benchmarks.print_peer_updates > tests/reference/data/peer_updates.json

timm's optimizers and airbench's Lookahead are read without torchvision, which they do not use.
"""

import importlib
import importlib.metadata
import importlib.util
import json
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any

import torch

from parity.rng import stream

SHAPES = {"conv.weight": (3, 2, 2, 2), "bn.weight": (4,)}
RATES = (0.05, 0.04, 0.04, 0.02, 0.01, 0.01, 0.005)

Build = Callable[[list[Any]], torch.optim.Optimizer]


def draw(purpose: str, step: int = 0, *, dtype: torch.dtype) -> list[torch.Tensor]:
    """Return one normal tensor for each shape."""
    return [
        torch.tensor(stream(0, "peer", purpose, name, step).standard_normal(shape), dtype=dtype)
        for name, shape in SHAPES.items()
    ]


def run(
    build: Build, *, dtype: torch.dtype = torch.float64, after: Callable[..., None] | None = None
) -> dict[str, list[float]]:
    """Return the parameters, flat, after one update for each rate."""
    parameters = [torch.nn.Parameter(tensor) for tensor in draw("parameters", dtype=dtype)]
    decayed, undecayed = parameters
    optimizer = build([{"params": [decayed]}, {"params": [undecayed], "weight_decay": 0.0}])
    for step, rate in enumerate(RATES):
        for group in optimizer.param_groups:
            group["lr"] = rate
        for parameter, gradient in zip(
            parameters, draw("gradients", step, dtype=dtype), strict=True
        ):
            parameter.grad = gradient
        optimizer.step()
        if after is not None:
            after(parameters, step)
    return {
        name: parameter.detach().flatten().tolist()
        for name, parameter in zip(SHAPES, parameters, strict=True)
    }


def load_timm(name: str) -> types.ModuleType:
    """Return a module of timm's optimizers."""
    if "timm" not in sys.modules:
        found = importlib.util.find_spec("timm")
        folder = found.submodule_search_locations[0]  # type: ignore[union-attr,index]
        for package, path in (("timm", folder), ("timm.optim", f"{folder}/optim")):
            module = types.ModuleType(package)
            module.__path__ = [path]
            sys.modules[package] = module
    return importlib.import_module(f"timm.optim.{name}")


def timm_rows() -> Iterator[tuple[str, dict[str, list[float]]]]:
    """Yield timm's LAMB, LARS and Lookahead, by the name of our update."""
    lamb, lars = load_timm("lamb").Lamb, load_timm("lars").Lars
    lookahead = load_timm("lookahead").Lookahead
    yield "lamb", run(lambda groups: lamb(groups, lr=0.1, weight_decay=0.02))
    yield (
        "lamb-capped",
        run(
            lambda groups: lamb(
                groups, lr=0.1, weight_decay=0.02, trust_clip=True, max_grad_norm=None
            )
        ),
    )
    yield (
        "lamb-always",
        run(lambda groups: lamb(groups, lr=0.1, weight_decay=0.02, always_adapt=True)),
    )
    settings = {"lr": 0.1, "momentum": 0.9, "weight_decay": 5e-4}
    yield "lars", run(lambda groups: lars(groups, **settings))
    yield "lars-nesterov", run(lambda groups: lars(groups, nesterov=True, **settings))
    yield "lars-always", run(lambda groups: lars(groups, always_adapt=True, **settings))
    sgd = torch.optim.SGD
    yield (
        "lookahead",
        run(lambda groups: lookahead(sgd(groups, lr=0.1, momentum=0.9), alpha=0.5, k=3)),
    )


def airbench_rows() -> Iterator[tuple[str, dict[str, list[float]]]]:
    """Yield airbench's Lookahead over SGD, which it runs in single precision."""
    for name in ("torchvision", "torchvision.transforms"):  # read by its data loader only
        sys.modules.setdefault(name, types.ModuleType(name))
    utils = importlib.import_module("airbench.utils")

    class Weights:
        def __init__(self, parameters: list[Any]) -> None:
            self._parameters = parameters

        def state_dict(self) -> dict[str, Any]:
            return {name: p.data for name, p in zip(SHAPES, self._parameters, strict=True)}

    held: dict[str, Any] = {}

    def average(parameters: list[Any], step: int) -> None:
        count, steps = step + 1, len(RATES)
        if count % 2 == 0:
            held["state"].update(Weights(parameters), 0.95**5 * (count / steps) ** 3)
        if count == steps:
            held["state"].update(Weights(parameters), 1.0)

    def build(groups: list[Any]) -> torch.optim.Optimizer:
        parameters = [group["params"][0] for group in groups]
        held["state"] = utils.LookaheadState(Weights(parameters))
        return torch.optim.SGD(groups, lr=0.1, momentum=0.85, nesterov=True)

    yield "lookahead-ema", run(build, dtype=torch.float32, after=average)


def main() -> None:
    """Print one JSON object: versions, rates, shapes and the parameters of each row."""
    versions = {"torch": torch.__version__, "timm": "1.0.31", "airbench": "0.1.8"}
    record = {
        "versions": versions,
        "rates": RATES,
        "shapes": SHAPES,
        "parameters": dict(timm_rows()) | dict(airbench_rows()),
    }
    json.dump(record, sys.stdout, indent=1)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
