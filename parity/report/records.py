"""Run records, read from their JSON files into frozen dataclasses.

A damaged or missing file is refused with all its problems at once; keys that are not listed here
are left alone, so that a later writer may add some. Only the last line of a metrics file may be cut
short: that is how a killed process leaves it.
"""

import dataclasses
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from parity.errors import RunError
from parity.lockstep.fields import (
    IDENTITY,
    NUMBER,
    OPTIONAL_NUMBER,
    Fields,
    read_run_table,
    require_fields,
    require_table,
)
from parity.lockstep.files import METRICS_FILE, RUN_FILE

_EPOCH: Fields = {
    "epoch": (int,),
    "step": (int,),
    "train_loss": NUMBER,
    "test_accuracy": OPTIONAL_NUMBER,
}


@dataclass(frozen=True, kw_only=True)
class EpochRecord:
    """One line of a run's metrics; accuracies in [0, 1].

    Attributes:
        epoch: Passes over the training images begun so far, from 1.
        step: Updates made so far.
        train_loss: Mean over the epoch.
        test_accuracy: None in an epoch that was not evaluated.
    """

    epoch: int
    step: int
    train_loss: float
    test_accuracy: float | None


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """What a finished training reached; accuracies in [0, 1].

    Attributes:
        test_accuracy: As the recipe scores it.
        test_loss: Likewise.
        seconds: Of training.
        steps: Updates made.
        test_accuracy_plain: Without test-time augmentation; None where the recipe has none.
    """

    test_accuracy: float
    test_loss: float
    seconds: float
    steps: int
    test_accuracy_plain: float | None


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """One training run.

    Attributes:
        folder: Where it was read from.
        recipe: The resolved recipe as nested tables.
        keras_backend: None for a torch run.
        compiled: Whether the net's passes were compiled.
        threads: Of the processor, or None where the run left them to the framework.
        versions: Package name -> version.
        status: `running`, `interrupted` or `finished`.
        stream_digest: SHA-256 of the batches in hex; None before the run has finished.
        parameters: Count of trained numbers; None before the run has finished.
        result: None before the run has finished.
        epochs: In order, as far as the run got.
    """

    folder: Path
    recipe: Mapping[str, Any]
    seed: int
    framework: str
    keras_backend: str | None
    dtype: str
    compiled: bool
    threads: int | None
    memory_format: str | None
    device: str
    versions: Mapping[str, str]
    cpu: str
    status: str
    stream_digest: str | None
    parameters: int | None
    result: RunResult | None
    epochs: tuple[EpochRecord, ...]

    @property
    def label(self) -> str:
        """What reports call the framework, such as `torch` or `keras-tensorflow`."""
        return f"{self.framework}-{self.keras_backend}" if self.keras_backend else self.framework


def read_run(folder: Path) -> RunRecord:
    """Read `run.json` and `metrics.jsonl` of a run folder.

    Raises:
        RunError: If a file is missing or damaged; all problems of a table are listed.
    """
    path = folder / RUN_FILE
    table = read_run_table(path)
    is_finished = table["status"] == "finished"
    identity = table["identity"]
    return RunRecord(
        folder=folder,
        **{key: identity[key] for key in IDENTITY},
        status=table["status"],
        stream_digest=table["stream_digest"] if is_finished else None,
        parameters=table["parameters"] if is_finished else None,
        result=_parse_result(table["result"]) if is_finished else None,
        epochs=_read_epochs(folder / METRICS_FILE, is_required=is_finished),
    )


def _parse_result(table: Mapping[str, Any]) -> RunResult:
    values = {"test_accuracy_plain": None, **table}
    return RunResult(**{field.name: values[field.name] for field in dataclasses.fields(RunResult)})


def _read_epochs(path: Path, *, is_required: bool) -> tuple[EpochRecord, ...]:
    if not path.is_file():
        if is_required:
            message = f"{path}: expected the metrics of a finished run; the file is missing."
            raise RunError(message)
        return ()
    *lines, rest = path.read_bytes().split(b"\n")
    epochs = [
        _parse_epoch(line, where=f"{path}: line {number}")
        for number, line in enumerate(lines, start=1)
    ]
    if rest and _is_complete(rest):
        epochs.append(_parse_epoch(rest, where=f"{path}: line {len(lines) + 1}"))
    _require_order(epochs, where=str(path))
    return tuple(epochs)


def _is_complete(line: bytes) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


def _parse_epoch(line: bytes, *, where: str) -> EpochRecord:
    try:
        table = json.loads(line)
    except ValueError as error:
        message = f"{where}: expected one JSON object; {error}."
        raise RunError(message) from error
    values = {"test_accuracy": None, **require_table(table, where=where)}
    require_fields(values, _EPOCH, where=where)
    return EpochRecord(**{key: values[key] for key in _EPOCH})


def _require_order(epochs: Sequence[EpochRecord], *, where: str) -> None:
    for number, (before, after) in enumerate(itertools.pairwise(epochs), start=2):
        if after.epoch <= before.epoch:
            message = (
                f"{where}: line {number}: "
                f"expected an epoch after {before.epoch}; got {after.epoch}. "
                "Two runs wrote into one folder: repeat the run in a new one."
            )
            raise RunError(message)
