"""What `parity train` says of a run."""

import re
import tomllib

import pytest

from parity import cli

pytestmark = pytest.mark.usefixtures("empty_folder")

TRAIN = ["train", "--framework", "torch", "--recipe", "best_sgd", "--data", "synthetic"]
TINY = ["--model", "resnet8:width=2", "--set", "batch_size=128"]


@pytest.mark.parametrize(("level", "count"), [(0, 1), (1, 2)])
def test_a_run_says_its_accuracy_with_views_and_without(capsys, level, count):
    overrides = ["--set", f"evaluation.tta_level={level}"]

    code = cli.run([*TRAIN, *TINY, *overrides, "--epochs", "1.5"])

    said = capsys.readouterr().out
    (line,) = [line for line in said.splitlines() if line.startswith("test accuracy")]
    assert code == 0
    assert "resnet8:width=2, 1.5 epochs" in said
    assert len(re.findall(r"\d+\.\d\d%", line)) == count
    assert ("without test-time augmentation" in line) == (level > 0)
    assert ", 6 steps in" in line


@pytest.mark.parametrize(
    ("text", "epochs"), [("2", 2), ("2.0", 2), ("9.9", 9.9), ("1e1", 10)], ids=str
)
def test_epochs_are_whole_numbers_where_they_can_be(capsys, text, epochs):
    cli.run([*TRAIN, "--epochs", text, "--resolved"])

    resolved = tomllib.loads(capsys.readouterr().out)["epochs"]
    assert (resolved, type(resolved)) == (epochs, type(epochs))


def test_resolved_recipe_shows_what_was_set(capsys):
    values = {"crop_px": 3, "crop_padding": "reflect", "flip": "alternating", "cutout_px": 4}
    overrides = [f"augment.{key}={value}" for key, value in values.items()]
    overrides += ["sampling=with_replacement", "evaluation.tta_level=2"]

    cli.run([*TRAIN, *[part for each in overrides for part in ("--set", each)], "--resolved"])

    table = tomllib.loads(capsys.readouterr().out)
    assert (table["augment"], table["sampling"]) == (values, "with_replacement")
    assert table["evaluation"]["tta_level"] == 2
