"""Time a compiled training step against the plain one of the same net, in interleaved pairs.

    python -m benchmarks.compiled_step --framework torch --model resnet20 --pairs 9

Float32, random images, steps on one batch that lies ready in memory: data take no part. Compiled is
`torch.compile` for the torch twin, XLA for Keras on tensorflow. Each pair times both sides one
after the other, in alternating order; the figure is the median ratio of images per second with a
bootstrap interval over pairs. The seconds that each side's first step takes are given beside it.
Lines to keep go to `--out benchmarks/results/compiled_step.jsonl`.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.timing import compare, make_parser, seconds_of, write_row
from parity.frameworks.build import build_twin
from parity.frameworks.net import Batch, Net
from parity.initialize import initial_state
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
    images = keyed(0, "benchmark start").standard_normal((64, *spec.input_size, spec.in_channels))
    net.load_state(initial_state(spec, seed=0, images=images))
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
    ours, plain = (repeated(nets[side], batch, steps=steps) for side in ("compiled", "plain"))
    name = f"{nets['plain'].label}: compiled step / plain step"
    row = compare(name, ours, plain, pairs=pairs, images=batch_size * steps)
    return {**row, "steps": steps, "first_step_seconds": first}


def main() -> None:
    """Measure one framework and print a JSON line."""
    parser = make_parser(__doc__, pairs=9)
    parser.add_argument("--model", default="resnet20")
    parser.add_argument("--pixels", type=int, default=32, help="height and width of the images")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--steps", type=int, default=4, help="steps timed together")
    options = parser.parse_args()
    row = measure(
        options.framework,
        make_spec(options.model, pixels=options.pixels),
        batch_size=options.batch_size,
        steps=options.steps,
        pairs=options.pairs,
    )
    sizes = {"model": options.model, "pixels": options.pixels, "batch_size": options.batch_size}
    write_row({**row, **sizes}, options.out)


if __name__ == "__main__":
    main()
