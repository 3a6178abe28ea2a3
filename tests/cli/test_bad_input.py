"""Wrong input is one line on the error stream, exit code 2, and nothing on the disk."""

import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from parity import cli
from parity.spec.recipe import RECIPE_FOLDER

pytestmark = pytest.mark.usefixtures("empty_folder")

TRAIN = ["train", "--framework", "torch", "--recipe", "best_sgd", "--data", "synthetic"]
TINY = ["--model", "resnet8:width=2", "--epochs", "1"]

# Arguments -> what the one line must hold.
REFUSED = {
    "unknown recipe": (
        ["train", "--framework", "torch", "--recipe", "best_sdg"],
        "Nearest: best_sgd",
    ),
    "unknown framework": (
        ["train", "--framework", "torhc", "--recipe", "best_sgd"],
        "Nearest: torch",
    ),
    "no recipe": (["train", "--framework", "torch"], "--recipe NAME"),
    "unknown key": ([*TRAIN, "--set", "optimizer.learning_rate=0.1"], "optimizer.learning_rate"),
    "wrong type": ([*TRAIN, "--set", "optimizer.momentum=0"], "Write 0.0"),
    "out of range": ([*TRAIN, "--set", "optimizer.momentum=1.5"], "[0, 1)"),
    "no value": ([*TRAIN, "--set", "epochs"], "key=value"),
    "unknown data": (
        ["train", "--framework", "torch", "--recipe", "best_sgd", "--data", "digit"],
        "Nearest: digits",
    ),
    "missing data folder": (
        [
            "train",
            "--framework",
            "torch",
            "--recipe",
            "best_sgd",
            "--data",
            "cifar10",
            "--data-dir",
            "nowhere",
        ],
        "--download",
    ),
    "unknown model": ([*TRAIN, "--model", "resnet21"], "Nearest: resnet"),
    "unknown model option": ([*TRAIN, "--model", "resnet8:depth=3"], "width=CHANNELS"),
    "unknown dtype": ([*TRAIN, "--dtype", "float16"], "float32, float64"),
    "backend without keras": ([*TRAIN, "--keras-backend", "jax"], "--framework keras"),
    "unknown backend": (
        ["train", "--framework", "keras", "--recipe", "best_sgd", "--keras-backend", "tensorflwo"],
        "Nearest: tensorflow",
    ),
    "unreachable resolution": ([*TRAIN, "--set", "resolution=33"], "resolution"),
    "lockstep in mixed precision": (
        ["lockstep", "--recipe", "best_sgd", "--dtype", "mixed_bfloat16"],
        "float32, float64",
    ),
    "unknown injection": (
        ["lockstep", "--recipe", "best_sgd", "--inject", "bn_epsilom=1e-3"],
        "Nearest: bn_epsilon",
    ),
    "injection of another layer's field": (
        ["lockstep", "--recipe", "best_sgd", "--inject", "stem.conv.bn_epsilon=0.1"],
        "Nearest: stem.",
    ),
    "option given twice": ([*TRAIN, "--seed", "1", "--seed=2"], "--seed is given twice"),
    "key set twice": ([*TRAIN, "--set", "epochs=2", "--set", "epochs=3"], "epochs"),
    "option and key": ([*TRAIN, "--epochs", "2", "--set", "epochs=3"], "epochs"),
    "part of an epoch alone": ([*TRAIN, "--epochs", "0.5"], "epochs must be >= 1"),
    "endless training": ([*TRAIN, "--epochs", "inf"], "epochs must be >= 1 and finite"),
    "flip of another word": ([*TRAIN, "--set", "augment.flip=true"], "'none', 'random', 'alt"),
    "cutout of the whole image": (
        [*TRAIN, "--set", "augment.cutout_px=32"],
        "of 32 pixels; got 32",
    ),
    "infinite rate": ([*TRAIN, "--set", "optimizer.lr=inf"], "finite"),
    "unknown device": ([*TRAIN, "--device", "gpu0"], "cpu, cuda, cuda:N or mps"),
    "missing device": ([*TRAIN, "--device", "cuda"], "torch finds 0 of kind cuda"),
    "missing keras device": (
        ["train", "--framework", "keras", "--recipe", "best_sgd", "--device", "cuda"],
        "keras finds 0 of kind cuda",
    ),
    "empty data": (["train", "--framework", "torch", "--recipe", "best_sgd", "--data", ""], "''"),
    "report over a name that is no page": (["report", ".", "--out", "run.json"], ".html"),
    "wrong injection": (["lockstep", "--recipe", "best_sgd", "--inject", "conv_bias=1"], "bool"),
    "resume nothing": (["train", "--resume", "nowhere"], "run folder"),
    "report of nothing": (["report", "nowhere"], "run.json"),
    "unknown list": (["list", "recipe"], "Nearest: recipes"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals_are_one_line_and_leave_nothing(case, assert_refused):
    assert_refused(*REFUSED[case])


def test_an_output_folder_under_a_file_is_refused(empty_folder, capsys):
    (empty_folder / "file").write_text("")

    code = cli.run([*TRAIN, *TINY, "--out", "file/run"])

    assert code == 2
    assert "cannot be created" in capsys.readouterr().err


def test_a_report_replaces_pages_only(empty_folder, capsys):
    run_once(empty_folder / "run")
    page = empty_folder / "notes.html"
    page.write_text("mine")

    assert cli.run(["report", "run", "--out", "notes.html"]) == 2
    assert page.read_text() == "mine"
    assert cli.run(["report", "run", "--out", "new.html"]) == 0
    assert cli.run(["report", "run", "--out", "new.html"]) == 0


def write_recipe(folder, **changes):
    source = (RECIPE_FOLDER / "best_sgd.toml").read_text()
    for old, new in changes.values():
        assert old in source
        source = source.replace(old, new)
    (folder / "own.toml").write_text(source)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (('name = "best_sgd"', 'name = "../evil"'), "folders are named after it"),
        (("[data.digits", "[data.digitz"), "Nearest: digits"),
    ],
    ids=["name", "data-table"],
)
def test_a_recipe_file_of_ones_own_is_checked(empty_folder, capsys, change, expected):
    write_recipe(empty_folder, change=change)

    code = cli.run(["train", "--framework", "torch", "--recipe", "own.toml", "--resolved"])

    assert code == 2
    assert expected in capsys.readouterr().err


def test_a_training_that_diverges_ends_in_an_error(empty_folder, capsys):
    code = cli.run([*TRAIN, *TINY, "--set", "optimizer.lr=1e30", "--out", "run"])

    assert code == 2
    assert "not finite" in capsys.readouterr().err
    assert json.loads((empty_folder / "run" / "run.json").read_text())["status"] == "interrupted"


def test_resolved_prints_a_stored_recipe_and_trains_nothing(empty_folder, capsys):
    run_once(empty_folder / "run")
    path = empty_folder / "run" / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"status": "interrupted"}))
    capsys.readouterr()

    assert cli.run(["train", "--resume", "run", "--resolved"]) == 0

    assert capsys.readouterr().out.startswith('name = "best_sgd"')


def test_a_full_standard_output_is_one_line(empty_folder):
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "parity", "list"],
            stdout=full, stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip

    assert done.returncode == 2
    assert done.stderr == "error: No space left on device.\n"


def test_a_closed_standard_output_is_no_error(empty_folder):
    command = f"{sys.executable} -m parity list models | head -1; exit ${{PIPESTATUS[0]}}"

    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stderr) == (0, "")


def test_a_truncated_data_file_is_refused_by_its_name(empty_folder, capsys):
    names = ["train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"]
    for name in names:
        (empty_folder / f"{name}-ubyte").write_bytes(b"\0\0\x08")
    wanted = ["--framework", "torch", "--recipe", "best_sgd", "--data", "fashion_mnist"]

    code = cli.run(["train", *wanted, "--data-dir", "."])

    assert code == 2
    assert "train-images-idx3-ubyte" in capsys.readouterr().err


def run_once(folder):
    assert cli.run([*TRAIN, *TINY, "--out", str(folder)]) == 0


def test_a_used_folder_is_refused_and_left_as_it_was(empty_folder, capsys):
    run_once(empty_folder / "run")
    before = {path.name: path.read_bytes() for path in (empty_folder / "run").iterdir()}

    code = cli.run([*TRAIN, *TINY, "--out", "run"])

    assert code == 2
    assert "--resume" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in (empty_folder / "run").iterdir()} == before


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--recipe", "best_adam"], "optimizer"),
        (["--recipe", "best_sgd", "--set", "optimizer.lr=0.2"], "optimizer.lr"),
        (["--seed", "5"], "seed"),
        (["--framework", "keras"], "framework"),
        (["--dtype", "float64"], "dtype"),
        (["--dtype", "mixed_bfloat16"], "dtype"),
        (["--compile"], "compiled was False, is True"),
    ],
)
def test_resume_with_other_options_names_them(empty_folder, capsys, arguments, named):
    run_once(empty_folder / "run")

    code = cli.run(["train", "--resume", "run", *arguments])

    assert code == 2
    assert named in capsys.readouterr().err


def test_a_run_that_goes_on_without_being_compiled_is_refused(empty_folder, capsys):
    path = empty_folder / "run" / "run.json"
    run_once(empty_folder / "run")
    record = json.loads(path.read_text())
    record["identity"]["compiled"] = True
    path.write_text(json.dumps(record))

    code = cli.run(["train", "--resume", "run", "--no-compile"])

    assert code == 2
    assert "compiled was True, is False" in capsys.readouterr().err


def test_options_of_compilation_and_precision_reach_the_record(empty_folder, monkeypatch):
    monkeypatch.setattr("parity.cli.train.carry_out", lambda run: None)

    code = cli.run([*TRAIN, *TINY, "--out", "run", "--compile", "--dtype", "mixed_float16"])

    identity = json.loads((empty_folder / "run" / "run.json").read_text())["identity"]
    assert code == 0
    assert (identity["compiled"], identity["dtype"]) == (True, "mixed_float16")


def test_a_finished_run_prints_the_command_that_converts_it(empty_folder, capsys):
    assert cli.run([*TRAIN, *TINY, "--out", "run"]) == 0

    lines = capsys.readouterr().out.splitlines()

    assert lines[-1].startswith("convert: python -m conversion run/weights.pt ")
    assert any("test accuracy" in line for line in lines)


def test_resolved_prints_the_recipe_and_runs_nothing(empty_folder, capsys):
    code = cli.run([*TRAIN, "--set", "optimizer.lr=0.05", "--resolved"])

    assert code == 0
    assert "lr = 0.05" in capsys.readouterr().out
    assert list(empty_folder.iterdir()) == []


def test_a_report_shows_runs_on_one_page(empty_folder):
    run_once(empty_folder / "run")

    assert cli.run(["report", "run", "--out", "page.html"]) == 0

    assert "best_sgd" in (empty_folder / "page.html").read_text()


@pytest.mark.parametrize(
    ("missing", "framework", "extra"), [("torch", "torch", "torch"), ("keras", "keras", "keras")]
)
def test_a_missing_framework_names_its_extra(empty_folder, missing, framework, extra):
    code = (
        "import importlib.util, sys\n"
        "find = importlib.util.find_spec\n"
        f"importlib.util.find_spec = lambda name: None if name == {missing!r} else find(name)\n"
        "from parity.cli import main\n"
        f"main(['train', '--framework', {framework!r}, '--recipe', 'best_sgd'])\n"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert done.returncode == 2
    assert f"framework-parity[{extra}]" in done.stderr
    assert list(empty_folder.iterdir()) == []


def test_an_interrupted_run_says_how_to_go_on(empty_folder):
    command = [
        sys.executable,
        "-m",
        "parity.train",
        *TRAIN[1:],
        "--model",
        "resnet8:width=2",
        "--epochs",
        "500",
        "--out",
        "run",
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    metrics = empty_folder / "run" / "metrics.jsonl"
    while not metrics.exists():
        assert process.poll() is None
    process.send_signal(2)

    _, error = process.communicate(timeout=60)

    assert process.returncode == 130
    assert "--resume run" in error
    assert json.loads((empty_folder / "run" / "run.json").read_text())["status"] == "interrupted"


@pytest.mark.parametrize(
    ("limit", "left"),
    [(100, []), (100_000, ["run", "run/run.json"])],
    ids=["at-once", "at-the-checkpoint"],
)
def test_a_disk_that_is_full_is_one_line(empty_folder, limit, left):
    def allow_small_files_only():
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    wanted = ["--framework", "torch", "--recipe", "best_sgd", "--epochs", "1", "--out", "run"]
    done = subprocess.run(
        [sys.executable, "-m", "parity.train", *wanted],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=allow_small_files_only,
    )

    assert done.returncode == 2
    assert done.stderr.startswith("error: run/")
    assert done.stderr.count("\n") == 1
    found = sorted(str(path.relative_to(empty_folder)) for path in empty_folder.rglob("*"))
    assert found == left
