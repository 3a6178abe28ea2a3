"""Time a compiled training step against the plain one of the same net, in interleaved pairs.

    python -m benchmarks.compiled_step --framework torch --model resnet20 --pairs 9

Float32, random images, steps on one batch that lies ready in memory: data take no part. Compiled is
`torch.compile` for the torch twin, XLA for Keras on tensorflow. Each pair times both sides one
after the other, in alternating order; the figure is the median ratio of images per second with a
bootstrap interval over pairs. The seconds that each side's first step takes are given beside it.
Lines to keep go to `--out benchmarks/results/compiled_step.jsonl`.
"""

import argparse
import json
import os
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.train_step import bootstrap, seconds_of
from parity import runtime
from parity.frameworks.build import build_twin
from parity.frameworks.net import Batch, Net
from parity.lockstep.loop import load_initial_state
from parity.rng import stream as keyed
from parity.spec.conventions import TORCH
from parity.spec.losses import CrossEntropy, build_targets
from parity.spec.model_spec import ModelSpec
from parity.spec.models import named_spec

RATE = 0.1
LOSS = CrossEntropy(label_smoothing=0.0, reduction="mean")


def make_spec(model: str, *, pixels: int) -> ModelSpec:
    """Return the spec of a model for colour images of ten classes."""
    return named_spec(
        model,
        conventions=TORCH.conventions,
        in_channels=3,
        input_size=(pixels, pixels),
        classes=10,
    )


def make_batch(spec: ModelSpec, *, size: int) -> Batch:
    """Return random images: time does not depend on what they show."""
    generator = keyed(0, "benchmark images")
    labels = generator.integers(0, spec.classes, size)
    images = generator.standard_normal((size, *spec.input_size, spec.in_channels))
    return Batch(
        images=images.astype(np.float32),
        labels=labels,
        targets=build_targets(LOSS, labels, classes=spec.classes),
    )


def make_net(framework: str, spec: ModelSpec, *, compiled: bool) -> Net:
    """Return a net with the weights that every twin starts from."""
    net = build_twin(framework, spec, loss=LOSS, compiled=compiled)
    load_initial_state(net, spec, seed=0)
    return net


def repeated(net: Net, batch: Batch, *, steps: int) -> Callable[[], None]:
    """Return some training steps on one batch."""

    def run() -> None:
        for _ in range(steps):
            net.step(batch, rate=RATE)

    return run


def measure(
    framework: str, spec: ModelSpec, *, batch_size: int, steps: int, pairs: int
) -> dict[str, Any]:
    """Time both nets in interleaved pairs and return ratio and interval."""
    batch = make_batch(spec, size=batch_size)
    nets = {"plain": make_net(framework, spec, compiled=False)}
    nets["compiled"] = make_net(framework, spec, compiled=True)
    first = {
        side: seconds_of(lambda net=net: net.step(batch, rate=RATE)) for side, net in nets.items()
    }
    runs = {side: repeated(net, batch, steps=steps) for side, net in nets.items()}
    for run in runs.values():
        run()
    rows = []
    for pair in range(pairs):
        order = ("compiled", "plain") if pair % 2 == 0 else ("plain", "compiled")
        rows.append({side: seconds_of(runs[side]) for side in order})
    ratios = [row["plain"] / row["compiled"] for row in rows]
    images = batch_size * steps
    return {
        "comparison": f"{nets['plain'].label}: compiled step / plain step",
        "ratio": statistics.median(ratios),
        "interval": list(bootstrap(ratios)),
        "pairs": pairs,
        "steps": steps,
        "images_per_second": {
            side: images / statistics.median(row[side] for row in rows) for side in nets
        },
        "first_step_seconds": first,
    }


def main() -> None:
    """Measure one framework and print a JSON line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--framework", choices=["torch", "keras"], default="torch")
    parser.add_argument("--model", default="resnet20")
    parser.add_argument("--pixels", type=int, default=32, help="height and width of the images")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--steps", type=int, default=4, help="steps timed together")
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument("--out", type=Path, help="append the line to this file")
    options = parser.parse_args()
    row = measure(
        options.framework,
        make_spec(options.model, pixels=options.pixels),
        batch_size=options.batch_size,
        steps=options.steps,
        pairs=options.pairs,
    )
    sizes = {"model": options.model, "pixels": options.pixels, "batch_size": options.batch_size}
    line = json.dumps({**row, **sizes, **runtime.environment(), "processors": os.cpu_count()})
    print(line)
    if options.out:
        with options.out.open("a", encoding="utf-8") as file:
            file.write(line + "\n")


if __name__ == "__main__":
    main()
