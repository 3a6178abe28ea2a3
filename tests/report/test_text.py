"""Terminal text: verdicts word by word, tables cell by cell, TOML that reads back."""

import re
import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from parity.errors import RunError
from parity.report.numbers import MISSING
from parity.report.text import (
    describe_verdict,
    render_lockstep_table,
    render_runs_table,
    render_toml,
)

# TOML has no null; keys and strings are any Unicode text but lone surrogates, which UTF-8 lacks.
text = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
leaves = st.one_of(
    text, st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False)
)
values = st.recursive(
    leaves,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(text, inner, max_size=3)),
    max_leaves=8,
)


def printed(table):
    """Return what a wide terminal shows, a list of cells a line."""
    console = Console(width=200, color_system=None)
    with console.capture() as capture:
        console.print(table)
    lines = [re.split(r" {2,}", line.strip()) for line in capture.get().splitlines()]
    return [cells for cells in lines if len(cells) > 1]


def test_divergence_is_described_by_step_quantity_place_gap_and_bound(lockstep_record_table):
    assert describe_verdict(lockstep_record_table()) == (
        "keras-tensorflow diverges from torch at step 1: running statistics at "
        "stem.bn.running_var, gap 2.5e-04 against a bound of 1.0e-13 "
        "(ratio 2.5e+09; 75.00 % of the array is over it)."
    )


def test_detection_power_is_described_with_what_would_be_missed(
    lockstep_record_table, power_trials
):
    table = lockstep_record_table(
        verdict="numerically equivalent", first_divergence=None, detection_power=power_trials
    )

    assert describe_verdict(table).endswith(
        "Detection power: it would have caught 1 of 2 wrong twins; not momentum=0.8999999761581421."
    )


def test_equivalence_is_described_by_its_closest_quantity(lockstep_record_table):
    table = lockstep_record_table(verdict="numerically equivalent", first_divergence=None)
    closest = table["summary"][0]
    table["summary"] = [closest | {"quantity": "loss", "ratio": 0.2}, closest]

    assert describe_verdict(table) == (
        "keras-tensorflow is numerically equivalent to torch over 2 steps; closest to its bound: "
        "gradients at head.weight, gap 3.0e-14 against a bound of 1.0e-13 (ratio 0.300)."
    )


def test_equivalence_without_a_comparison_is_described_by_its_reason(lockstep_record_table):
    table = lockstep_record_table(
        verdict="numerically equivalent", first_divergence=None, summary=[], rows=[],
        injected="l2=5e-4", reason="l2=5e-4 is an exact no-op here; nothing was run.",
    )  # fmt: skip

    assert describe_verdict(table) == (
        "keras-tensorflow against torch: numerically equivalent; "
        "l2=5e-4 is an exact no-op here; nothing was run."
    )


def test_divergence_of_the_initial_state_is_described_as_before_the_first_step(
    lockstep_record_table,
):
    table = lockstep_record_table()
    table["first_divergence"] = table["first_divergence"] | {"step": 0}

    assert "diverges from torch before the first step: running statistics" in describe_verdict(
        table
    )


@pytest.mark.parametrize("verdict", ["vacuous", "not the same function", "not compared"])
def test_other_verdicts_are_described_by_their_reason(lockstep_record_table, verdict):
    table = lockstep_record_table(
        verdict=verdict, first_divergence=None, summary=[], rows=[], reason="no layer matched."
    )

    assert describe_verdict(table) == (
        f"keras-tensorflow against torch: {verdict}; no layer matched."
    )


@pytest.mark.parametrize(
    ("verdict", "outcome"), [("diverges", "caught"), ("numerically equivalent", "not caught")]
)
def test_injected_fault_is_described_as_caught_or_not(lockstep_record_table, verdict, outcome):
    table = lockstep_record_table(verdict=verdict, injected="bn_epsilon=0.001")

    assert describe_verdict(table).endswith(
        f" The fault bn_epsilon=0.001 was injected on purpose in keras-tensorflow, "
        f"and was {outcome}."
    )


def test_verdict_of_a_record_equals_that_of_its_table(load_lockstep, lockstep_record_table):
    assert describe_verdict(load_lockstep()) == describe_verdict(lockstep_record_table())


def test_verdict_of_tables_that_are_no_record_is_refused():
    with pytest.raises(RunError, match=r"lockstep record: \d+ keys missing \(format, "):
        describe_verdict({"verdict": "diverges"})


def test_lockstep_table_shows_the_worst_gap_of_each_quantity(lockstep_record_table):
    rows = printed(render_lockstep_table(lockstep_record_table()))

    assert rows == [
        ["quantity", "worst gap", "bound", "ratio", "step", "where", "growth"],
        ["gradients", "3.0e-14", "1.0e-13", "0.300", "2", "head.weight", "1.250"],
        [
            "running statistics",
            "2.5e-04",
            "1.0e-13",
            "2.5e+09",
            "1",
            "stem.bn.running_var",
            MISSING,
        ],
    ]


def test_lockstep_table_shows_square_brackets_as_they_are(lockstep_record_table):
    table = lockstep_record_table()
    table["summary"][0] = table["summary"][0] | {"where": "head[bold].weight"}

    assert "head[bold].weight" in printed(render_lockstep_table(table))[1]


def test_runs_table_shows_accuracy_and_same_data(load_run):
    rows = printed(render_runs_table([load_run(), load_run(framework="keras")]))

    tail = ["0", "97.50 %", "7.1", "finished", "abababab", "same data"]
    assert rows[1:] == [
        ["torch", *tail],
        ["keras-tensorflow", *tail],
    ]


def test_runs_table_shows_the_accuracy_without_views_where_a_run_has_one(load_run):
    rows = printed(render_runs_table([load_run(plain=0.9625), load_run(framework="keras")]))

    assert rows[0][2:4] == ["accuracy", "plain accuracy"]
    assert [row[2:4] for row in rows[1:]] == [["97.50 %", "96.25 %"], ["97.50 %", MISSING]]


def test_runs_table_shows_dashes_for_an_unfinished_run(load_run, finished_run_table):
    table = finished_run_table() | {"status": "interrupted", "result": None}

    rows = printed(render_runs_table([load_run(table=table)]))

    assert rows[1] == ["torch", "0", MISSING, MISSING, "interrupted", MISSING, MISSING]


def test_unfinished_run_has_no_same_data_mark_beside_finished_ones(load_run, finished_run_table):
    table = finished_run_table(framework="keras", keras_backend="jax") | {"status": "running"}
    runs = [load_run(), load_run(framework="keras"), load_run(table=table)]

    rows = printed(render_runs_table(runs))

    assert [(row[0], row[-1]) for row in rows[1:]] == [
        ("torch", "same data"),
        ("keras-jax", MISSING),
        ("keras-tensorflow", "same data"),
    ]


@given(table=st.dictionaries(text, values, max_size=4))
def test_toml_reads_back_to_the_same_values(table):
    assert tomllib.loads(render_toml(table)) == table


def test_toml_keeps_the_order_of_keys():
    assert render_toml({"b": 1, "a": {"y": True, "x": 5e-4}}) == (
        "b = 1\n\n[a]\ny = true\nx = 0.0005\n"
    )
