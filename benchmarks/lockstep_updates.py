"""Run both twins in resynced float64 lockstep under every row of the table of updates.

    python -m benchmarks.lockstep_updates --steps 100 [--only NAME ...] >> results.jsonl
    KERAS_BACKEND=jax python -m benchmarks.lockstep_updates --steps 100 >> results.jsonl

ResNet-8 of width 8 on the bundled digits, torch against Keras on the backend of the process, under
a rate that changes at every step. A JSON line for each update: verdict, closest quantity, worst gap
over bound of each quantity, wrong twins caught; then the free run of the same steps.
"""

import argparse
import dataclasses
import json
import sys
from typing import Any

from parity import runtime
from parity.cli.options import open_stream, resolve
from parity.data.batches import BatchStream
from parity.lockstep.comparison import run_lockstep
from parity.lockstep.pair import LockstepSettings
from parity.spec.optimizers import Update
from parity.spec.recipe import ResolvedRecipe
from parity.testing.updates import UPDATES


def recipe_of(update: Update) -> ResolvedRecipe:
    """Return best_sgd on digits with this update and a rate that falls at each step."""
    base = resolve(
        "best_sgd",
        data="digits",
        model="resnet8:width=8",
        epochs=None,
        overrides=["batch_size=32", "schedule.unit=step", "epochs=8"],
    )
    return dataclasses.replace(
        base,
        optimizer=update.rule,
        groups=update.groups,
        clipping=update.clipping,
        averaging=update.averaging,
    )


def compare(
    name: str, recipe: ResolvedRecipe, stream: BatchStream, *, steps: int, mode: str
) -> dict[str, Any]:
    """Return what is worth keeping of one lockstep."""
    settings = LockstepSettings(steps=steps, mode=mode)
    record = run_lockstep(recipe, settings, stream=stream)
    rows = {row["quantity"]: row for row in record["summary"]}
    judged = [row for row in record["summary"] if row["ratio"] is not None]
    closest = max(judged, key=lambda row: row["ratio"], default={"quantity": None, "ratio": None})
    trials = record["detection_power"]
    return {
        "update": name,
        "mode": mode,
        "candidate": record["candidate"],
        "steps": steps,
        "verdict": record["verdict"],
        "reason": record["reason"],
        "closest": closest["quantity"],
        "ratio": closest["ratio"],
        "gaps": {quantity: row["gap"] for quantity, row in rows.items()},
        "caught": sum(trial["caught"] for trial in trials),
        "tried": len(trials),
        "missed": [trial["change"] for trial in trials if not trial["caught"]],
        "seconds": round(record["seconds"], 1),
        "environment": record["environment"],
    }


def main() -> None:
    """Print a JSON line for each lockstep."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--only", nargs="+", choices=UPDATES, default=list(UPDATES))
    parser.add_argument("--mode", nargs="+", choices=("resync", "free"), default=["resync", "free"])
    options = parser.parse_args()
    runtime.select_keras_backend(None)
    for name in options.only:
        recipe = recipe_of(UPDATES[name])
        stream = open_stream(recipe, seed=0, folder=None, download=False)
        for mode in options.mode:
            row = compare(name, recipe, stream, steps=options.steps, mode=mode)
            sys.stdout.write(json.dumps(row) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
