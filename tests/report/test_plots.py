"""Plots: what is drawn, found by the ids of the lines, and that the text is fit for a page."""

import math
import re
import subprocess
import sys
import xml.etree.ElementTree as ET

import pytest

from parity.errors import RunError
from parity.report.plots import (
    SERIES_COLOURS,
    count_undrawn,
    mean_curve,
    plot_accuracy,
    plot_growth,
    plot_loss,
)
from parity.report.series import group_series


def ids(svg):
    return re.findall(r'\bid="([^"]+)"', svg)


def row(step, gap, **changes):
    quantities = {"loss": {"gap": gap, "bound": 1e-13, "where": ""}}
    return {"step": step, "rate": 0.1, "loss": 2.3, "quantities": quantities} | changes


@pytest.fixture
def runs(load_run):
    keras = [load_run(framework="keras", seed=seed) for seed in range(2)]
    return [load_run(seed=seed) for seed in range(3)] + keras


@pytest.mark.parametrize("plot", [plot_accuracy, plot_loss])
def test_plot_has_a_line_a_seed_and_a_mean_a_series(runs, plot):
    found = ids(plot(runs, name="p"))

    lines = [name for name in found if name.startswith(("p-line-", "p-mean-"))]
    assert lines == [
        "p-line-torch-seed-0",
        "p-line-torch-seed-1",
        "p-line-torch-seed-2",
        "p-mean-torch",
        "p-line-keras-tensorflow-seed-0",
        "p-line-keras-tensorflow-seed-1",
        "p-mean-keras-tensorflow",
    ]


@pytest.mark.parametrize("plot", [plot_accuracy, plot_loss])
def test_legend_names_framework_and_count_of_seeds(runs, plot):
    svg = plot(runs)

    assert ">torch, mean of 3 seeds</text>" in svg
    assert ">keras-tensorflow, mean of 2 seeds</text>" in svg


@pytest.mark.parametrize("label", ["torch", "keras-tensorflow"])
def test_framework_has_its_colour_whoever_else_is_drawn(runs, label):
    own = [run for run in runs if run.label == label]
    colour = f"stroke: var(--series-{label}, {SERIES_COLOURS[label]})"

    assert colour in plot_accuracy(own)
    assert colour in plot_accuracy(runs)


def test_same_records_give_the_same_text(runs):
    assert plot_accuracy(runs) == plot_accuracy(runs)


def test_unfinished_run_is_drawn_but_in_no_mean(load_run, finished_run_table):
    broken = load_run(table=finished_run_table() | {"status": "interrupted", "result": None})

    found = ids(plot_accuracy([broken], name="p"))

    assert "p-line-torch-seed-0" in found
    assert "p-mean-torch" not in found


def test_mean_is_taken_at_the_epochs_that_all_runs_have(load_run):
    runs = [load_run(seed=0), load_run(seed=1)]
    (series,) = group_series(runs)
    curves = {runs[0].folder: {1: 4.0, 2: 2.0}, runs[1].folder: {2: 3.0, 3: 1.0}}

    assert mean_curve(series, curves) == {2: 2.5}


def test_error_axis_is_linear_when_a_run_is_perfect(load_run):
    epochs = [
        {"epoch": epoch, "step": epoch, "train_loss": 0.1, "test_accuracy": accuracy}
        for epoch, accuracy in ((1, 0.5), (2, 1.0))
    ]

    assert ">0</text>" in plot_accuracy([load_run(epochs=epochs)])


def test_plot_of_a_run_without_epochs_is_empty_but_whole(load_run):
    ET.fromstring(plot_accuracy([load_run(epochs=[])]))


def test_repeated_seed_is_refused(load_run):
    with pytest.raises(RunError, match="each seed once"):
        plot_loss([load_run(), load_run()])


@pytest.mark.parametrize("name", ["accuracy-1", "Accuracy 1"])
def test_ids_and_references_start_with_the_name(runs, name):
    svg = plot_accuracy(runs, name=name)

    references = re.findall(r'(?:url\(|href=")#([^")]+)', svg)
    assert all(found.startswith("accuracy-1-") for found in ids(svg))
    assert set(references) <= set(ids(svg))


def test_svg_is_well_formed_and_refers_to_nothing_outside(runs):
    svg = plot_accuracy(runs)

    assert ET.fromstring(svg).get("width") is None
    assert set(re.findall(r'http[^"\s]*', svg)) == {
        "http://www.w3.org/1999/xlink",
        "http://www.w3.org/2000/svg",
    }


def test_growth_draws_gap_bound_and_divergence(load_lockstep):
    found = ids(plot_growth(load_lockstep(), quantity="running statistics", name="g"))

    prefix = "g-running-statistics-"
    assert {prefix + name for name in ("gap", "bound", "first-divergence")} <= set(found)
    assert prefix + "control" not in found


def test_growth_draws_the_control_of_a_free_run(load_lockstep):
    rows = [row(step, 1e-14, control={"loss": 2e-14}) for step in (1, 2)]

    svg = plot_growth(load_lockstep(mode="free", rows=rows), quantity="loss", name="g")

    assert "g-loss-control" in ids(svg)


@pytest.mark.parametrize("gap", [0.0, math.nan, math.inf, sys.float_info.max])
def test_gaps_off_a_logarithmic_axis_are_counted(load_lockstep, gap):
    record = load_lockstep(rows=[row(1, gap), row(2, 1e-14), row(3, gap)])

    assert count_undrawn(record, quantity="loss") == 2
    assert "g-loss-gap" in ids(plot_growth(record, quantity="loss", name="g"))


def test_step_between_two_holes_is_marked(load_lockstep):
    record = load_lockstep(rows=[row(1, 0.0), row(2, 1e-14), row(3, 0.0)])

    gap = plot_growth(record, quantity="loss").partition('-gap"')[2].partition("legend")[0]

    assert gap.count("<use") == 1


@pytest.mark.parametrize("gap", [3e-14, 1e-14, 9.9e-14])
def test_gap_axis_has_at_least_two_numbers(load_lockstep, gap):
    rows = [row(step, gap * (1 + step / 100)) for step in (1, 2)]
    for item in rows:
        item["quantities"]["loss"]["bound"] = None

    svg = plot_growth(load_lockstep(rows=rows), quantity="loss")

    assert len(re.findall(r">1e-\d\d</text>", svg)) >= 2


def test_epochs_are_numbered_in_whole_numbers(load_run):
    svg = plot_loss([load_run()]).partition("axis_2")[0]

    assert not re.findall(r">\d+\.\d+</text>", svg)


def test_quantity_name_is_escaped(load_lockstep):
    svg = plot_growth(load_lockstep(), quantity='"><script>')

    ET.fromstring(svg)
    assert "<script" not in svg


def test_importing_the_report_loads_no_matplotlib():
    code = "import sys, parity.report.html; sys.exit('matplotlib' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
