"""Training a grid of recipes over seeds, one run after the other, in one folder.

The folder holds `ablation.json` and a run folder for each training. Trainings go seed by seed, so
that an interruption leaves whole comparisons. Started again, what has finished is read, what has
not is resumed to the same bits.
"""

import contextlib
import dataclasses
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from parity import runtime
from parity.data.batches import BatchStream
from parity.errors import RunError, describe_list
from parity.lockstep.fields import (
    FORMAT,
    read_run_table,
    read_table,
    require_fields,
    require_format,
)
from parity.lockstep.files import RUN_FILE, create_folder, lock_folder, write_json
from parity.lockstep.training import (
    Progress,
    RunSettings,
    describe_changes,
    resume_run,
    run_identity,
    start_run,
)
from parity.match.grid import Cell
from parity.match.summary import Scores, describe_scores
from parity.spec.recipe import ResolvedRecipe

ABLATION_FILE = "ablation.json"


@dataclass(frozen=True, kw_only=True)
class Ablation:
    """What is varied, over what, and on what.

    Attributes:
        recipe: What all settings share.
        key: Recipe key that is varied.
        values: Of the key, as they were written.
        epochs: Numbers of epochs, ascending; empty for the recipe's own.
        seeds: Count; the seeds are 0 to `seeds - 1`.
        baseline: Value that the others are compared with.
        cells: Each value for each number of epochs.
        settings: Those of each cell's runs, seed 0, in the order of the cells.
    """

    recipe: ResolvedRecipe
    key: str
    values: tuple[str, ...]
    epochs: tuple[int | float, ...]
    seeds: int
    baseline: str
    cells: tuple[Cell, ...]
    settings: tuple[RunSettings, ...]

    def identity(self) -> dict[str, Any]:
        """Return what decides the bits of every run; more seeds make no other ablation."""
        first = self.settings[0]
        table = {
            "recipe": self.recipe.to_table(),
            "vary": self.key,
            "values": self.values,
            "epochs": self.epochs,
            "framework": first.framework,
            "keras_backend": first.keras_backend,
            "dtype": first.dtype,
            "device": first.device,
            **runtime.environment(),
        }
        stored: dict[str, Any] = json.loads(json.dumps(table))  # as it is read back
        return stored

    def trials(self) -> tuple["Trial", ...]:
        """Return every training in order: all cells of seed 0, then of seed 1."""
        return tuple(
            Trial(
                cell=cell,
                settings=dataclasses.replace(settings, seed=seed),
                name=f"seed{seed}-{cell.name}",
            )
            for seed in range(self.seeds)
            for cell, settings in zip(self.cells, self.settings, strict=True)
        )


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One training of an ablation.

    Attributes:
        cell: What it trains.
        settings: With its seed.
        name: Of its run folder.
    """

    cell: Cell
    settings: RunSettings
    name: str


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A finished training of an ablation.

    Attributes:
        trial: Which.
        index: 1-based, in the order of the trials.
        count: Of all trials.
        result: What `run.json` holds of it.
        found: Whether it had finished before.
    """

    trial: Trial
    index: int
    count: int
    result: Mapping[str, Any]
    found: bool


OpenStream = Callable[[ResolvedRecipe, int], BatchStream]
Watch = Callable[[str], contextlib.AbstractContextManager[Callable[[Progress], None]]]


def run_ablation(
    ablation: Ablation,
    *,
    folder: Path,
    open_stream: OpenStream,
    watch: Watch,
    on_trained: Callable[[Trained], None] = lambda _trained: None,
) -> dict[str, Any]:
    """Train what is not yet trained, and return the record that `ablation.json` holds.

    Args:
        ablation: What to train.
        folder: New or empty, or that of the same ablation.
        open_stream: Batches of a recipe and a seed.
        watch: Shows a training's progress under a label.
        on_trained: Called for each finished training, earlier ones included.

    Raises:
        RunError: If the folder holds something else, or a training has diverged.
    """
    with _claimed(folder, ablation.identity()):
        scores: Scores = {}
        trials = ablation.trials()
        write_record(ablation, scores, folder=folder, status="running")
        try:
            for index, trial in enumerate(trials, start=1):
                result = find_result(trial, folder=folder)
                found = result is not None
                if result is None:
                    stream = open_stream(trial.cell.recipe, trial.settings.seed)
                    with watch(f"{index}/{len(trials)}") as on_progress:
                        result = _train(trial, stream, folder=folder, on_progress=on_progress)
                place = (trial.cell.length, trial.cell.value, trial.settings.seed)
                scores[place] = {"folder": trial.name, **result}
                write_record(ablation, scores, folder=folder, status="running")
                on_trained(
                    Trained(trial=trial, index=index, count=len(trials), result=result, found=found)
                )
        except (KeyboardInterrupt, RunError):
            write_record(ablation, scores, folder=folder, status="interrupted")
            raise
        return write_record(ablation, scores, folder=folder, status="finished")


def write_record(
    ablation: Ablation, scores: Scores, *, folder: Path, status: str
) -> dict[str, Any]:
    """Write `ablation.json` and return what it holds."""
    record = {
        "format": FORMAT,
        "status": status,
        "identity": ablation.identity(),
        "seeds": ablation.seeds,
        "baseline": ablation.baseline,
        **describe_scores(
            scores, cells=ablation.cells, baseline=ablation.baseline, seeds=ablation.seeds
        ),
    }
    write_json(folder / ABLATION_FILE, record)
    return record


def find_result(trial: Trial, *, folder: Path) -> Mapping[str, Any] | None:
    """Return the result of a training that has finished; None for one that has not.

    Raises:
        RunError: If the run folder holds another training, or a damaged one.
    """
    path = folder / trial.name / RUN_FILE
    if not path.exists():
        return None
    table = read_run_table(path)
    changed = describe_changes(
        table["identity"], _plain(run_identity(trial.cell.recipe, trial.settings))
    )
    if changed:
        message = (
            f"{path.parent}: expected this ablation's own run; got another one: "
            f"{describe_list(changed)}. Move it away, or choose another --out."
        )
        raise RunError(message)
    result: Mapping[str, Any] | None = table["result"] if table["status"] == "finished" else None
    return result


def holds_ablation(folder: Path, identity: Mapping[str, Any]) -> bool:
    """Return whether a folder holds the ablation of this identity.

    Raises:
        RunError: If its record is damaged.
    """
    return (folder / ABLATION_FILE).exists() and not _departures(folder, identity)


def _train(
    trial: Trial, stream: BatchStream, *, folder: Path, on_progress: Callable[[Progress], None]
) -> Mapping[str, Any]:
    own = folder / trial.name
    if (own / RUN_FILE).exists():
        run = resume_run(own, stream=stream)
    else:
        run = start_run(trial.cell.recipe, trial.settings, stream=stream, folder=own)
    return run.train(on_progress=on_progress)


@contextlib.contextmanager
def _claimed(folder: Path, identity: Mapping[str, Any]) -> Iterator[None]:
    """Keep a folder for one ablation and one process.

    Raises:
        RunError: If it holds something else, or another process trains there.
    """
    if (folder / ABLATION_FILE).exists():
        departures = _departures(folder, identity)
        if departures:
            message = (
                f"{folder}: holds another ablation: {describe_list(departures)}. "
                "Ask for that one to go on with it, or choose another --out."
            )
            raise RunError(message)
    else:
        create_folder(folder)
    handle = lock_folder(folder)
    try:
        yield
    finally:
        os.close(handle)


def _departures(folder: Path, identity: Mapping[str, Any]) -> Sequence[str]:
    path = folder / ABLATION_FILE
    table = read_table(path)
    require_fields(
        table, {"format": (int,), "status": (str,), "identity": (dict,)}, where=str(path)
    )
    require_format(table, where=str(path))
    return describe_changes(table["identity"], dict(identity))


def _plain(table: Mapping[str, Any]) -> dict[str, Any]:
    plain: dict[str, Any] = json.loads(json.dumps(table))
    return plain
