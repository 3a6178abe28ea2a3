"""Terminal text of an ablation: its table, its effective speed-ups and its notes.

Read from the plain tables of the record. Pure functions, as in `parity.report.text`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from parity.match.speedup import MIN_POINTS
from parity.report.numbers import MISSING, format_percent, format_points

Record = Mapping[str, Any]

# Key of a row -> what its columns are called.
MEASURES = {"test_accuracy": "accuracy", "test_accuracy_plain": "plain accuracy"}


def render_ablation_tables(record: Record) -> list[Table]:
    """Return a table for accuracy, and one for accuracy without test-time augmentation, if any.

    A row for each number of epochs and value. Differences are to the baseline at the same epochs,
    in points.
    """
    return [_ablation_table(record, measure) for measure in _measures(record)]


def _ablation_table(record: Record, measure: str) -> Table:
    identity, rows = record["identity"], record["rows"]
    table = _new_table(
        f"{_label(identity)}: {MEASURES[measure]}, difference in points to {record['baseline']}"
    )
    table.add_column("epochs", justify="right", no_wrap=True)
    table.add_column(Text(identity["vary"]), overflow="fold")
    for name in ("n", MEASURES[measure], "sd", "difference", "95 % interval"):
        table.add_column(name, justify="right", no_wrap=True)
    for index, row in enumerate(rows):
        cells = (f"{row['epochs']:g}", row["value"], *_figures(row[measure]))
        is_last = index + 1 == len(rows) or rows[index + 1]["epochs"] != row["epochs"]
        table.add_row(*map(Text, cells), end_section=is_last)
    return table


def render_speedup_table(record: Record) -> Table | None:
    """Return the effective speed-ups; None where no curve was fitted."""
    fitted = [part for part in record["speedups"] if part["law"] is not None]
    if not fitted:
        return None
    table = _new_table(f"effective speed-up over {record['baseline']}")
    table.add_column("of", no_wrap=True)
    table.add_column("epochs", justify="right", no_wrap=True)
    table.add_column(Text(record["identity"]["vary"]), overflow="fold")
    for name in ("error", "effective epochs", "speed-up"):
        table.add_column(name, justify="right", no_wrap=True)
    for part in fitted:
        for row in part["rows"]:
            table.add_row(
                MEASURES[part["measure"]],
                f"{row['epochs']:g}",
                Text(row["value"]),
                f"{row['error_percent']:.2f} %",
                _effective_epochs(row),
                _speedup(row),
            )
        table.add_section()
    return table


def describe_notes(record: Record) -> list[str]:
    """Return what the tables do not show, in sentences."""
    notes = []
    if record["seeds"] == 1:
        notes.append("one seed shows no spread: a difference may be chance. Train with --seeds 5.")
    elif _has_equal_differences(record):
        notes.append(
            "where all seeds show the same difference there is no interval: more seeds are needed."
        )
    for part in record["speedups"]:
        name, law = MEASURES[part["measure"]], part["law"]
        if law is None:
            notes.append(f"{name}: no effective speed-up. {part['problem']}")
            continue
        notes.append(_describe_law(name, law, baseline=record["baseline"]))
        if any(row["is_extrapolated"] for row in part["rows"]):
            notes.append(
                f"{name}: (*) lies outside the fitted epochs, where small changes of the errors "
                "move it far."
            )
    return notes


def _describe_law(name: str, law: Record, *, baseline: str) -> str:
    residual = (
        "three points leave no residual"
        if law["points"] == MIN_POINTS
        else f"largest residual {law['residual']:.2g} points"
    )
    floor = "" if law["floor"] > 0 else "; its floor is no error: the curve is far from it"
    return (
        f"{name}: error in percent of {baseline} = {law['floor']:.4g} + {law['scale']:.4g} * "
        f"epochs^{law['exponent']:.4g}, fitted over {law['first']:g} to {law['last']:g} epochs; "
        f"{residual}{floor}."
    )


def _label(identity: Record) -> str:
    backend = identity["keras_backend"]
    framework = identity["framework"] if backend is None else f"keras-{backend}"
    recipe = identity["recipe"]
    return f"{recipe['name']} on {recipe['data']}, {framework} {identity['dtype']}"


def _measures(record: Record) -> Sequence[str]:
    return [measure for measure in MEASURES if measure in record["rows"][0]]


def _figures(summary: Record) -> list[str]:
    difference = summary["difference"]
    figures = [
        str(summary["seeds"]),
        format_percent(summary["mean"]),
        format_points(summary["deviation"]),
    ]
    if difference is None:
        return [*figures, MISSING, MISSING]
    interval = difference["interval"]
    span = MISSING if interval is None else f"{_signed(interval[0])} to {_signed(interval[1])}"
    return [*figures, _signed(difference["mean"]), span]


def _signed(share: float) -> str:
    return f"{100 * share:+.2f}"


def _effective_epochs(row: Record) -> str:
    reached = row["effective_epochs"]
    return MISSING if reached is None else f"{reached:.4g}"


def _speedup(row: Record) -> str:
    if row["speedup"] is None:
        return "beyond the curve"
    return f"{100 * row['speedup']:+.1f} %{' (*)' if row['is_extrapolated'] else ''}"


def _has_equal_differences(record: Record) -> bool:
    differences = [
        row[measure]["difference"] for row in record["rows"] for measure in _measures(record)
    ]
    return any(each and each["seeds"] > 1 and each["interval"] is None for each in differences)


def _new_table(title: str) -> Table:
    return Table(
        title=Text(title),
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )
