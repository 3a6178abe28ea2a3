"""Time our training loop against the loop a good engineer would write, in interleaved pairs.

    python -m benchmarks.train_step --pairs 9 --out benchmarks/results/train_step.jsonl

ResNet-20, 32x32 colour, batch 128, float32. Torch: our loop against a plain PyTorch loop over the
same batches held in memory, in the better of contiguous and channels-last layout. Keras on
tensorflow: our loop against `model.fit` of the same model on the same arrays. Each pair times both
sides one after the other, in alternating order; the figure is the
median ratio of images per second with a bootstrap interval over pairs. The share of data and
augmentation is measured on its own over the same batches.
"""

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.timing import compare, fastest, make_parser, write_row
from parity.data.batches import START_DIGEST, BatchStream, chain_digest
from parity.data.dataset import Dataset
from parity.frameworks.build import build_twin
from parity.frameworks.net import Net
from parity.lockstep.loop import model_spec, start_state, training_steps
from parity.rng import stream as keyed
from parity.spec.recipe import ResolvedRecipe, load_recipe

BATCH, STEPS = 128, 8
LAYOUTS = ("contiguous_format", "channels_last")


def make_stream() -> tuple[ResolvedRecipe, BatchStream]:
    """Return CIFAR-10's recipe over random images: time does not depend on what they show."""
    recipe = load_recipe(
        "best_sgd", data="cifar10", overrides=["model=resnet20", f"batch_size={BATCH}"]
    )
    generator = keyed(0, "benchmark images")
    count = BATCH * STEPS
    images = generator.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
    labels = generator.integers(0, 10, count)
    dataset = Dataset(
        name="cifar10",
        train_images=images,
        train_labels=labels,
        test_images=images[:BATCH],
        test_labels=labels[:BATCH],
        classes=tuple("0123456789"),
        mean=(0.4914, 0.4822, 0.4465),
        std=(0.2470, 0.2435, 0.2616),
        scale=255,
        source="random",
    )
    return recipe, BatchStream(dataset, recipe, seed=0)


def our_loop(net: Net, stream: BatchStream, recipe: ResolvedRecipe) -> Callable[[], None]:
    """Return one epoch of our training loop, data and augmentation included."""

    def run() -> None:
        for _event in training_steps(
            [net], stream, recipes=[recipe], start=0, stop=STEPS, digest=START_DIGEST
        ):
            pass

    return run


def plain_torch_loop(
    stream: BatchStream, recipe: ResolvedRecipe, *, layout: str
) -> Callable[[], None]:
    """Return one epoch of a plain PyTorch loop over tensors that lie ready in memory."""
    import torch

    import models_torch

    memory_format = getattr(torch, layout)
    model = models_torch.resnet(model_spec(recipe, stream)).to(memory_format=memory_format).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    loss_function = torch.nn.CrossEntropyLoss()
    batches = []
    for index in range(STEPS):
        batch = stream.batch(0, index)
        images = torch.from_numpy(batch.images).permute(0, 3, 1, 2)
        batches.append(
            (images.contiguous(memory_format=memory_format), torch.from_numpy(batch.labels))
        )

    def run() -> None:
        for images, labels in batches:
            optimizer.zero_grad(set_to_none=True)
            loss = loss_function(model(images), labels)
            loss.backward()
            optimizer.step()

    return run


def fit_loop(stream: BatchStream, recipe: ResolvedRecipe) -> Callable[[], None]:
    """Return one epoch of `model.fit` of the same model over the same arrays."""
    import keras

    import models_keras

    model = models_keras.resnet(model_spec(recipe, stream))
    model.compile(
        optimizer=keras.optimizers.SGD(0.1, momentum=0.9),
        loss=keras.losses.CategoricalCrossentropy(from_logits=True),
    )
    batches = [stream.batch(0, index) for index in range(STEPS)]
    images = np.concatenate([batch.images for batch in batches])
    targets = np.concatenate([batch.targets for batch in batches]).astype(np.float32)
    return lambda: model.fit(images, targets, batch_size=BATCH, epochs=1, verbose=0, shuffle=False)


def data_share(stream: BatchStream, *, step_seconds: float) -> dict[str, Any]:
    """Return the share of a step that drawing, augmenting, hashing and normalizing take."""
    digest, times = START_DIGEST, []
    for epoch in range(3):
        for index in range(STEPS):
            started = time.perf_counter()
            drawn = stream.draw(epoch, index)
            digest = chain_digest(digest, drawn)
            stream.finish(drawn)
            times.append(time.perf_counter() - started)
    seconds = statistics.median(times)
    return {
        "comparison": "data and augmentation",
        "seconds": seconds,
        "share": seconds / step_seconds,
    }


def measure_torch(pairs: int) -> list[dict[str, Any]]:
    """Return our torch loop against the plain one, in the layout where that one is faster."""
    recipe, stream = make_stream()
    spec = model_spec(recipe, stream)
    net = build_twin("torch", spec, loss=recipe.loss, update=recipe.update)
    net.load_state(start_state(spec, stream))
    plain = {layout: plain_torch_loop(stream, recipe, layout=layout) for layout in LAYOUTS}
    best = fastest(plain)
    ours = our_loop(net, stream, recipe)
    name = "torch: our loop / plain loop"
    row = compare(name, ours, plain[best], pairs=pairs, images=BATCH * STEPS)
    step_seconds = BATCH / row["images_per_second"]
    return [{**row, "baseline_layout": best}, data_share(stream, step_seconds=step_seconds)]


def measure_keras(pairs: int) -> list[dict[str, Any]]:
    """Return our Keras loop against `fit`."""
    recipe, stream = make_stream()
    spec = model_spec(recipe, stream)
    net = build_twin("keras", spec, loss=recipe.loss, update=recipe.update)
    net.load_state(start_state(spec, stream))
    name = f"{net.label}: our loop / fit"
    ours, fit = our_loop(net, stream, recipe), fit_loop(stream, recipe)
    return [compare(name, ours, fit, pairs=pairs, images=BATCH * STEPS)]


def main() -> None:
    """Measure one framework and print JSON lines."""
    options = make_parser(__doc__, pairs=7).parse_args()
    rows = {"torch": measure_torch, "keras": measure_keras}[options.framework](options.pairs)
    for row in rows:
        write_row(row, options.out)


if __name__ == "__main__":
    main()
