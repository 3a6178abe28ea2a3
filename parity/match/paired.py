"""Accuracies over seeds: mean, spread, and the paired difference to a baseline.

Runs of one seed draw their initial weights, order and augmentation by the same keys, so differences
are taken seed by seed: what the seed does to both cancels.
"""

import importlib
import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass

CONFIDENCE = 0.95


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A mean paired difference.

    Attributes:
        seeds: Count of pairs.
        mean: Of the differences, `actual - baseline`.
        interval: Two-sided t-interval of the mean at `CONFIDENCE`; None below two pairs, and where
            all differences are equal: those show no spread that it could be taken from.
    """

    seeds: int
    mean: float
    interval: tuple[float, float] | None


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What the runs of one setting reached.

    Attributes:
        seeds: Count of runs.
        mean: None without a run.
        deviation: Sample deviation (n - 1); None below two runs.
        difference: To the baseline; None for the baseline itself, and without a pair.
    """

    seeds: int
    mean: float | None
    deviation: float | None
    difference: Difference | None


def summarize(
    actual: Mapping[int, float], *, baseline: Mapping[int, float] | None = None
) -> Summary:
    """Return mean, spread and difference of values by seed."""
    values = list(actual.values())
    return Summary(
        seeds=len(values),
        mean=statistics.fmean(values) if values else None,
        deviation=statistics.stdev(values) if len(values) > 1 else None,
        difference=None if baseline is None else compare_paired(actual, baseline),
    )


def compare_paired(actual: Mapping[int, float], baseline: Mapping[int, float]) -> Difference | None:
    """Return the mean difference over the seeds that both have; None where they share none.

    The interval is `mean ± t * s / sqrt(n)`, t the quantile of Student's distribution with n - 1
    degrees of freedom (scipy.special.stdtrit).
    """
    differences = [actual[seed] - baseline[seed] for seed in actual if seed in baseline]
    if not differences:
        return None
    mean, interval = statistics.fmean(differences), None
    if len(set(differences)) > 1:
        quantile = importlib.import_module("scipy.special").stdtrit
        t = float(quantile(len(differences) - 1, (1 + CONFIDENCE) / 2))
        half = t * statistics.stdev(differences) / math.sqrt(len(differences))
        interval = (mean - half, mean + half)
    return Difference(seeds=len(differences), mean=mean, interval=interval)
