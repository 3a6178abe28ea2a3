"""Train both airbench twins on a GPU with matched seeds; print accuracy and time.

    python -m benchmarks.gpu_airbench --seeds 5 --out benchmarks/results/gpu_airbench.jsonl

Fashion-MNIST at the published width, the torch twin and the Keras twin on jax, seed by seed, in
one process, from the same weights and on the same batches. A line a run gives test accuracy, with
and without test-time augmentation, and the seconds of its steps; a line a framework the mean and
the standard deviation (of `n - 1`). `--device cpu --data digits --model airbench94:width=4 --epochs
1 --seeds 1` tries it where there is no GPU.
"""

import argparse
import json
import os
import statistics
import tempfile
from pathlib import Path
from typing import Any

from parity import runtime
from parity.data.batches import BatchStream
from parity.data.table import load_dataset
from parity.frameworks.build import FRAMEWORKS, default_memory_format
from parity.lockstep.files import RUN_FILE
from parity.lockstep.loop import model_spec
from parity.lockstep.training import RunSettings, start_run
from parity.spec.recipe import ResolvedRecipe, load_recipe


def make_recipe(options: argparse.Namespace) -> ResolvedRecipe:
    """Return the recipe at the published width, unless another model is asked for."""
    overrides = [f"model={options.model}"]
    overrides += [f"epochs={options.epochs}"] if options.epochs else []
    return load_recipe("airbench94", data=options.data, overrides=overrides)


def train(
    framework: str, recipe: ResolvedRecipe, stream: BatchStream, options: argparse.Namespace
) -> dict[str, Any]:
    """Return the result of one run, whose folder is not kept."""
    is_torch = framework == "torch"
    memory_format = default_memory_format(
        model_spec(recipe, stream), options.dtype, device=options.device
    )
    settings = RunSettings(
        seed=stream.seed,
        framework=framework,
        dtype=options.dtype,
        compiled=options.compile,
        device=options.device,
        keras_backend=None if is_torch else options.keras_backend,
        memory_format=memory_format if is_torch else None,
    )
    with tempfile.TemporaryDirectory() as folder:
        run = start_run(recipe, settings, stream=stream, folder=Path(folder) / framework)
        result = run.train()
        record = json.loads((run.folder / RUN_FILE).read_text(encoding="utf-8"))
    digest = record["stream_digest"]
    return {"net": run.net.label, "seed": stream.seed, "stream_digest": digest, **result}


def summarize(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Return count, mean and standard deviation of one net's runs."""
    row: dict[str, Any] = {"net": runs[0]["net"], "n": len(runs)}
    for key in ("test_accuracy", "test_accuracy_plain", "seconds"):
        values = [run[key] for run in runs if key in run]
        if values:
            deviation = statistics.stdev(values) if len(values) > 1 else None
            row[key] = {"mean": statistics.fmean(values), "standard_deviation": deviation}
    return row


def main() -> None:
    """Train every seed in both frameworks and print JSON lines."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--data", default="fashion_mnist")
    parser.add_argument("--data-dir", type=Path, help="folder of the data set's files")
    parser.add_argument("--model", default="airbench94")
    parser.add_argument("--epochs", help="instead of the recipe's: 10, or 9.9")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--dtype", default="float32", choices=runtime.TRAINING_DTYPES)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--keras-backend", default="jax")
    parser.add_argument("--out", type=Path, help="append the lines to this file")
    options = parser.parse_args()
    runtime.select_keras_backend(options.keras_backend)
    recipe = make_recipe(options)
    dataset = load_dataset(options.data, folder=options.data_dir, resolution=recipe.resolution)
    lines: list[dict[str, Any]] = []
    setting = {"recipe": recipe.name, "data": recipe.data, "model": recipe.model}
    setting |= {"epochs": recipe.epochs, "dtype": options.dtype, "device": options.device}
    machine = {**runtime.environment(), "processors": os.cpu_count()}
    runs: dict[str, list[dict[str, Any]]] = {framework: [] for framework in FRAMEWORKS}
    for seed in range(options.seeds):
        stream = BatchStream(dataset, recipe, seed=seed)
        for framework, finished in runs.items():
            finished.append(train(framework, recipe, stream, options))
            print(json.dumps(finished[-1]), flush=True)
            lines.append({**finished[-1], **setting})
    for finished in runs.values():
        print(json.dumps(summarize(finished)))
        lines.append({**summarize(finished), **setting, **machine})
    if options.out:
        with options.out.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(line) + "\n" for line in lines)


if __name__ == "__main__":
    main()
