"""`parity ablate`, from the command line to the table."""

import json
import re
from pathlib import Path

import pytest

from parity import cli
from parity.cli import ablate

pytestmark = pytest.mark.usefixtures("empty_folder")

START = ["ablate", "--recipe", "best_sgd"]
TINY = ["--model", "resnet8:width=4", "--set", "batch_size=256"]
VARY = ["--vary", "optimizer.nesterov=false,true"]
TORCH = [*START, "--framework", "torch"]
ALL = [*TORCH, *TINY, *VARY]

# Arguments -> what the one line must hold.
REFUSED = {
    "unknown key": ([*TORCH, "--vary", "optimizer.nestorov=false,true"], "optimizer.nesterov"),
    "one value": ([*TORCH, "--vary", "optimizer.nesterov=true"], "'true' alone"),
    "value twice": ([*TORCH, "--vary", "optimizer.lr=0.1,0.1"], "0.1 more than once"),
    "values of one recipe": ([*TORCH, "--vary", "optimizer.lr=0.1,1e-1"], "give the same one"),
    "wrong value": ([*TORCH, "--vary", "optimizer.lr=0.1,high"], "--vary optimizer.lr: "),
    "no bracket": ([*TORCH, "--vary", "groups=[],[{"], "every bracket and quote closed"),
    "no seed": ([*ALL, "--seeds", "0"], "--seeds"),
    "epochs twice": ([*ALL, "--epochs", "1,2,1.0"], "got 1 more than once"),
    "epochs below one": ([*ALL, "--epochs", "0,2"], "each must be >= 1"),
    "epochs of a word": ([*ALL, "--epochs", "1;2"], "expected numbers such as 1,2,4"),
    "epochs set too": ([*ALL, "--epochs", "1,2", "--set", "epochs=3"], "--epochs too"),
    "key set too": ([*ALL, "--set", "optimizer.nesterov=true"], "no --set of it"),
    "model given too": (
        [*TORCH, *TINY, "--vary", "model=resnet8,resnet14"],
        "no --model of it",
    ),
    "model that is none": ([*TORCH, "--vary", "model=resnet8,resnet9"], "resnet9"),
    "baseline that is none": ([*ALL, "--baseline", "yes"], "false, true; got 'yes'"),
    "unknown framework": ([*START, *VARY, "--framework", "torhc"], "Nearest: torch"),
    "backend of torch": ([*ALL, "--keras-backend", "jax"], "--framework keras"),
    "missing device": ([*ALL, "--device", "cuda"], "torch finds 0 of kind cuda"),
    "cutout of the whole image": (
        [*TORCH, "--vary", "augment.cutout_px=0,99"],
        "got 99",
    ),
    "unknown data": ([*ALL, "--data", "digit"], "Nearest: digits"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals_are_one_line_and_train_nothing(case, assert_refused):
    assert_refused(*REFUSED[case])


def test_same_arguments_find_their_folder_and_others_take_a_new_one(capsys):
    assert cli.run([*ALL, "--epochs", "1", "--seeds", "1"]) == 0
    first = capsys.readouterr().out

    assert cli.run([*ALL, "--epochs", "1", "--seeds", "1"]) == 0
    again = capsys.readouterr().out
    assert cli.run([*TORCH, *TINY, "--vary", "optimizer.nesterov=true,false", "--epochs", "1",
                    "--seeds", "1"]) == 0  # fmt: skip

    assert first.count("trained before") == 0
    assert again.count("trained before") == 2
    assert "one seed shows no spread" in first
    assert sorted(path.name for path in Path("runs").iterdir()) == [
        "ablate-best_sgd-digits-torch-optimizer.nesterov",
        "ablate-best_sgd-digits-torch-optimizer.nesterov-2",
    ]
    assert tables_of(again) == tables_of(first)


def tables_of(text):
    return text[text.index("best_sgd on digits, torch") :]


def test_a_table_shows_the_means_of_the_record(capsys):
    code = cli.run([*ALL, "--epochs", "1", "--seeds", "2", "--out", "out"])

    said = capsys.readouterr().out
    record = json.loads(Path("out/ablation.json").read_text())
    means = [f"{100 * row['test_accuracy']['mean']:.2f} %" for row in record["rows"]]
    assert code == 0
    assert all(mean in tables_of(said) for mean in means)
    assert re.search(r"record: out/ablation.json\n$", said)
    assert len(list(Path("out").glob("seed*/weights.pt"))) == 4


def test_keras_is_ablated_on_its_backend(capsys):
    code = cli.run([*START, "--framework", "keras", *TINY, *VARY, "--epochs", "1", "--seeds", "1",
                    "--out", "out"])  # fmt: skip

    record = json.loads(Path("out/ablation.json").read_text())
    assert code == 0
    assert f"keras-{record['identity']['keras_backend']} float32" in capsys.readouterr().out
    assert [each["value"] for each in record["runs"]] == ["false", "true"]
    assert len(list(Path("out").glob("seed0-*/model.weights.h5"))) == 2


def test_an_interruption_exits_with_130_and_the_same_command_goes_on(capsys, monkeypatch):
    command = [*ALL, "--epochs", "1", "--seeds", "1", "--out", "out"]
    bar = ablate.training_bar

    def interrupt(label):
        if label == "2/2":
            raise KeyboardInterrupt
        return bar(label)

    with monkeypatch.context() as patched:
        patched.setattr(ablate, "training_bar", interrupt)
        code = cli.run(command)
    stopped = json.loads(Path("out/ablation.json").read_text())
    assert code == 130
    assert (stopped["status"], len(stopped["runs"])) == ("interrupted", 1)
    assert "go on with the same command" in capsys.readouterr().err

    assert cli.run(command) == 0
    assert capsys.readouterr().out.count("trained before") == 1
