"""Run and lockstep records, read from their JSON files into frozen dataclasses.

A damaged or missing file is refused with all its problems at once; keys that are not listed here
are left alone, so that a later writer may add some. Only the last line of a metrics file may be cut
short: that is how a killed process leaves it.
"""

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from parity.errors import RunError
from parity.report.fields import (
    Fields,
    Types,
    require_choice,
    require_fields,
    require_format,
    require_table,
)

FRAMEWORKS = ("torch", "keras")
STATUSES = ("running", "interrupted", "finished")
MODES = ("resync", "free")
VERDICTS = (
    "numerically equivalent",
    "diverges",
    "vacuous",
    "not the same function",
    "not compared",
)

_NUMBER: Types = (int, float)
_OPTIONAL_NUMBER: Types = (int, float, type(None))
_OPTIONAL_TEXT: Types = (str, type(None))

_RUN: Fields = {"format": (int,), "identity": (dict,), "status": (str,)}
_FINISHED: Fields = {"stream_digest": (str,), "parameters": (int,), "result": (dict,)}
_IDENTITY: Fields = {
    "recipe": (dict,),
    "seed": (int,),
    "framework": (str,),
    "keras_backend": _OPTIONAL_TEXT,
    "dtype": (str,),
    "threads": (int, type(None)),
    "memory_format": _OPTIONAL_TEXT,
    "device": (str,),
    "versions": (dict,),
    "cpu": (str,),
}
_RESULT: Fields = {
    "test_accuracy": _NUMBER,
    "test_loss": _NUMBER,
    "seconds": _NUMBER,
    "steps": (int,),
}
_EPOCH: Fields = {
    "epoch": (int,),
    "step": (int,),
    "train_loss": _NUMBER,
    "test_accuracy": _OPTIONAL_NUMBER,
}
_LOCKSTEP: Fields = {
    "format": (int,),
    "reference": (str,),
    "candidate": (str,),
    "mode": (str,),
    "dtype": (str,),
    "recipe": (dict,),
    "seed": (int,),
    "steps": (int,),
    "injected": _OPTIONAL_TEXT,
    "verdict": (str,),
    "reason": (str,),
    "first_divergence": (dict, type(None)),
    "summary": (list,),
    "rows": (list,),
    "notes": (list,),
    "environment": (dict,),
    "stream_digest": (str,),
    "seconds": _NUMBER,
}
_GAP: Fields = {"gap": _NUMBER, "bound": _OPTIONAL_NUMBER, "where": _OPTIONAL_TEXT}
_WORST: Fields = {
    **_GAP,
    "quantity": (str,),
    "ratio": _OPTIONAL_NUMBER,
    "step": (int, type(None)),
    "growth": _OPTIONAL_NUMBER,
}
_ROW: Fields = {"step": (int,), "quantities": (dict,)}
_ENVIRONMENT: Fields = {"versions": (dict,), "cpu": (str,), "threads": (int, type(None))}


@dataclass(frozen=True, kw_only=True)
class EpochRecord:
    """One line of a run's metrics; accuracies in [0, 1].

    Attributes:
        epoch: Passes over the training images made so far, from 1.
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
    """What a finished training reached; accuracies in [0, 1]."""

    test_accuracy: float
    test_loss: float
    seconds: float
    steps: int


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """One training run.

    Attributes:
        folder: Where it was read from.
        recipe: The resolved recipe as nested tables.
        keras_backend: None for a torch run.
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


@dataclass(frozen=True, kw_only=True)
class QuantityGap:
    """The largest gap of one quantity in one step.

    Attributes:
        gap: Distance between reference and candidate.
        bound: What rounding explains; None where the mode sets no bound.
        where: Layer path and slot of the worst array, or empty.
    """

    gap: float
    bound: float | None
    where: str


@dataclass(frozen=True, kw_only=True)
class WorstGap:
    """The step and place at which a quantity came closest to its bound, or passed it furthest.

    Attributes:
        ratio: Gap over bound; above 1 is more than rounding explains.
        growth: How the gap grew over the steps, as the lockstep measured it, or None.
    """

    quantity: str
    gap: float
    bound: float | None
    ratio: float | None
    step: int | None
    where: str
    growth: float | None


@dataclass(frozen=True, kw_only=True)
class LockstepRow:
    """One step of a lockstep.

    Attributes:
        step: From 1.
        quantities: Quantity -> gap of this step.
        control: Quantity -> gap of the reference against itself, every weight moved by one unit in
            the last place; empty without a control.
    """

    step: int
    quantities: Mapping[str, QuantityGap]
    control: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class LockstepRecord:
    """Two nets trained on the same batches and compared at every step.

    Attributes:
        mode: `resync` (the candidate takes over the reference's state after each step) or `free`.
        injected: The fault that was set in the candidate on purpose, or None.
        verdict: One of `VERDICTS`.
        reason: One sentence.
        first_divergence: None where nothing cleared its bound.
        summary: The worst gap of each quantity.
        rows: One a step.
        versions: Package name -> version.
    """

    reference: str
    candidate: str
    mode: str
    dtype: str
    recipe: Mapping[str, Any]
    seed: int
    steps: int
    injected: str | None
    verdict: str
    reason: str
    first_divergence: WorstGap | None
    summary: tuple[WorstGap, ...]
    rows: tuple[LockstepRow, ...]
    notes: tuple[str, ...]
    versions: Mapping[str, str]
    cpu: str
    threads: int | None
    stream_digest: str
    seconds: float


def read_run(folder: Path) -> RunRecord:
    """Read `run.json` and `metrics.jsonl` of a run folder.

    Raises:
        RunError: If a file is missing or damaged; all problems of a table are listed.
    """
    path = folder / "run.json"
    table = _read_json(path)
    where = str(path)
    require_fields(table, _RUN, where=where)
    require_format(table, where=where)
    require_choice(table, "status", STATUSES, where=where)
    is_finished = table["status"] == "finished"
    if is_finished:
        require_fields(table, _FINISHED, where=where)
    identity = table["identity"]
    require_fields(identity, _IDENTITY, where=where, prefix="identity.")
    require_choice(identity, "framework", FRAMEWORKS, where=f"{where}: identity")
    return RunRecord(
        folder=folder,
        **{key: identity[key] for key in _IDENTITY},
        status=table["status"],
        stream_digest=table["stream_digest"] if is_finished else None,
        parameters=table["parameters"] if is_finished else None,
        result=_parse_result(table["result"], where=where) if is_finished else None,
        epochs=_read_epochs(folder / "metrics.jsonl", is_required=is_finished),
    )


def read_lockstep(path: Path) -> LockstepRecord:
    """Read a lockstep record.

    Raises:
        RunError: If the file is missing or damaged; all problems of a table are listed.
    """
    return parse_lockstep(_read_json(path), where=str(path))


def parse_lockstep(table: Mapping[str, Any], *, where: str) -> LockstepRecord:
    """Return the lockstep record of plain JSON tables; `where` names them in messages.

    Raises:
        RunError: If a key is missing or has the wrong type or value.
    """
    require_fields(table, _LOCKSTEP, where=where)
    require_format(table, where=where)
    require_choice(table, "verdict", VERDICTS, where=where)
    require_choice(table, "mode", MODES, where=where)
    environment = table["environment"]
    require_fields(environment, _ENVIRONMENT, where=where, prefix="environment.")
    first = table["first_divergence"]
    plain = set(_LOCKSTEP) - {
        "format",
        "first_divergence",
        "summary",
        "rows",
        "notes",
        "environment",
    }
    return LockstepRecord(
        **{key: table[key] for key in plain},
        first_divergence=_parse_worst(first, where=where, prefix="first_divergence.")
        if first
        else None,
        summary=tuple(
            _parse_worst(worst, where=where, prefix=f"summary[{index}].")
            for index, worst in enumerate(table["summary"])
        ),
        rows=tuple(
            _parse_row(row, where=where, prefix=f"rows[{index}].")
            for index, row in enumerate(table["rows"])
        ),
        notes=tuple(table["notes"]),
        **{key: environment[key] for key in _ENVIRONMENT},
    )


def _parse_result(table: Mapping[str, Any], *, where: str) -> RunResult:
    require_fields(table, _RESULT, where=where, prefix="result.")
    return RunResult(**{key: table[key] for key in _RESULT})


def _parse_worst(table: Mapping[str, Any], *, where: str, prefix: str) -> WorstGap:
    values = {"growth": None, **require_table(table, where=f"{where}: {prefix.rstrip('.')}")}
    require_fields(values, _WORST, where=where, prefix=prefix)
    return WorstGap(**{key: values[key] for key in _WORST} | {"where": values["where"] or ""})


def _parse_row(table: Mapping[str, Any], *, where: str, prefix: str) -> LockstepRow:
    require_fields(table, _ROW, where=where, prefix=prefix)
    gaps = {}
    for quantity, gap in table["quantities"].items():
        require_fields(gap, _GAP, where=where, prefix=f"{prefix}quantities.{quantity}.")
        gaps[quantity] = QuantityGap(gap=gap["gap"], bound=gap["bound"], where=gap["where"] or "")
    control = table.get("control") or {}
    require_fields(
        control, dict.fromkeys(control, _NUMBER), where=where, prefix=f"{prefix}control."
    )
    return LockstepRow(step=table["step"], quantities=gaps, control=control)


def _read_json(path: Path) -> Mapping[str, Any]:
    try:
        table = json.loads(path.read_bytes())
    except OSError as error:
        message = f"{path}: expected a record file; {error.strerror or error}."
        raise RunError(message) from error
    except ValueError as error:
        message = f"{path}: expected JSON; {error}. The file is damaged: repeat the run."
        raise RunError(message) from error
    return require_table(table, where=str(path))


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
