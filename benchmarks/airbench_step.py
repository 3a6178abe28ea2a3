"""Time a training step of the airbench94 twins, in interleaved pairs.

    python -m benchmarks.airbench_step --framework torch
    python -m benchmarks.airbench_step --framework keras [--compile]
    KERAS_BACKEND=jax python -m benchmarks.airbench_step --framework keras

Float32, batches of 512 random images of 32x32x3 that lie ready in memory, SGD with Nesterov
momentum. Our torch twin is timed against the network of the PyPI package airbench 0.1.8 (`pip
install --no-deps airbench==0.1.8`) in a plain PyTorch loop, in the better of contiguous and
channels-last layout; our Keras twin against our torch twin. Each pair times both sides one after
the other, in alternating order; the figure is the median ratio of images per second with a
bootstrap interval over pairs.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.print_airbench_figures import build_network, import_airbench
from benchmarks.timing import compare, fastest, make_parser, write_row
from benchmarks.train_step import LAYOUTS
from parity.frameworks.build import build_twin
from parity.frameworks.net import Batch, Net
from parity.initialize import initial_state
from parity.rng import stream as keyed
from parity.spec.losses import build_targets
from parity.spec.models import named_spec
from parity.spec.optimizers import NoAveraging
from parity.spec.recipe import ResolvedRecipe, load_recipe

BATCH, STEPS = 512, 1


def make_recipe() -> ResolvedRecipe:
    """Return airbench94's recipe without its average of the weights, which has no gradient step."""
    recipe = load_recipe("airbench94", data="cifar10", overrides=[f"batch_size={BATCH}"])
    return dataclasses.replace(recipe, averaging=NoAveraging())


def make_batches(recipe: ResolvedRecipe) -> list[Batch]:
    """Return batches of random images: time does not depend on what they show."""
    generator = keyed(0, "benchmark images")
    batches = []
    for _ in range(STEPS):
        labels = generator.integers(0, 10, BATCH)
        batches.append(
            Batch(
                images=generator.standard_normal((BATCH, 32, 32, 3)).astype(np.float32),
                labels=labels,
                targets=build_targets(recipe.loss, labels, classes=10),
            )
        )
    return batches


def make_net(
    framework: str, recipe: ResolvedRecipe, batches: list[Batch], *, compiled: bool
) -> Net:
    """Return a twin with the weights that both start from."""
    spec = named_spec(
        recipe.model,
        conventions=recipe.conventions,
        in_channels=3,
        input_size=(32, 32),
        classes=10,
    )
    net = build_twin(framework, spec, loss=recipe.loss, update=recipe.update, compiled=compiled)
    net.load_state(initial_state(spec, seed=0, images=batches[0].images))
    return net


def our_steps(net: Net, recipe: ResolvedRecipe, batches: list[Batch]) -> Callable[[], None]:
    """Return a training step on each batch."""

    def run() -> None:
        for batch in batches:
            net.step(batch, rate=recipe.update.rule.lr)

    return run


def package_steps(
    recipe: ResolvedRecipe, batches: list[Batch], *, layout: str
) -> Callable[[], None]:
    """Return the same steps of the package's network, as its own training makes them."""
    import torch
    from torch import nn

    memory_format = getattr(torch, layout)
    model = build_network(import_airbench(), "94").to(memory_format=memory_format).train()
    norms = [p for name, p in model.named_parameters() if "norm" in name and p.requires_grad]
    others = [p for name, p in model.named_parameters() if "norm" not in name and p.requires_grad]
    rule = recipe.update.rule
    optimizer = torch.optim.SGD(
        [
            {"params": norms, "lr": rule.lr * 64, "weight_decay": rule.l2 / 64},
            {"params": others, "lr": rule.lr, "weight_decay": rule.l2},
        ],
        momentum=rule.momentum,
        nesterov=True,
    )
    loss_fn = nn.CrossEntropyLoss(label_smoothing=0.2, reduction="none")
    tensors = [
        (
            torch.from_numpy(batch.images).permute(0, 3, 1, 2).to(memory_format=memory_format),
            torch.from_numpy(batch.labels),
        )
        for batch in batches
    ]

    def run() -> None:
        for images, labels in tensors:
            loss = loss_fn(model(images), labels).sum()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()

    return run


def measure(framework: str, *, compiled: bool, pairs: int) -> dict[str, Any]:
    """Return our twin of one framework against its baseline."""
    recipe = make_recipe()
    batches = make_batches(recipe)
    net = make_net(framework, recipe, batches, compiled=compiled)
    ours = our_steps(net, recipe, batches)
    if framework == "torch":
        plain = {layout: package_steps(recipe, batches, layout=layout) for layout in LAYOUTS}
        best = fastest(plain)
        name, baseline, extra = f"{net.label} twin / package", plain[best], {"layout": best}
    else:
        torch_net = make_net("torch", recipe, batches, compiled=False)
        baseline, extra = our_steps(torch_net, recipe, batches), {}
        how = ", compiled" if compiled else ""
        name = f"{net.label} twin{how} / torch twin"
    row = compare(name, ours, baseline, pairs=pairs, images=BATCH * STEPS)
    return {**row, **extra, "batch_size": BATCH}


def main() -> None:
    """Measure one framework and print a JSON line."""
    parser = make_parser(__doc__, pairs=9)
    parser.add_argument("--compile", action="store_true", help="compile our twin's step")
    options = parser.parse_args()
    row = measure(options.framework, compiled=options.compile, pairs=options.pairs)
    write_row(row, options.out)


if __name__ == "__main__":
    main()
