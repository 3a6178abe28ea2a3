"""Runs grouped into experiments and series, and what is said of their means."""

import math

import pytest

from parity.errors import RunError
from parity.report.series import (
    compare_streams,
    describe_means,
    group_experiments,
    group_series,
    spread_of_means,
)
from parity.testing.assertions import assert_close


def interrupted(table):
    return table | {"status": "interrupted", "result": None}


def test_series_are_named_by_framework_with_torch_first(load_run):
    runs = [load_run(framework="keras"), load_run(seed=1), load_run(seed=0)]

    series = group_series(runs)

    assert [item.name for item in series] == ["torch", "keras-tensorflow"]
    assert [run.seed for run in series[0].runs] == [0, 1]


def test_series_are_split_by_the_settings_in_which_runs_differ(load_run):
    runs = [load_run(), load_run(dtype="float64"), load_run(framework="keras")]

    names = [series.name for series in group_series(runs)]

    assert names == ["torch, float32", "torch, float64", "keras-tensorflow"]


def test_series_of_another_version_stand_alone(load_run):
    runs = [load_run(), load_run(versions={"numpy": "2.4.6", "torch": "2.6.0"})]

    names = [series.name for series in group_series(runs)]

    assert names == ["torch, torch 2.13.0", "torch, torch 2.6.0"]


def test_repeated_seed_is_refused(load_run):
    with pytest.raises(RunError, match=r"each seed once in a series; got torch seed 0 \(.*run-0\)"):
        group_series([load_run(), load_run()])


def test_experiments_are_split_by_recipe(load_run):
    other = {"name": "best_sgd", "data": "digits", "epochs": 9}

    experiments = group_experiments([load_run(), load_run(recipe=other), load_run(seed=1)])

    assert [len(experiment.runs()) for experiment in experiments] == [2, 1]


def test_mean_and_deviation_are_those_of_the_sample(load_run):
    (series,) = group_series(
        [load_run(seed=seed, accuracy=value) for seed, value in enumerate([0.9, 0.92, 0.97])]
    )

    assert_close(series.mean(), 0.93, atol=1e-15, rtol=0.0)
    assert_close(series.deviation(), math.sqrt(0.0013), atol=1e-15, rtol=0.0)


def test_single_run_has_no_deviation(load_run):
    (series,) = group_series([load_run()])

    assert series.deviation() is None


def test_unfinished_run_enters_no_mean(load_run, finished_run_table):
    broken = load_run(table=interrupted(finished_run_table(seed=1)))

    (series,) = group_series([load_run(accuracy=0.9), broken])

    assert series.accuracies() == (0.9,)


@pytest.mark.parametrize(("digest", "expected"), [("ab" * 32, True), ("cd" * 32, False)])
def test_streams_are_compared_across_frameworks(load_run, digest, expected):
    runs = [load_run(), load_run(framework="keras", digest=digest), load_run(seed=1)]

    (experiment,) = group_experiments(runs)

    assert compare_streams(experiment) == {0: expected, 1: None}


def test_unfinished_run_is_not_compared_for_its_stream(load_run, finished_run_table):
    broken = load_run(table=interrupted(finished_run_table(framework="keras")))

    (experiment,) = group_experiments([load_run(), broken])

    assert compare_streams(experiment) == {0: None}


def test_means_are_described_with_spread_count_and_difference(load_run):
    runs = [load_run(seed=seed, accuracy=value) for seed, value in enumerate([0.98, 0.99])]
    runs += [
        load_run(framework="keras", seed=seed, accuracy=value)
        for seed, value in enumerate([0.97, 0.99])
    ]

    (experiment,) = group_experiments(runs)

    assert describe_means(experiment) == (
        "Test accuracy: torch 98.50 % (sd 0.71 points, n = 2), "
        "keras-tensorflow 98.00 % (sd 1.41 points, n = 2). Means differ by 0.50 points."
    )


def test_means_over_different_seeds_are_called_so(load_run):
    runs = [load_run(seed=0), load_run(framework="keras", seed=1)]

    (experiment,) = group_experiments(runs)

    assert describe_means(experiment).endswith("differ by 0.00 points, over different seeds.")


def test_single_series_has_no_difference(load_run):
    (experiment,) = group_experiments([load_run()])

    assert spread_of_means(experiment) is None
    assert describe_means(experiment) == "Test accuracy: torch 97.50 % (n = 1)."


def test_series_without_a_finished_run_says_so(load_run, finished_run_table):
    broken = load_run(table=interrupted(finished_run_table()))

    (experiment,) = group_experiments([broken])

    assert describe_means(experiment) == "Test accuracy: torch has no finished run."
