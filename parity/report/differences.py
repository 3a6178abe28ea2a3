"""The register of differences as text: a terminal table, one row in full, and Markdown."""

from collections import Counter
from collections.abc import Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from parity.report.numbers import MISSING
from parity.spec.differences import BACKENDS, PREAMBLE, SETTLEMENTS, Difference

_SETTLED_BY = {
    "field": "a field of the spec",
    "adapter": "an adapter",
    "refusal": "a refusal",
    "documentation": "documentation only",
}


def render_differences_table(rows: Sequence[Difference]) -> Table:
    """Return one line a difference: id, layer, size and what settles it."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    table.add_column("difference", no_wrap=True)
    table.add_column("layer", no_wrap=True)
    table.add_column("gap", justify="right", no_wrap=True)
    table.add_column("settled by", no_wrap=True)
    for row in rows:
        table.add_row(*map(Text, (row.id, row.layer, _size(row), row.settled_by)))
    return table


def describe_difference(row: Difference) -> str:
    """Return a row in full, with code that runs as it is."""
    lines = [
        f"{row.id} ({row.layer})",
        f"torch:      {row.torch}",
        f"keras:      {row.keras}",
        f"matters:    {row.matters}",
        f"gap:        {_size(row)} by default, relative to the largest value",
        f"settled by: {_SETTLED_BY[row.settled_by]}: {row.settlement}",
    ]
    if row.backends != BACKENDS:
        lines.append(f"backends:   {', '.join(row.backends)}")
    return "\n".join([*lines, "", row.code.rstrip()])


def count_differences(rows: Sequence[Difference]) -> dict[str, int]:
    """Return how many rows each way of settling has, in the order of `SETTLEMENTS`."""
    counts = Counter(row.settled_by for row in rows)
    return {name: counts[name] for name in SETTLEMENTS}


def render_markdown(rows: Sequence[Difference]) -> str:
    """Return the whole register as a Markdown page, by layer."""
    counts = ", ".join(f"{count} by {name}" for name, count in count_differences(rows).items())
    parts = [
        "# Differences between PyTorch and Keras",
        "",
        "Written by `parity differences --markdown` from `parity/spec/differences.toml`; every",
        "row is demonstrated by `pytest tests/differences`. Measured with torch 2.13.0 and keras",
        "3.15.1 on tensorflow 2.21.0, jax 0.10.2 and torch.",
        "",
        f"{len(rows)} rows, settled {counts}. The gap is the largest difference at the defaults,",
        "relative to torch's largest value. Every snippet runs after:",
        "",
        "```python",
        PREAMBLE.rstrip(),
        "```",
    ]
    for layer in dict.fromkeys(row.layer for row in rows):
        parts += ["", f"## {layer.replace('_', ' ').capitalize()}"]
        for row in rows:
            if row.layer == layer:
                parts += _markdown_row(row)
    return "\n".join(parts) + "\n"


def _markdown_row(row: Difference) -> list[str]:
    where = "" if row.backends == BACKENDS else f" (on {', '.join(row.backends)})"
    return [
        "",
        f"### `{row.id}`",
        "",
        f"- PyTorch: {row.torch}",
        f"- Keras: {row.keras}",
        f"- Matters: {row.matters}",
        f"- Gap by default{where}: {_size(row)}",
        f"- Settled by {_SETTLED_BY[row.settled_by]}: {row.settlement}",
        "",
        "```python",
        row.snippet.strip("\n"),
        "```",
    ]


def _size(row: Difference) -> str:
    return MISSING if row.size is None else f"{row.size:.2g}"
