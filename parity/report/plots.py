"""Plots as inline SVG: accuracy and loss against the epoch, gaps against the step.

Matplotlib is imported inside functions, so that importing this module stays cheap. The same records
give the same text: ids are hashed with a fixed salt and no date is written. Colours become CSS
variables with a fallback, so the page can turn dark; frameworks also differ by marker and series of
one framework by dash, for readers who see no colour.
"""

import contextlib
import html
import io
import math
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from parity.report.locksteps import LockstepRecord
from parity.report.numbers import format_count, format_gap, is_finite
from parity.report.records import RunRecord
from parity.report.series import Series, group_series

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, GRID = "#1a1c20", "#d9dce1"
# Source: Okabe and Ito, "Color Universal Design" (2008): distinct without red-green vision.
SERIES_COLOURS = {
    "torch": "#d55e00",
    "keras-tensorflow": "#0072b2",
    "keras-jax": "#009e73",
    "keras-torch": "#cc79a7",
}
OTHER_COLOUR = "#6b7280"
BOUND_COLOUR, CONTROL_COLOUR, GAP_COLOUR = "#b00020", "#4f5560", "#0b5cad"
_MARKERS = {"torch": "o", "keras-tensorflow": "s", "keras-jax": "^", "keras-torch": "D"}
_DASHES = ("-", "--", "-.", ":")
_VARIABLES = {
    INK: "--ink",
    GRID: "--rule",
    OTHER_COLOUR: "--series-other",
    BOUND_COLOUR: "--bound",
    CONTROL_COLOUR: "--control",
    GAP_COLOUR: "--gap",
} | {colour: f"--series-{label}" for label, colour in SERIES_COLOURS.items()}

_SIZE_INCHES = (5.4, 3.5)
_PANEL_INCHES = (4.0, 2.3)
_LOG_MARGIN = 0.02
_PERCENT_TICKS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100)


def plot_accuracy(runs: Sequence[RunRecord], *, name: str = "accuracy") -> str:
    """Return the test error in percent against the epoch: a thin line a seed, a bold mean a series.

    The error axis is logarithmic where errors span more than a factor of ten and none is zero.
    `name` starts every id, so that several plots fit in one page.

    Raises:
        RunError: If a series has one seed twice.
    """
    curves = {
        run.folder: {
            epoch.epoch: 100 * (1 - epoch.test_accuracy)
            for epoch in run.epochs
            if epoch.test_accuracy is not None
        }
        for run in runs
    }
    with _plot_style():
        figure, axes = _new_figure(_SIZE_INCHES)
        _draw_series(axes, group_series(runs), curves)
        _label_axes(axes, x="epoch", y="test error, %")
        _scale_errors(axes, [error for curve in curves.values() for error in curve.values()])
        return _render_svg(figure, name=name, title="Test error against epoch, by framework")


def plot_loss(runs: Sequence[RunRecord], *, name: str = "loss") -> str:
    """Return the training loss against the epoch: a thin line a seed, a bold mean a series.

    Raises:
        RunError: If a series has one seed twice.
    """
    curves = {run.folder: {epoch.epoch: epoch.train_loss for epoch in run.epochs} for run in runs}
    losses = [loss for curve in curves.values() for loss in curve.values()]
    with _plot_style():
        figure, axes = _new_figure(_SIZE_INCHES)
        _draw_series(axes, group_series(runs), curves)
        _label_axes(axes, x="epoch", y="training loss")
        if losses and min(losses) > 0:
            axes.set_yscale("log")
            _widen_to_decades(axes)
            _label_decades(axes)
        return _render_svg(figure, name=name, title="Training loss against epoch, by framework")


def plot_growth(record: LockstepRecord, *, quantity: str, name: str = "growth") -> str:
    """Return one quantity's gap against the step, its bound dashed, its control dotted.

    Gaps that are zero or not finite have no place on the logarithmic axis and leave a hole;
    `count_undrawn` counts them.
    """
    name = f"{name}-{quantity}"
    with _plot_style():
        figure, axes = _new_figure(_PANEL_INCHES)
        axes.set_yscale("log")
        _draw_gaps(axes, record, quantity)
        _label_axes(axes, x="step", y="")
        _label_gaps(axes)
        return _render_svg(figure, name=name, title=f"Gap of {quantity} against step")


def count_steps(record: LockstepRecord, *, quantity: str) -> int:
    """Return how many steps measured a quantity."""
    return sum(quantity in row.quantities for row in record.rows)


def count_undrawn(record: LockstepRecord, *, quantity: str) -> int:
    """Return at how many steps a gap is zero or not finite, and so missing from its plot."""
    gaps = [row.quantities[quantity].gap for row in record.rows if quantity in row.quantities]
    return sum(math.isnan(_positive(gap)) for gap in gaps)


def mean_curve(series: Series, curves: dict[Any, dict[int, float]]) -> dict[int, float]:
    """Return the mean over a series' finished runs, at the epochs that all of them have."""
    finished = [curves[run.folder] for run in series.runs if run.result is not None]
    if not finished:
        return {}
    shared = sorted(set.intersection(*(set(curve) for curve in finished)))
    return {epoch: sum(curve[epoch] for curve in finished) / len(finished) for epoch in shared}


def _draw_series(
    axes: "Axes", all_series: Sequence[Series], curves: dict[Any, dict[int, float]]
) -> None:
    labels = [series.label for series in all_series]
    for index, series in enumerate(all_series):
        colour = SERIES_COLOURS.get(series.label, OTHER_COLOUR)
        dash = _DASHES[labels[:index].count(series.label) % len(_DASHES)]
        for run in series.runs:
            curve = curves[run.folder]
            (line,) = axes.plot(list(curve), list(curve.values()), color=colour, lw=0.9, alpha=0.55)
            line.set_gid(f"line-{_slug(series.name)}-seed-{run.seed}")
        mean = mean_curve(series, curves)
        if not mean:
            continue
        (line,) = axes.plot(
            list(mean), list(mean.values()), color=colour, linestyle=dash, lw=2.2,
            marker=_MARKERS.get(series.label, "v"), markersize=4.5,
            markevery=(index, max(1, len(mean) // 8)),
            label=f"{series.name}, {_describe_mean(len(series.accuracies()))}",
        )  # fmt: skip
        line.set_gid(f"mean-{_slug(series.name)}")
    _draw_legend(axes, columns=1)


def _draw_gaps(axes: "Axes", record: LockstepRecord, quantity: str) -> None:
    steps = [row.step for row in record.rows]
    found = [row.quantities.get(quantity) for row in record.rows]
    lines: tuple[tuple[str, list[float | None], str, str], ...] = (
        ("bound", [gap.bound if gap else None for gap in found], BOUND_COLOUR, "--"),
        ("control", [row.control.get(quantity) for row in record.rows], CONTROL_COLOUR, ":"),
        ("gap", [gap.gap if gap else None for gap in found], GAP_COLOUR, "-"),
    )
    for label, values, colour, dash in lines:
        drawn = [_positive(value) for value in values]
        if not all(map(math.isnan, drawn)):
            axes.plot(
                steps, drawn, dash, color=colour, label=label, lw=1.2, gid=label,
                marker=".", ms=2.5, markevery=_isolated(drawn),
            )  # fmt: skip
    first = record.first_divergence
    if first is not None and first.quantity == quantity and first.step is not None:
        axes.axvline(first.step, color=BOUND_COLOUR, lw=0.8, gid="first-divergence")
    _draw_legend(axes, columns=3)


def _draw_legend(axes: "Axes", *, columns: int) -> None:
    if axes.get_legend_handles_labels()[0]:
        axes.legend(
            frameon=False,
            labelcolor=INK,
            ncols=columns,
            loc="lower left",
            bbox_to_anchor=(0, 1),
            borderpad=0.2,
        )


def _describe_mean(count: int) -> str:
    return "1 seed" if count == 1 else f"mean of {format_count(count, 'seed')}"


def _scale_errors(axes: "Axes", errors: Sequence[float]) -> None:
    if not errors or min(errors) <= 0 or max(errors) <= 10 * min(errors):
        axes.set_ylim(bottom=0)
        return
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    ticks = [tick for tick in _PERCENT_TICKS if low <= tick <= high]
    axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set_yticks([], minor=True)


def _label_axes(axes: "Axes", *, x: str, y: str) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))


def _widen_to_decades(axes: "Axes") -> None:
    """Let the axis end at powers of ten, so that at least two ticks carry a number."""
    low, high = (math.log10(limit) for limit in axes.dataLim.intervaly)
    axes.set_ylim(10 ** math.floor(low - _LOG_MARGIN), 10 ** math.ceil(high + _LOG_MARGIN))


def _label_decades(axes: "Axes") -> None:
    from matplotlib.ticker import FuncFormatter, NullFormatter

    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def _label_gaps(axes: "Axes") -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    if axes.has_data():
        _widen_to_decades(axes)
    axes.yaxis.set_major_locator(LogLocator(numticks=5))
    axes.yaxis.set_major_formatter(
        FuncFormatter(lambda value, _: format_gap(value).replace("1.0e", "1e"))
    )
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_minor_locator(LogLocator(subs=(), numticks=5))


def _new_figure(size: tuple[float, float]) -> "tuple[Figure, Axes]":
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    axes = figure.add_subplot()
    figure.patch.set_visible(False)
    axes.patch.set_visible(False)
    axes.grid(color=GRID, lw=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GRID)
    axes.tick_params(colors=INK, which="both", length=0)
    axes.xaxis.label.set_color(INK)
    axes.yaxis.label.set_color(INK)
    axes.margins(x=0.02)
    return figure, axes


@contextlib.contextmanager
def _plot_style() -> Iterator[None]:
    import matplotlib as mpl

    with mpl.rc_context():
        mpl.rcdefaults()  # a reader's own matplotlibrc must not change the page
        mpl.rcParams |= {
            "svg.hashsalt": "parity",
            "svg.fonttype": "none",
            "text.parse_math": False,
            "font.size": 9.5,
        }
        yield


def _render_svg(figure: "Figure", *, name: str, title: str) -> str:
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    buffer = io.StringIO()
    metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    FigureCanvasSVG(figure).print_svg(buffer, metadata=metadata)
    return _inline(buffer.getvalue(), prefix=_slug(name), title=title)


def _inline(document: str, *, prefix: str, title: str) -> str:
    svg = document[document.index("<svg") :].strip()
    svg = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", svg, count=1, flags=re.DOTALL)
    svg = re.sub(r' (width|height)="[\d.]+pt"', "", svg, count=2)
    label = html.escape(title)
    svg = svg.replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1)
    svg = re.sub(r"font-family: [^;\"]*sans-serif", "font-family: var(--sans, sans-serif)", svg)
    svg = re.sub(r'\bid="', f'id="{prefix}-', svg)
    svg = svg.replace("url(#", f"url(#{prefix}-").replace('href="#', f'href="#{prefix}-')
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, f"var({variable}, {colour})")
    return svg


def _positive(value: float | None) -> float:
    if value is None or not is_finite(value) or value <= 0:
        return math.nan
    return value


def _isolated(values: Sequence[float]) -> list[int]:
    """Return the places between two holes, which a line would not show."""
    padded = [math.nan, *values, math.nan]
    return [
        index
        for index, value in enumerate(values)
        if not math.isnan(value) and math.isnan(padded[index]) and math.isnan(padded[index + 2])
    ]


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
