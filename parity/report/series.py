"""Runs grouped for comparison: an experiment shares one recipe, a series also one framework.

Means and deviations are taken over the finished runs of a series only. Nothing here claims equal
accuracy: a difference of means is stated, never judged.
"""

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from parity.errors import RunError, describe_list
from parity.report.numbers import format_count, format_percent, format_points
from parity.report.records import RunRecord


@dataclass(frozen=True, kw_only=True)
class Series:
    """Runs that differ in their seed only.

    Attributes:
        name: The label, followed by those settings in which runs of one label differ.
        label: The framework, such as `keras-tensorflow`.
        runs: By seed.
    """

    name: str
    label: str
    runs: tuple[RunRecord, ...]

    def accuracies(self) -> tuple[float, ...]:
        """Return the test accuracies of the finished runs, by seed."""
        return tuple(run.result.test_accuracy for run in self.runs if run.result is not None)

    def mean(self) -> float | None:
        """Return the mean test accuracy, or None where no run has finished."""
        accuracies = self.accuracies()
        return statistics.fmean(accuracies) if accuracies else None

    def deviation(self) -> float | None:
        """Return the sample deviation (n - 1) of the test accuracy, or None below two runs."""
        accuracies = self.accuracies()
        return statistics.stdev(accuracies) if len(accuracies) > 1 else None


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """Runs of one resolved recipe.

    Attributes:
        recipe: As nested tables.
        series: In order of their names, torch first.
    """

    recipe: Mapping[str, Any]
    series: tuple[Series, ...]

    def runs(self) -> tuple[RunRecord, ...]:
        """Return every run, series by series."""
        return tuple(run for series in self.series for run in series.runs)


def group_experiments(runs: Sequence[RunRecord]) -> tuple[Experiment, ...]:
    """Return the runs by resolved recipe, in order of first appearance.

    Raises:
        RunError: If a series has one seed twice: a mean over both would count it twice.
    """
    groups: dict[str, list[RunRecord]] = {}
    for run in runs:
        groups.setdefault(json.dumps(run.recipe, sort_keys=True), []).append(run)
    return tuple(
        Experiment(recipe=group[0].recipe, series=group_series(group)) for group in groups.values()
    )


def group_series(runs: Sequence[RunRecord]) -> tuple[Series, ...]:
    """Return runs of one recipe by framework and setting, each by seed.

    Raises:
        RunError: If a series has one seed twice: a mean over both would count it twice.
    """
    groups: dict[str, list[RunRecord]] = {}
    for run in runs:
        peers = [other for other in runs if other.label == run.label]
        groups.setdefault(_series_name(run, peers), []).append(run)
    _require_distinct_seeds(groups)
    names = sorted(groups, key=lambda name: (groups[name][0].framework != "torch", name))
    return tuple(
        Series(
            name=name,
            label=groups[name][0].label,
            runs=tuple(sorted(groups[name], key=lambda run: run.seed)),
        )
        for name in names
    )


def run_settings(run: RunRecord) -> dict[str, str]:
    """Return what besides recipe, seed and framework decides a run's bits, as text by name."""
    return {
        "dtype": run.dtype,
        "compilation": "compiled" if run.compiled else "not compiled",
        "device": run.device,
        "threads": "default threads"
        if run.threads is None
        else format_count(run.threads, "thread"),
        "memory format": run.memory_format or "default memory format",
        "cpu": run.cpu,
    } | {package: f"{package} {version}" for package, version in sorted(run.versions.items())}


def has_plain_accuracies(runs: Sequence[RunRecord]) -> bool:
    """Return whether any run was scored with test-time augmentation, and so also without."""
    return any(run.result and run.result.test_accuracy_plain is not None for run in runs)


def compare_streams(experiment: Experiment) -> dict[int, bool | None]:
    """Return for each seed whether its finished runs saw the same batches; None for one run."""
    digests: dict[int, list[str | None]] = {}
    for run in experiment.runs():
        digests.setdefault(run.seed, [])
        if run.result is not None:
            digests[run.seed].append(run.stream_digest)
    return {
        seed: len(set(found)) == 1 if len(found) > 1 else None for seed, found in digests.items()
    }


def spread_of_means(experiment: Experiment) -> float | None:
    """Return the largest difference between two series' means, or None with fewer than two."""
    means = [mean for series in experiment.series if (mean := series.mean()) is not None]
    return max(means) - min(means) if len(means) > 1 else None


def describe_series(series: Series) -> str:
    """Return a series' mean accuracy with its spread and n, in one clause."""
    count = len(series.accuracies())
    if count == 0:
        return f"{series.name} has no finished run"
    deviation = series.deviation()
    spread = "" if deviation is None else f"sd {format_points(deviation)} points, "
    return f"{series.name} {format_percent(series.mean())} ({spread}n = {count})"


def describe_means(experiment: Experiment) -> str:
    """Return the mean test accuracy of each series and by how much the means differ."""
    text = f"Test accuracy: {', '.join(describe_series(series) for series in experiment.series)}."
    spread = spread_of_means(experiment)
    if spread is None:
        return text
    finished = [
        {run.seed for run in series.runs if run.result}
        for series in experiment.series
        if series.accuracies()
    ]
    verb = "differ by" if len(finished) == 2 else "differ by at most"
    seeds = "" if all(found == finished[0] for found in finished) else ", over different seeds"
    return f"{text} Means {verb} {format_points(spread)} points{seeds}."


def _series_name(run: RunRecord, peers: Sequence[RunRecord]) -> str:
    others = [run_settings(peer) for peer in peers]
    varying = [
        setting
        for name, setting in run_settings(run).items()
        if any(other.get(name) != setting for other in others)
    ]
    return ", ".join([run.label, *varying])


def _require_distinct_seeds(groups: Mapping[str, Sequence[RunRecord]]) -> None:
    repeated = []
    for name, runs in groups.items():
        seeds = [run.seed for run in runs]
        repeated += [
            f"{name} seed {run.seed} ({run.folder})" for run in runs if seeds.count(run.seed) > 1
        ]
    if repeated:
        message = (
            f"runs: expected each seed once in a series; got {describe_list(repeated)}. "
            "Leave the repeats out: a mean over them would count a seed twice."
        )
        raise RunError(message)
