"""Lockstep records, read from their JSON files into frozen dataclasses.

A damaged or missing file is refused with all its problems at once; keys that are not listed here
are left alone, so that a later writer may add some.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from parity.compare.verdicts import Verdict
from parity.lockstep.fields import (
    NUMBER,
    OPTIONAL_NUMBER,
    OPTIONAL_TEXT,
    Fields,
    read_table,
    require_choice,
    require_fields,
    require_format,
    require_table,
)
from parity.lockstep.power import Trial

VERDICTS = get_args(Verdict)
MODES = ("resync", "free")

_LOCKSTEP: Fields = {
    "format": (int,),
    "reference": (str,),
    "candidate": (str,),
    "mode": (str,),
    "dtype": (str,),
    "device": (str,),
    "recipe": (dict,),
    "seed": (int,),
    "steps": (int,),
    "every": (int,),
    "injected": OPTIONAL_TEXT,
    "verdict": (str,),
    "reason": (str,),
    "first_divergence": (dict, type(None)),
    "summary": (list,),
    "rows": (list,),
    "notes": (list,),
    "input_sensitivity": OPTIONAL_NUMBER,
    "detection_power": (list,),
    "environment": (dict,),
    "stream_digest": (str,),
    "seconds": NUMBER,
}
_GAP: Fields = {"gap": NUMBER, "bound": OPTIONAL_NUMBER, "where": OPTIONAL_TEXT}
_WORST: Fields = {
    **_GAP,
    "quantity": (str,),
    "ratio": OPTIONAL_NUMBER,
    "step": (int, type(None)),
    "share_out": NUMBER,
    "growth": OPTIONAL_NUMBER,
}
_TRIAL: Fields = {
    "fault": (str,),
    "change": (str,),
    "caught": (bool,),
    "quantity": (str,),
    "ratio": NUMBER,
}
_ROW: Fields = {"step": (int,), "quantities": (dict,)}
_ENVIRONMENT: Fields = {"versions": (dict,), "cpu": (str,), "threads": (int, type(None))}


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
        share_out: Share of that array's elements that are over the bound, in [0, 1].
        growth: How the gap grew over the steps, as the lockstep measured it, or None.
    """

    quantity: str
    gap: float
    bound: float | None
    ratio: float | None
    step: int | None
    where: str
    share_out: float
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
        every: Steps between comparisons.
        injected: The fault that was set in the candidate on purpose, or None.
        verdict: One of `VERDICTS`.
        reason: One sentence.
        first_divergence: None where nothing cleared its bound.
        summary: The worst gap of each quantity.
        rows: One a step.
        input_sensitivity: How far logits vary over a batch, relative to their size; None where
            nothing was run.
        detection_power: Wrong twins that the comparison was tried on; empty unless it passed.
        versions: Package name -> version.
    """

    reference: str
    candidate: str
    mode: str
    dtype: str
    device: str
    recipe: Mapping[str, Any]
    seed: int
    steps: int
    every: int
    injected: str | None
    verdict: str
    reason: str
    first_divergence: WorstGap | None
    summary: tuple[WorstGap, ...]
    rows: tuple[LockstepRow, ...]
    notes: tuple[str, ...]
    input_sensitivity: float | None
    detection_power: tuple[Trial, ...]
    versions: Mapping[str, str]
    cpu: str
    threads: int | None
    stream_digest: str
    seconds: float


def read_lockstep(path: Path) -> LockstepRecord:
    """Read a lockstep record.

    Raises:
        RunError: If the file is missing or damaged; all problems of a table are listed.
    """
    return parse_lockstep(read_table(path), where=str(path))


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
        "detection_power",
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
        detection_power=tuple(
            _parse_trial(trial, where=where, prefix=f"detection_power[{index}].")
            for index, trial in enumerate(table["detection_power"])
        ),
        **{key: environment[key] for key in _ENVIRONMENT},
    )


def _parse_worst(table: Mapping[str, Any], *, where: str, prefix: str) -> WorstGap:
    values = {"growth": None, **require_table(table, where=f"{where}: {prefix.rstrip('.')}")}
    require_fields(values, _WORST, where=where, prefix=prefix)
    return WorstGap(**{key: values[key] for key in _WORST} | {"where": values["where"] or ""})


def _parse_trial(table: Mapping[str, Any], *, where: str, prefix: str) -> Trial:
    require_fields(table, _TRIAL, where=where, prefix=prefix)
    return Trial(**{key: table[key] for key in _TRIAL})


def _parse_row(table: Mapping[str, Any], *, where: str, prefix: str) -> LockstepRow:
    require_fields(table, _ROW, where=where, prefix=prefix)
    gaps = {}
    for quantity, gap in table["quantities"].items():
        require_fields(gap, _GAP, where=where, prefix=f"{prefix}quantities.{quantity}.")
        gaps[quantity] = QuantityGap(gap=gap["gap"], bound=gap["bound"], where=gap["where"] or "")
    control = table.get("control") or {}
    require_fields(control, dict.fromkeys(control, NUMBER), where=where, prefix=f"{prefix}control.")
    return LockstepRow(step=table["step"], quantities=gaps, control=control)
