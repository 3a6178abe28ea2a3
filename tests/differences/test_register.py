"""Every row of the register holds in the installed versions, and the page shows the register."""

import dataclasses
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from parity import cli
from parity.errors import SpecError
from parity.frameworks.demonstration import Demonstration, demonstrate, describe_change
from parity.report.differences import count_differences, render_markdown
from parity.spec.differences import load_differences

ROOT = Path(__file__).parents[2]
REGISTER = load_differences()
BACKEND = os.environ["KERAS_BACKEND"]
ROW = REGISTER[0]


@pytest.mark.backend
@pytest.mark.filterwarnings("ignore:reduction. .mean. divides:UserWarning")
@pytest.mark.parametrize(
    "row", [row for row in REGISTER if BACKEND in row.backends], ids=lambda row: row.id
)
def test_difference_is_as_the_register_says(row, record_property):
    shown = demonstrate(row)

    assert describe_change(row, shown) is None
    record_property("settled by", row.settled_by)


def test_register_is_large_and_mostly_settled():
    assert len(REGISTER) >= 90
    assert count_differences(REGISTER)["documentation"] <= 15


def test_page_shows_the_register():
    page = (ROOT / "docs" / "differences.md").read_text(encoding="utf-8")

    assert page == render_markdown(REGISTER), "parity differences --markdown > docs/differences.md"


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (Demonstration(default=0.0, differs=False, settled=0.0), "has vanished"),
        (Demonstration(default=0.5, differs=True, settled=0.0), r"expected a gap of 0\.9"),
        (Demonstration(default=None, differs=True, settled=0.0), r"expected a gap of 0\.9"),
        (Demonstration(default=0.9, differs=True, settled=1e-6), "settled within 1e-12; got 1e-06"),
        (Demonstration(default=0.9, differs=True, settled=float("nan")), "got nan"),
    ],
    ids=["vanished", "size", "shape", "settled", "nan"],
)
def test_a_row_that_no_longer_holds_is_described(shown, expected):
    row = dataclasses.replace(ROW, size=0.9, bound=1e-12)

    assert re.search(expected, describe_change(row, shown))


def test_a_snippet_whose_frameworks_agree_has_vanished():
    row = dataclasses.replace(ROW, snippet="default = np.ones(3), np.ones(3)\nsettled = default\n")

    assert "vanished" in describe_change(row, demonstrate(row))


@pytest.mark.parametrize(
    ("snippet", "expected"),
    [
        ("settled = 1, 1", "must leave a pair `default`; got None"),
        ("default = 1, 2", "must leave a pair `settled`; got None"),
        ("default = 1, 2\nsettled = 1, 'one'", "numbers of one shape"),
    ],
)
def test_a_snippet_without_its_pairs_is_refused(snippet, expected):
    with pytest.raises(SpecError, match=expected):
        demonstrate(dataclasses.replace(ROW, snippet=snippet))


ROW_TEXT = """
[[difference]]
id = "one"
layer = "dense"
torch = "a"
keras = "b"
matters = "c"
settled_by = "field"
settlement = "d"
snippet = "e"
"""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (ROW_TEXT + ROW_TEXT, "twice: one"),
        (ROW_TEXT.replace("matters", "matter"), "missing keys: matters; unknown keys: matter"),
        (ROW_TEXT.replace('"field"', '"hope"'), "settled_by must be of field, .*; got 'hope'"),
        (ROW_TEXT + 'backends = ["mxnet"]', "backends must be of tensorflow, .*; got 'mxnet'"),
    ],
    ids=["twice", "key", "settled-by", "backend"],
)
def test_a_wrong_row_is_refused(tmp_path, text, expected):
    path = tmp_path / "differences.toml"
    path.write_text(text)

    with pytest.raises(SpecError, match=expected):
        load_differences(path)


def test_a_difference_is_shown_with_code_that_runs(capsys):
    assert cli.run(["differences", "dense-kernel-layout"]) == 0
    shown = capsys.readouterr().out
    code = shown[shown.index("import keras") :] + "\nassert (default[0] != default[1]).any()\n"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr


def test_running_a_difference_prints_its_gaps(capsys):
    assert cli.run(["differences", "dense-kernel-layout", "--run"]) == 0

    assert "dense-kernel-layout: by default gap 1.5; settled " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["batch-norm-momentun"], "Nearest: batch-norm-momentum"),
        (["--layer", "batchnorm"], "Nearest: batch_norm"),
    ],
)
def test_an_unknown_name_is_refused(capsys, arguments, expected):
    assert cli.run(["differences", *arguments]) == 2

    assert expected in capsys.readouterr().err


def test_a_layer_has_its_own_list(capsys):
    assert cli.run(["differences", "--layer", "batch_norm"]) == 0

    shown = capsys.readouterr().out
    assert "batch-norm-momentum" in shown
    assert "sgd-weight-decay" not in shown
