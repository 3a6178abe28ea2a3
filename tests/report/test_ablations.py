"""What the terminal shows of an ablation's record."""

import copy

import pytest
from rich.console import Console

from parity.report.ablations import describe_notes, render_ablation_tables, render_speedup_table
from parity.report.numbers import MISSING

DIFFERENCE = {"seeds": 3, "mean": 0.0123, "interval": [-0.001, 0.0256]}
LAW = {
    "floor": 5.8,
    "scale": 20.0,
    "exponent": -1.25,
    "residual": 0.0013,
    "points": 4,
    "first": 10.0,
    "last": 80.0,
}
REACHED = {"error_percent": 6.1, "effective_epochs": 26.0, "speedup": 0.3, "is_extrapolated": False}
BEYOND = {"error_percent": 5.0, "effective_epochs": None, "speedup": None, "is_extrapolated": True}
FAR = {"error_percent": 5.83, "effective_epochs": 160.0, "speedup": 1.0, "is_extrapolated": True}


def summary(mean, difference=None, *, seeds=3):
    return {"seeds": seeds, "mean": mean, "deviation": 0.002, "difference": difference}


@pytest.fixture
def record():
    values = [("[none]", None), ("random", DIFFERENCE)]
    return {
        "identity": {
            "vary": "augment.flip",
            "framework": "keras",
            "keras_backend": "jax",
            "dtype": "float32",
            "recipe": {"name": "best_sgd", "data": "digits"},
        },
        "baseline": "[none]",
        "seeds": 3,
        "rows": [
            {"epochs": epochs, "value": value, "test_accuracy": summary(0.9, difference)}
            for epochs in (1.5, 20)
            for value, difference in values
        ],
        "speedups": [],
    }


def shown(*renderables):
    console = Console(width=120)
    with console.capture() as capture:
        for renderable in renderables:
            console.print(renderable)
    return capture.get()


def test_a_row_shows_mean_spread_and_interval(record):
    text = shown(*render_ablation_tables(record))

    lines = [line.split() for line in text.splitlines()]
    assert "best_sgd on digits, keras-jax float32" in text
    assert ["1.5", "random", "3", "90.00", "%", "0.20", "+1.23", "-0.10", "to", "+2.56"] in lines
    assert ["20", "[none]", "3", "90.00", "%", "0.20", MISSING, MISSING] in lines


def test_accuracy_without_views_has_its_own_table(record):
    for row in record["rows"]:
        row["test_accuracy_plain"] = summary(0.8)

    tables = render_ablation_tables(record)

    assert "plain accuracy" in shown(tables[1])
    assert "plain accuracy" not in shown(tables[0])
    assert "80.00 %" in shown(tables[1])


def test_speedups_are_percents_and_what_is_beyond_the_curve_is_said(record):
    rows = [{"epochs": 20, "value": "random", **figures} for figures in (REACHED, FAR, BEYOND)]
    record["speedups"] = [{"measure": "test_accuracy", "law": LAW, "problem": None, "rows": rows}]

    text = shown(render_speedup_table(record))

    endings = [" ".join(line.split()[3:]) for line in text.splitlines() if "random" in line]
    assert endings == [
        "6.10 % 26 +30.0 %",
        "5.83 % 160 +100.0 % (*)",
        f"5.00 % {MISSING} beyond the curve",
    ]


def test_no_curve_shows_no_speedup_table(record):
    assert render_speedup_table(record) is None
    assert describe_notes(record) == []


def test_notes_state_the_law_and_its_residual(record):
    rows = [{"epochs": 20, "value": "random", **FAR}]
    record["speedups"] = [{"measure": "test_accuracy", "law": LAW, "problem": None, "rows": rows}]
    exact = copy.deepcopy(record)
    exact["speedups"][0]["law"] |= {"points": 3, "floor": -1.0}

    law, outside = describe_notes(record)

    assert "= 5.8 + 20 * epochs^-1.25, fitted over 10 to 80 epochs; largest residual 0.0013" in law
    assert outside.startswith("accuracy: (*) lies outside the fitted epochs")
    assert "three points leave no residual; its floor is no error" in describe_notes(exact)[0]


def test_notes_say_why_there_is_no_speedup(record):
    problem = "none: power law: expected errors that fall."
    record["speedups"] = [{"measure": "test_accuracy", "law": None, "problem": problem, "rows": []}]

    assert describe_notes(record) == [f"accuracy: no effective speed-up. {problem}"]


def test_notes_say_where_there_is_no_spread(record):
    one = {**record, "seeds": 1}
    equal = copy.deepcopy(record)
    equal["rows"][1]["test_accuracy"]["difference"]["interval"] = None

    assert describe_notes(one)[0].startswith("one seed shows no spread")
    assert describe_notes(equal)[0].startswith("where all seeds show the same difference")
