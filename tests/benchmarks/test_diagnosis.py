"""The acceptance run, on a few pairs: it counts what is found of clean pairs and of faults."""

import pytest

from benchmarks import diagnosis
from benchmarks.diagnosis import (
    CleanResult,
    FaultResult,
    check_clean,
    check_fault,
    compare_pair,
    describe_summary,
    describe_wrong,
    draw_seeds,
    summarize,
)
from parity.compare import models
from parity.testing.pairs import draw_pair

# Of each family one that is compared in about a second, and a second convolutional one.
SEEDS = (2, 6, 17, 22, 28, 58)


@pytest.mark.parametrize("seed", SEEDS)
def test_sides_of_a_clean_pair_are_found_equivalent(seed):
    assert check_clean(seed).verdict == "numerically equivalent"


@pytest.mark.parametrize("seed", SEEDS)
def test_seeded_fault_is_caught_in_its_layer(seed):
    result = check_fault(seed)

    assert result.is_clear
    assert result.is_caught
    assert result.is_exact


def test_seeds_follow_from_the_key_alone():
    assert draw_seeds("one", 3) == draw_seeds("one", 5)[:3]
    assert draw_seeds("one", 3) != draw_seeds("other", 3)


def test_candidate_that_is_to_be_given_weights_starts_from_others(monkeypatch):
    compare = models.compare_models
    as_built = {"weights": "as-is"}
    monkeypatch.setattr(models, "compare_models", lambda *a, **k: compare(*a, **{**k, **as_built}))

    assert compare_pair(draw_pair(17)).phase == "weights"


def test_pair_whose_comparison_raises_is_counted_and_named(monkeypatch):
    def refuse(pair):
        message = f"no models of {pair.seed}"
        raise ValueError(message)

    monkeypatch.setattr(diagnosis, "compare_pair", refuse)
    clean, faulty = check_clean(17), check_fault(17)

    assert summarize([clean], [faulty])["errors"] == 2
    assert [line.rpartition(": ")[2] for line in describe_wrong([clean], [faulty])] == [
        "no models of 17",
        "no models of 17",
    ]


def test_summary_counts_alarms_and_only_clear_faults():
    clean = [
        CleanResult(seed=0, family="cnn", verdict="diverges"),
        CleanResult(seed=1, family="cnn", verdict="numerically equivalent"),
        CleanResult(seed=2, family="cnn", verdict="vacuous"),
    ]
    seen = {"family": "cnn", "kind": "weight_bumped", "gap": 1e-6}
    faulty = [
        FaultResult(seed=0, **seen, effect=1e-3, verdict="diverges", is_exact=True),
        FaultResult(seed=1, **seen, effect=1e-3, verdict="numerically equivalent"),
        FaultResult(seed=2, **seen, effect=1e-5, verdict="numerically equivalent"),
        FaultResult(seed=3, **seen, effect=1e-3, verdict="not the same function"),
    ]

    assert describe_summary(summarize(clean, faulty)).splitlines() == [
        "false alarms: 1 of 3",
        "vacuous: 1, not compared: 0, errors: 0",
        "caught: 2 of 3 with an effect of at least 100 clean gaps",
        "first layer exact: 1 of 2",
    ]
