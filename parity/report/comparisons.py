"""Comparisons of two models as text, and as tables for JSON."""

from dataclasses import asdict
from typing import Any

from rich.table import Table
from rich.text import Text

from parity.compare.findings import PHASES, Figure, Finding
from parity.report.numbers import format_gap, format_ratio

# Rows of a phase that the terminal shows: those nearest to their noise, or furthest over it.
SHOWN = 5


def render_comparison(finding: Finding) -> Table:
    """Return the figures of each phase that are worst, in the order of the phases."""
    reference, candidate = finding.labels
    table = Table(title=f"{candidate} against {reference}: {finding.precision}", box=None)
    table.add_column("phase", no_wrap=True)
    table.add_column("reference", overflow="fold")
    table.add_column("candidate", overflow="fold")
    table.add_column("quantity", overflow="fold")
    for name in ("gap", "noise", "ratio"):
        table.add_column(name, justify="right", no_wrap=True)
    for phase in PHASES:
        figures = [figure for figure in finding.figures if figure.phase == phase]
        for figure in sorted(figures, key=lambda one: -one.ratio)[:SHOWN]:
            table.add_row(*_cells(figure))
    return table


def _cells(figure: Figure) -> list[Text]:
    style = "red" if figure.is_wrong else "yellow" if figure.is_unclear else ""
    words = [figure.phase, figure.reference, figure.candidate, figure.quantity]
    numbers = [
        Text(format_gap(figure.gap)),
        Text(format_gap(figure.noise)),
        Text(format_ratio(figure.ratio), style=style),
    ]
    return [*map(Text, words), *numbers]


def describe_finding(finding: Finding) -> str:
    """Return the verdict and what it rests on, as sentences."""
    reference, candidate = finding.labels
    paired, seen = finding.compared
    joint = {
        "numerically equivalent": f"{candidate} is numerically equivalent to {reference}",
        "diverges": f"{candidate} diverges from {reference} in phase {finding.phase}",
        "not the same function": f"{candidate} is not the same function as {reference}",
        "vacuous": "vacuous",
        "not compared": "not compared",
    }[finding.verdict]
    sentences = [f"{joint}: {finding.reason}", f"{paired} of {seen} operations have a counterpart."]
    if finding.sensitivity is not None:
        sentences.append(
            f"The outputs move by {finding.sensitivity:.1e} of their scale when the inputs do."
        )
    if finding.power:
        caught = sum(finding.power.values())
        sentences.append(
            f"Detection power: {caught} of {len(finding.power)} injected faults would be caught."
        )
    sentences += [f"{sentence[0].upper()}{sentence[1:]}." for sentence in finding.structure]
    return "\n".join(sentences)


def comparison_record(finding: Finding) -> dict[str, Any]:
    """Return a finding as tables that JSON holds."""
    record = asdict(finding)
    record["figures"] = [{**asdict(figure), "ratio": figure.ratio} for figure in finding.figures]
    return record
