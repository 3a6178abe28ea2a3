"""Rows and speed-ups of results that are made up, so that they are known by hand."""

from parity.match.grid import build_cells
from parity.match.summary import describe_scores, describe_speedups
from parity.spec.recipe import load_recipe
from parity.testing.assertions import assert_close

CELLS = build_cells(
    load_recipe("best_sgd", data="digits"),
    key="augment.flip",
    values=("none", "random"),
    epochs=(1, 2, 4),
)


def results(errors, *, seeds=1):
    """Return results whose errors in percent are given for each length and value."""
    return {
        (length, value, seed): {"test_accuracy": 1 - error / 100}
        for seed in range(seeds)
        for (length, value), error in errors.items()
    }


# The baseline follows 10 + 40 / epochs.
ERRORS = {
    (0, "none"): 50.0,
    (1, "none"): 30.0,
    (2, "none"): 20.0,
    (0, "random"): 30.0,
    (1, "random"): 15.0,
    (2, "random"): 9.0,
}


def test_speedups_are_the_baselines_curve_inverted():
    record = describe_scores(results(ERRORS), cells=CELLS, baseline="none", seeds=1)

    (part,) = record["speedups"]
    first, second, third = part["rows"]
    assert_close([first["speedup"], second["speedup"]], [1.0, 3.0], atol=1e-5, rtol=0.0)
    assert_close(second["effective_epochs"], 8.0, atol=1e-5, rtol=0.0)
    assert [each["is_extrapolated"] for each in part["rows"]] == [False, True, True]
    assert (third["effective_epochs"], third["speedup"]) == (None, None)


def test_speedups_wait_for_the_last_run():
    scores = results(ERRORS)
    scores.pop((2, "random", 0))

    record = describe_scores(scores, cells=CELLS, baseline="none", seeds=1)

    assert record["speedups"] == []
    assert record["rows"][-1]["test_accuracy"]["mean"] is None


def test_a_curve_that_does_not_fall_is_a_problem_not_an_error():
    record = describe_scores(
        results(ERRORS | {(1, "none"): 60.0}), cells=CELLS, baseline="none", seeds=1
    )

    part = describe_speedups(record["rows"], measure="test_accuracy", baseline="none")
    assert (part["law"], part["rows"]) == (None, [])
    assert part["problem"].startswith("none: power law: expected errors that fall")
