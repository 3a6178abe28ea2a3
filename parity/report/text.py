"""Terminal text: tables of runs and of a lockstep, a verdict in one or two sentences, and TOML.

Pure functions: they return text or rich renderables and print nothing. Cells are `Text`, so that a
name with square brackets is shown, not taken for markup.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import tomlkit
from rich import box
from rich.table import Table
from rich.text import Text

from parity.errors import describe_list
from parity.report.locksteps import LockstepRecord, WorstGap, parse_lockstep
from parity.report.numbers import (
    MISSING,
    format_count,
    format_digest,
    format_gap,
    format_growth,
    format_percent,
    format_ratio,
    format_seconds,
)
from parity.report.recipes import title_recipes
from parity.report.records import RunRecord
from parity.report.series import (
    Experiment,
    compare_streams,
    group_experiments,
    has_plain_accuracies,
)

VERDICT_LEVELS = {
    "numerically equivalent": "good",
    "diverges": "bad",
    "not the same function": "bad",
    "vacuous": "open",
    "not compared": "open",
}
_LEVEL_STYLES = {"good": "green", "bad": "red", "open": "yellow"}
SAME_DATA = {True: "same data", False: "other data", None: MISSING}
SAME_DATA_LEVELS = {True: "good", False: "bad", None: "open"}


def render_lockstep_table(record: LockstepRecord | Mapping[str, Any]) -> Table:
    """Return the worst gap of each quantity; a ratio above 1 is marked.

    Raises:
        RunError: If plain tables are given and are no lockstep record.
    """
    lockstep = _as_lockstep(record)
    table = _new_table(title=lockstep_title(lockstep))
    table.add_column("quantity", no_wrap=True)
    for name in ("worst gap", "bound", "ratio", "step"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("where", overflow="fold")
    table.add_column("growth", justify="right", no_wrap=True)
    for worst in lockstep.summary:
        style = _LEVEL_STYLES[ratio_level(worst)]
        table.add_row(
            Text(worst.quantity),
            Text(format_gap(worst.gap)),
            Text(format_gap(worst.bound)),
            Text(format_ratio(worst.ratio), style=style),
            Text(MISSING if worst.step is None else str(worst.step)),
            Text(worst.where or MISSING),
            Text(format_growth(worst.growth)),
        )
    return table


def render_runs_table(runs: Sequence[RunRecord]) -> Table:
    """Return one row a run, by recipe, framework and seed; recipes stand in the title, in order.

    Raises:
        RunError: If a series has one seed twice.
    """
    experiments = group_experiments(runs)
    titles = title_recipes([experiment.recipe for experiment in experiments])
    table = _new_table(title=f"Test accuracy: {'; '.join(titles)}")
    table.add_column("framework", overflow="fold")
    has_views = has_plain_accuracies(runs)
    figures = ("seed", "accuracy", *(["plain accuracy"] if has_views else []), "seconds")
    for name in figures:
        table.add_column(name, justify="right", no_wrap=True)
    for name in ("status", "batches", "data"):
        table.add_column(name, no_wrap=True)
    for experiment in experiments:
        for row in _run_rows(experiment, has_views=has_views):
            table.add_row(*row)
        table.add_section()
    return table


def describe_verdict(record: LockstepRecord | Mapping[str, Any]) -> str:
    """Return the verdict in one or two sentences.

    A divergence is named by step, quantity, place, gap and bound.

    Raises:
        RunError: If plain tables are given and are no lockstep record.
    """
    lockstep = _as_lockstep(record)
    sentences = [_describe_outcome(lockstep)]
    if lockstep.injected is not None and lockstep.summary:
        verb = "caught" if VERDICT_LEVELS[lockstep.verdict] == "bad" else "not caught"
        sentences.append(
            f"The fault {lockstep.injected} was injected on purpose in {lockstep.candidate}, "
            f"and was {verb}."
        )
    if lockstep.detection_power:
        sentences.append(describe_power(lockstep))
    return " ".join(sentences)


def describe_power(lockstep: LockstepRecord) -> str:
    """Return how many wrong twins the comparison would have caught, and which it would not."""
    trials = lockstep.detection_power
    missed = [trial.change for trial in trials if not trial.caught]
    but = f"; not {describe_list(missed)}" if missed else ""
    return (
        f"Detection power: it would have caught {len(trials) - len(missed)} of "
        f"{format_count(len(trials), 'wrong twin')}{but}."
    )


def describe_gap(worst: WorstGap) -> str:
    """Return quantity, place, gap, bound and ratio in one clause."""
    place = f" at {worst.where}" if worst.where else ""
    share = (
        f"; {format_percent(worst.share_out)} of the array is over it" if worst.share_out else ""
    )
    return (
        f"{worst.quantity}{place}, gap {format_gap(worst.gap)} "
        f"against a bound of {format_gap(worst.bound)} (ratio {format_ratio(worst.ratio)}{share})"
    )


def lockstep_title(lockstep: LockstepRecord) -> str:
    """Return who was compared with whom, over how many steps, how, and in which precision."""
    how = f"{format_count(lockstep.steps, 'step')}, {lockstep.mode}, {lockstep.dtype}"
    return f"{lockstep.candidate} against {lockstep.reference}: {how}"


def ratio_level(worst: WorstGap) -> str:
    """Return `good` for a ratio up to 1, `bad` above it or for NaN, `open` where none is judged."""
    if worst.ratio is None:
        return "open"
    return "good" if worst.ratio <= 1 else "bad"


def render_toml(table: Mapping[str, Any]) -> str:
    """Return nested tables as TOML text that `tomllib` reads back to the same values.

    >>> print(render_toml({"epochs": 2, "augment": {"flip": "none"}}), end="")
    epochs = 2
    <BLANKLINE>
    [augment]
    flip = "none"
    """
    return tomlkit.dumps(dict(table))


def _new_table(*, title: str | None = None) -> Table:
    heading = None if title is None else Text(title)
    return Table(
        title=heading,
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )


def _as_lockstep(record: LockstepRecord | Mapping[str, Any]) -> LockstepRecord:
    if isinstance(record, LockstepRecord):
        return record
    return parse_lockstep(record, where="lockstep record")


def _describe_outcome(lockstep: LockstepRecord) -> str:
    candidate, reference = lockstep.candidate, lockstep.reference
    if lockstep.verdict == "diverges" and lockstep.first_divergence is not None:
        first = lockstep.first_divergence
        when = f"at step {first.step}" if first.step else "before the first step"
        return f"{candidate} diverges from {reference} {when}: {describe_gap(first)}."
    if lockstep.verdict == "numerically equivalent" and lockstep.summary:
        steps = format_count(lockstep.steps, "step")
        worst = max(
            (worst for worst in lockstep.summary if worst.ratio is not None),
            key=lambda worst: worst.ratio or 0.0,
            default=None,
        )
        closest = f"; closest to its bound: {describe_gap(worst)}" if worst else ""
        return f"{candidate} is numerically equivalent to {reference} over {steps}{closest}."
    return f"{candidate} against {reference}: {lockstep.verdict}; {lockstep.reason}"


def _run_rows(experiment: Experiment, *, has_views: bool) -> list[tuple[Text, ...]]:
    same_data = compare_streams(experiment)
    return [
        (
            Text(series.name),
            Text(str(run.seed)),
            Text(format_percent(run.result.test_accuracy if run.result else None)),
            *([_plain_accuracy_cell(run)] if has_views else []),
            Text(format_seconds(run.result.seconds if run.result else None)),
            Text(run.status),
            Text(format_digest(run.stream_digest)),
            _same_data_cell(is_same=same_data[run.seed] if run.result else None),
        )
        for series in experiment.series
        for run in series.runs
    ]


def _plain_accuracy_cell(run: RunRecord) -> Text:
    return Text(format_percent(run.result.test_accuracy_plain if run.result else None))


def _same_data_cell(*, is_same: bool | None) -> Text:
    return Text(SAME_DATA[is_same], style=_LEVEL_STYLES[SAME_DATA_LEVELS[is_same]])
