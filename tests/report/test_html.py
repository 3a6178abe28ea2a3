"""The page: complete in itself, well-formed, escaped, and honest about what was measured."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from parity.errors import RunError
from parity.report.html import render_report, write_report

VOID = ("meta", "link", "br", "hr", "img", "input")


class Page(HTMLParser):
    """Collects text and ids, and the tags that are not closed in the order they were opened."""

    def __init__(self, page):
        super().__init__()
        self.open, self.misplaced, self.ids, self.tags, self.texts = [], [], [], set(), []
        self.feed(page)
        self.close()

    @property
    def text(self):
        return re.sub(r"\s+", " ", " ".join(self.texts))

    def handle_starttag(self, tag, attributes):
        self.handle_startendtag(tag, attributes)
        self.open += [] if tag in VOID else [tag]

    def handle_startendtag(self, tag, attributes):
        self.tags.add(tag)
        self.ids += [value for name, value in attributes if name == "id"]

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.misplaced.append(tag)

    def handle_data(self, data):
        self.texts.append(data)


@pytest.fixture
def render(load_run, load_lockstep):
    """Render a page of a run of each framework and a lockstep, or of what is given instead."""

    def render_page(*, runs=None, lockstep=None, command="parity report runs"):
        if runs is None:
            runs = [
                load_run(framework=name, seed=seed)
                for name in ("torch", "keras")
                for seed in (0, 1)
            ]
        if lockstep is None:
            lockstep = [load_lockstep()]
        return render_report(runs=runs, lockstep=lockstep, command=command)

    return render_page


def test_page_is_balanced(render):
    page = Page(render())

    assert (page.misplaced, page.open) == ([], [])


def test_page_refers_to_nothing_outside_and_runs_no_script(render):
    page = render()

    assert set(re.findall(r"""https?:[^"'\s<]*""", page)) == {
        "http://www.w3.org/1999/xlink",
        "http://www.w3.org/2000/svg",
    }
    assert not Page(page).tags & {"script", "link", "img", "iframe", "object"}
    assert not re.search(r"@import|url\((?!#)|(?:src|href)=\"(?!#)", page)


def test_ids_are_unique_over_all_plots(render, load_lockstep):
    found = Page(render(lockstep=[load_lockstep(), load_lockstep(mode="free")])).ids

    assert len(found) == len(set(found))


def test_same_records_give_the_same_page(render):
    assert render(runs=[]) == render(runs=[])


def test_headline_states_means_counts_and_difference(render, load_run):
    runs = [load_run(accuracy=0.98), load_run(framework="keras", accuracy=0.97)]

    text = Page(render(runs=runs, lockstep=[])).text

    expected = (
        "torch 98.00 % (n = 1), keras-tensorflow 97.00 % (n = 1). Means differ by 1.00 points."
    )
    assert expected in text


@pytest.mark.parametrize(("plain", "is_shown"), [(0.9625, True), (None, False)])
def test_page_shows_the_accuracy_without_views_where_a_run_has_one(
    render, load_run, plain, is_shown
):
    text = Page(render(runs=[load_run(plain=plain)], lockstep=[])).text

    assert ("96.25 %" in text) == ("Plain accuracy" in text) == is_shown


def test_equal_means_are_not_called_equivalent(render):
    text = Page(render(lockstep=[])).text

    assert "Means differ by 0.00 points." in text
    assert "equivalent" not in text


@pytest.mark.parametrize(
    ("verdict", "level", "sign"),
    [
        ("numerically equivalent", "good", "✓"),
        ("diverges", "bad", "✕"),
        ("not the same function", "bad", "✕"),
        ("vacuous", "open", "?"),
        ("not compared", "open", "?"),
    ],
)
def test_verdict_has_a_badge_with_colour_sign_and_text(render, load_lockstep, verdict, level, sign):
    page = render(runs=[], lockstep=[load_lockstep(verdict=verdict)])

    sign = f'<span class="sign" aria-hidden="true">{sign}</span>'
    assert f'<span class="badge {level}">{sign}{verdict}</span>' in page


def test_divergence_is_told_with_reason_place_and_notes(render):
    text = Page(render(runs=[])).text

    assert "running statistics at stem.bn.running_var, gap 2.5e-04" in text
    assert "Running statistics left their bound." in text
    assert "Gradients that are zero in theory: none." in text
    assert "After every comparison keras-tensorflow took over the state of torch" in text


def test_lockstep_without_rows_has_no_plot(render, load_lockstep):
    page = Page(render(runs=[], lockstep=[load_lockstep(verdict="not compared", rows=[])]))

    assert "svg" not in page.tags


@pytest.mark.parametrize("quantity", ["gradients", "forward"])
def test_vertical_line_is_explained_where_there_is_one(
    render, load_lockstep, lockstep_record_table, quantity
):
    first = lockstep_record_table()["first_divergence"] | {"quantity": quantity}

    page = render(runs=[], lockstep=[load_lockstep(first_divergence=first)])

    is_drawn = "first-divergence" in page
    assert ("A vertical line marks" in page) == is_drawn == (quantity == "gradients")


def test_quantity_that_one_step_measured_has_no_panel(render, lockstep_record_table, load_lockstep):
    record = load_lockstep(rows=lockstep_record_table()["rows"][:1])

    assert "figure" not in Page(render(runs=[], lockstep=[record])).tags


def test_quantity_that_is_zero_throughout_is_said_not_drawn(
    render, lockstep_record_table, load_lockstep
):
    first, _ = lockstep_record_table()["rows"]
    rows = [first, first | {"step": 2}]

    text = Page(render(runs=[], lockstep=[load_lockstep(rows=rows)])).text

    assert "Gap zero or not finite at every step" in text


@pytest.mark.parametrize(("digest", "mark"), [("ab" * 32, "same data"), ("cd" * 32, "other data")])
def test_runs_of_one_seed_are_marked_by_their_data(render, load_run, digest, mark):
    runs = [load_run(), load_run(framework="keras", digest=digest)]

    text = Page(render(runs=runs, lockstep=[])).text

    assert len(re.findall(rf"[✓✕] {mark}", text)) == 2


def test_unfinished_run_has_no_same_data_mark(render, load_run, finished_run_table):
    table = finished_run_table(framework="keras", keras_backend="jax") | {"status": "running"}
    runs = [load_run(), load_run(framework="keras"), load_run(table=table)]

    text = Page(render(runs=runs, lockstep=[])).text

    assert len(re.findall("✓ same data", text)) == 2


def test_unfinished_runs_are_counted_and_left_out_of_the_mean(render, load_run, finished_run_table):
    table = finished_run_table(seed=1) | {"status": "interrupted", "result": None}

    text = Page(render(runs=[load_run(), load_run(table=table)], lockstep=[])).text

    assert "1 run of 2 did not finish" in text
    assert "? interrupted" in text


def test_page_shows_recipe_environment_and_commands(render):
    text = Page(render(lockstep=[], command="parity report runs/*")).text

    assert 'crop_px = 1 flip = "none"' in text
    assert "AMD EPYC, cpu, 2 threads, float32, channels_last" in text
    assert "keras 3.15.1, numpy 2.4.6, tensorflow 2.21.0" in text
    assert "python -m parity.train --framework torch --recipe best_sgd" in text
    assert "parity report runs/*" in text


def test_wrong_twins_are_listed_with_what_became_of_them(render, load_lockstep, power_trials):
    page = render(lockstep=[load_lockstep(detection_power=power_trials)])

    rows = re.findall(r"<td>(lr off|momentum through float32)</td>(.*?)</tr>", page, re.DOTALL)

    assert [("lr=0.1000000001" in row, "✓" in row) for _, row in rows] == [
        (True, True),
        (False, False),
    ]


@pytest.mark.parametrize(
    "where", ["recipe", "cpu", "version", "reason", "place", "note", "trial", "command"]
)
def test_text_of_records_is_escaped(render, load_run, load_lockstep, power_trials, where):
    evil = "<script>alert(1)</script>"
    runs = {
        "recipe": {"recipe": {"name": evil, "data": "digits"}},
        "cpu": {"cpu": evil},
        "version": {"versions": {"torch": evil}},
    }
    first = {
        "step": 1,
        "quantity": evil,
        "where": evil,
        "gap": 1.0,
        "bound": 1.0,
        "ratio": 2.0,
        "share_out": 0.0,
    }
    lockstep = {
        "reason": {"reason": evil},
        "place": {"summary": [first]},
        "note": {"notes": [evil]},
        "trial": {"detection_power": [power_trials[0] | {"fault": evil, "change": evil}]},
    }

    page = render(
        runs=[load_run(**runs[where])] if where in runs else [],
        lockstep=[load_lockstep(**lockstep.get(where, {}))] if where not in runs else [],
        command=evil if where == "command" else "parity report",
    )

    assert "<script" not in page
    assert "&lt;script&gt;" in page


def test_nothing_to_report_is_refused(render):
    with pytest.raises(RunError, match=r"at least one run or lockstep record; got none\."):
        render(runs=[], lockstep=[])


def test_report_is_written_whole_and_nothing_else_is_left(tmp_path, load_lockstep):
    path = tmp_path / "new" / "report.html"

    write_report(path, runs=[], lockstep=[load_lockstep()], command="parity report")

    assert path.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert [found.name for found in path.parent.iterdir()] == ["report.html"]


def test_failed_write_keeps_the_old_report(tmp_path, monkeypatch, load_lockstep):
    path = tmp_path / "report.html"
    path.write_text("old")
    monkeypatch.setattr(Path, "replace", refuse)

    with pytest.raises(
        RunError, match=r"report\.html: expected a file that can be written; full\."
    ):
        write_report(path, runs=[], lockstep=[load_lockstep()], command="parity report")

    assert path.read_text() == "old"
    assert [found.name for found in tmp_path.iterdir()] == ["report.html"]


def refuse(*_):
    raise OSError(28, "full")


@pytest.mark.parametrize("name", ["", "file/report.html"], ids=["folder", "below-a-file"])
def test_path_that_cannot_be_written_is_refused(tmp_path, load_lockstep, name):
    (tmp_path / "file").write_text("")

    with pytest.raises(RunError, match=r"expected a file that can be written; "):
        write_report(tmp_path / name, runs=[], lockstep=[load_lockstep()], command="parity report")
