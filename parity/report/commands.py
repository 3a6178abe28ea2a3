"""The commands that repeat what a record holds.

Every setting that differs from the shipped recipe becomes a `--set`.
"""

import shlex
from collections.abc import Mapping
from typing import Any

from parity.lockstep.fields import COMPILED
from parity.report.locksteps import LockstepRecord
from parity.report.recipes import recipe_overrides
from parity.report.series import Series


def render_train_command(series: Series) -> str:
    """Return the shell command that trains a series again, in a loop over its seeds."""
    run = series.runs[0]
    words = ["python", "-m", "parity.train", "--framework", run.framework]
    words += [*_recipe_words(run.recipe), *_backend_words(run.keras_backend)]
    words += ["--dtype", run.dtype, "--device", run.device]
    command = shlex.join([*words, "--compile"] if run.compiled else words)
    seeds = [str(run.seed) for run in series.runs]
    if len(seeds) == 1:
        return f"{command} --seed {seeds[0]}"
    return f'for seed in {" ".join(seeds)}; do {command} --seed "$seed"; done'


def render_lockstep_command(record: LockstepRecord) -> str:
    """Return the shell command that repeats a lockstep."""
    reference, _, reference_backend = record.reference.partition("-")
    candidate, _, candidate_backend = record.candidate.removesuffix(COMPILED).partition("-")
    words = ["parity", "lockstep", *_recipe_words(record.recipe), "--seed", str(record.seed)]
    words += ["--reference", reference, "--candidate", candidate]
    words += _backend_words(candidate_backend or reference_backend)
    words += ["--steps", str(record.steps), f"--{record.mode}"]
    words += ["--every", str(record.every)] if record.every > 1 else []
    words += ["--dtype", record.dtype, "--device", record.device]
    words += ["--compile"] if record.candidate.endswith(COMPILED) else []
    if record.injected is not None:
        words += ["--inject", record.injected]
    return shlex.join(words)


def _recipe_words(recipe: Mapping[str, Any]) -> list[str]:
    words = ["--recipe", str(recipe.get("name")), "--data", str(recipe.get("data"))]
    for override in recipe_overrides(recipe):
        words += ["--set", override]
    return words


def _backend_words(backend: str | None) -> list[str]:
    return ["--keras-backend", backend] if backend else []
