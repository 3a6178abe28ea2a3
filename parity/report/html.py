"""One self-contained HTML page of runs and locksteps: no script, no external file, inline SVG.

Everything that comes from a record goes through the template's autoescape; only the plots are
marked as safe, and they escape their own text. The page states what was measured and never claims
equal accuracy.
"""

import contextlib
import functools
import importlib.metadata
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from parity.errors import RunError
from parity.report import numbers
from parity.report.commands import render_lockstep_command, render_train_command
from parity.report.locksteps import LockstepRecord
from parity.report.plots import count_steps, count_undrawn, plot_accuracy, plot_growth, plot_loss
from parity.report.recipes import title_recipes
from parity.report.records import RunRecord
from parity.report.series import (
    Experiment,
    compare_streams,
    describe_means,
    group_experiments,
    has_plain_accuracies,
    run_settings,
    spread_of_means,
)
from parity.report.text import (
    SAME_DATA,
    SAME_DATA_LEVELS,
    VERDICT_LEVELS,
    describe_verdict,
    lockstep_title,
    ratio_level,
    render_toml,
)

_TEMPLATES = Path(__file__).parent / "templates"
_FILTERS: dict[str, Callable[..., Any]] = {
    "percent": numbers.format_percent,
    "points": numbers.format_points,
    "gap": numbers.format_gap,
    "ratio": numbers.format_ratio,
    "seconds": numbers.format_seconds,
    "digest": numbers.format_digest,
    "counted": numbers.format_count,
    "growth": numbers.format_growth,
    "ratio_level": ratio_level,
    "verdict_level": VERDICT_LEVELS.__getitem__,
}


@dataclass(frozen=True, kw_only=True)
class ExperimentView:
    """What the page shows of one experiment.

    Attributes:
        title: Recipe, data and model.
        summary: Means and their difference in one or two sentences.
        spread: Largest difference of two means, or None.
        rows: Series name, run, and the text and level of its "same data" mark.
        has_views: Whether any run was scored with test-time augmentation.
        unfinished: Count of runs that have no result.
        parameters: Distinct counts of trained numbers; two differ only if the models do.
    """

    experiment: Experiment
    title: str
    summary: str
    spread: float | None
    accuracy: Markup
    loss: Markup
    rows: tuple[tuple[str, RunRecord, str, str], ...]
    has_views: bool
    unfinished: int
    parameters: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Panel:
    """The plot of one quantity.

    Attributes:
        plot: None where no gap has a place on a logarithmic axis.
        undrawn: Count of steps whose gap has none.
    """

    quantity: str
    plot: Markup | None
    undrawn: int


@dataclass(frozen=True, kw_only=True)
class LockstepView:
    """What the page shows of one lockstep.

    Attributes:
        title: Who was compared with whom, and how.
        recipe_title: Recipe, data and model.
        verdict: In one or two sentences.
        panels: One for each quantity that more than one step measured.
    """

    record: LockstepRecord
    title: str
    recipe_title: str
    verdict: str
    panels: tuple[Panel, ...]


def render_report(
    *, runs: Sequence[RunRecord], lockstep: Sequence[LockstepRecord], command: str
) -> str:
    """Return the page as HTML text; `command` is what the user typed to make it.

    Raises:
        RunError: If there is nothing to report, or a series has one seed twice.
    """
    if not runs and not lockstep:
        message = (
            "report: expected at least one run or lockstep record; got none. Name a run folder."
        )
        raise RunError(message)
    experiments = group_experiments(runs)
    recipes = _distinct_recipes(_all_recipes(experiments, lockstep))
    titles = title_recipes(recipes)
    return (
        _environment()
        .get_template("report.html.j2")
        .render(
            title=_page_title(experiments, lockstep),
            experiments=[
                _view_experiment(
                    experiment, index=index, title=titles[recipes.index(experiment.recipe)]
                )
                for index, experiment in enumerate(experiments, start=1)
            ],
            locksteps=[
                _view_lockstep(
                    record, index=index, recipe_title=titles[recipes.index(record.recipe)]
                )
                for index, record in enumerate(lockstep, start=1)
            ],
            recipes=[
                (title, render_toml(recipe)) for title, recipe in zip(titles, recipes, strict=True)
            ],
            environments=_environment_rows(experiments, lockstep),
            commands=_commands(experiments, lockstep),
            command=command,
            version=_toolkit_version(),
        )
    )


def write_report(
    path: Path, *, runs: Sequence[RunRecord], lockstep: Sequence[LockstepRecord], command: str
) -> None:
    """Write the page to `path`, whole or not at all.

    Raises:
        RunError: If there is nothing to report, a series has one seed twice, or the file cannot be
            written.
    """
    text = render_report(runs=runs, lockstep=lockstep, command=command)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(text, encoding="utf-8")
        part.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        message = f"{path}: expected a file that can be written; {error.strerror or error}."
        raise RunError(message) from error


def _view_experiment(experiment: Experiment, *, index: int, title: str) -> ExperimentView:
    runs = experiment.runs()
    same_data = compare_streams(experiment)
    rows = []
    for series in experiment.series:
        for run in series.runs:
            is_same = same_data[run.seed] if run.result else None
            rows.append((series.name, run, SAME_DATA[is_same], SAME_DATA_LEVELS[is_same]))
    return ExperimentView(
        experiment=experiment,
        title=title,
        summary=describe_means(experiment),
        spread=spread_of_means(experiment),
        accuracy=_safe_svg(plot_accuracy(runs, name=f"accuracy-{index}")),
        loss=_safe_svg(plot_loss(runs, name=f"loss-{index}")),
        rows=tuple(rows),
        has_views=has_plain_accuracies(runs),
        unfinished=sum(run.result is None for run in runs),
        parameters=tuple(sorted({run.parameters for run in runs if run.parameters is not None})),
    )


def _view_lockstep(record: LockstepRecord, *, index: int, recipe_title: str) -> LockstepView:
    names = [worst.quantity for worst in record.summary]
    return LockstepView(
        record=record,
        title=lockstep_title(record),
        recipe_title=recipe_title,
        verdict=describe_verdict(record),
        panels=tuple(
            _view_panel(record, quantity=name, index=index)
            for name in names
            if count_steps(record, quantity=name) > 1
        ),
    )


def _view_panel(record: LockstepRecord, *, quantity: str, index: int) -> Panel:
    undrawn = count_undrawn(record, quantity=quantity)
    is_empty = undrawn == count_steps(record, quantity=quantity)
    return Panel(
        quantity=quantity,
        plot=None
        if is_empty
        else _safe_svg(plot_growth(record, quantity=quantity, name=f"growth-{index}")),
        undrawn=undrawn,
    )


def _toolkit_version() -> str:
    try:
        return importlib.metadata.version("framework-parity")
    except importlib.metadata.PackageNotFoundError:
        return "run from its source folder, not installed"


def _safe_svg(svg: str) -> Markup:
    return Markup(svg)  # made by matplotlib, which escapes text; names become slugs


@functools.cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= _FILTERS
    return environment


def _page_title(experiments: Sequence[Experiment], lockstep: Sequence[LockstepRecord]) -> str:
    recipes = _all_recipes(experiments, lockstep)
    labels = [series.label for experiment in experiments for series in experiment.series]
    labels += [label for record in lockstep for label in (record.reference, record.candidate)]
    names = " and ".join(dict.fromkeys(labels))
    titles = dict.fromkeys(f"{recipe.get('name')} on {recipe.get('data')}" for recipe in recipes)
    return f"{', '.join(titles)}: {names}"


def _all_recipes(
    experiments: Sequence[Experiment], lockstep: Sequence[LockstepRecord]
) -> list[Mapping[str, Any]]:
    return [*(item.recipe for item in experiments), *(item.recipe for item in lockstep)]


def _distinct_recipes(recipes: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    distinct: list[Mapping[str, Any]] = []
    for recipe in recipes:
        if recipe not in distinct:
            distinct.append(recipe)
    return distinct


def _environment_rows(
    experiments: Sequence[Experiment], lockstep: Sequence[LockstepRecord]
) -> list[tuple[str, str, str]]:
    """Return owner, machine and versions, one row a series or lockstep."""
    rows = []
    for experiment in experiments:
        for series in experiment.series:
            settings = run_settings(series.runs[0])
            machine = [
                settings[name]
                for name in ("cpu", "device", "threads", "dtype", "memory format", "compilation")
            ]
            rows.append(
                (series.name, ", ".join(machine), _describe_versions(series.runs[0].versions))
            )
    for record in lockstep:
        threads = (
            "default threads"
            if record.threads is None
            else numbers.format_count(record.threads, "thread")
        )
        machine = [record.cpu, record.device, threads, record.dtype]
        owner = f"lockstep {record.candidate}"
        rows.append((owner, ", ".join(machine), _describe_versions(record.versions)))
    return list(dict.fromkeys(rows))


def _describe_versions(versions: Mapping[str, str]) -> str:
    return ", ".join(f"{package} {version}" for package, version in sorted(versions.items()))


def _commands(experiments: Sequence[Experiment], lockstep: Sequence[LockstepRecord]) -> list[str]:
    trains = [render_train_command(series) for item in experiments for series in item.series]
    return [*trains, *(render_lockstep_command(record) for record in lockstep)]
