"""What an ablation's runs have shown, as the plain tables of its record.

A row for each setting, and for three numbers of epochs or more the effective speed-ups. Accuracies
in [0, 1], errors in percent.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from parity.errors import FitError
from parity.match.grid import Cell
from parity.match.paired import summarize
from parity.match.speedup import MIN_POINTS, fit_power_law

# Index of the number of epochs, value, seed -> a run's result.
Scores = dict[tuple[int, str, int], Mapping[str, Any]]
Table = dict[str, Any]

ACCURACY, PLAIN_ACCURACY = "test_accuracy", "test_accuracy_plain"


def describe_scores(
    scores: Scores, *, cells: Sequence[Cell], baseline: str, seeds: int
) -> dict[str, Any]:
    """Return `runs`, `rows` and `speedups` of the runs that have finished.

    Speed-ups are left empty until every run has.
    """
    measures = [ACCURACY]
    if any(PLAIN_ACCURACY in result for result in scores.values()):
        measures.append(PLAIN_ACCURACY)
    epochs = {(cell.length, cell.value): cell.recipe.epochs for cell in cells}
    rows = [_row(scores, cell, measures=measures, baseline=baseline) for cell in cells]
    is_complete = len(scores) == len(cells) * seeds
    lengths = 1 + max(cell.length for cell in cells)
    is_curve = is_complete and lengths >= MIN_POINTS
    return {
        "runs": [
            {"epochs": epochs[length, value], "value": value, "seed": seed, **result}
            for (length, value, seed), result in scores.items()
        ],
        "rows": rows,
        "speedups": [
            describe_speedups(rows, measure=measure, baseline=baseline) for measure in measures
        ]
        if is_curve
        else [],
    }


def _row(scores: Scores, cell: Cell, *, measures: Sequence[str], baseline: str) -> Table:
    row: Table = {"epochs": cell.recipe.epochs, "value": cell.value}
    for measure in measures:
        own = _by_seed(scores, measure, length=cell.length, value=cell.value)
        base = _by_seed(scores, measure, length=cell.length, value=baseline)
        summary = summarize(own, baseline=None if cell.value == baseline else base)
        row[measure] = dataclasses.asdict(summary)
    return row


def _by_seed(scores: Scores, measure: str, *, length: int, value: str) -> dict[int, float]:
    return {
        seed: result[measure]
        for (other, name, seed), result in scores.items()
        if (other, name) == (length, value) and measure in result
    }


def describe_speedups(rows: Sequence[Table], *, measure: str, baseline: str) -> Table:
    """Return the baseline's power law and each other value's effective speed-up under it.

    `law` is None, and `problem` says why, where no law fits. `effective_epochs` and `speedup` are
    None for an error that the law never reaches; `is_extrapolated` says that the effective epochs
    lie outside the fitted ones.
    """
    errors = {(row["value"], row["epochs"]): 100 * (1 - row[measure]["mean"]) for row in rows}
    points = [(epochs, error) for (value, epochs), error in errors.items() if value == baseline]
    table: Table = {"measure": measure, "law": None, "problem": None, "rows": []}
    try:
        law = fit_power_law([epochs for epochs, _ in points], [error for _, error in points])
    except FitError as problem:
        return table | {"problem": f"{baseline}: {problem}"}
    for (value, epochs), error in errors.items():
        if value == baseline:
            continue
        reached = law.epochs_to_reach(error)
        table["rows"].append(
            {
                "epochs": epochs,
                "value": value,
                "error_percent": error,
                "effective_epochs": reached,
                "speedup": law.speedup(error, epochs=epochs),
                "is_extrapolated": reached is None or not law.covers(reached),
            }
        )
    return table | {"law": dataclasses.asdict(law)}
