"""The command converts, reports, and fails with one line and a code that says why."""

import dataclasses
import json
import subprocess
import sys

import pytest

from conversion import cli
from conversion.formats.table import FORMATS

MODEL = ["--model", "resnet8:width=4"]


@pytest.fixture
def run(capsys):
    def call(*arguments):
        code = cli.main([str(argument) for argument in arguments])
        return code, *capsys.readouterr()

    return call


def command(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "conversion", *map(str, arguments)], capture_output=True, text=True
    )


@pytest.mark.slow
def test_command_converts_and_reports(checkpoint, tmp_path):
    outcome = command(checkpoint("x.pt"), tmp_path / "x.weights.h5", *MODEL)

    assert outcome.returncode == 0
    assert "stages.0.blocks.0.conv1" in outcome.stdout
    assert "oihw -> hwio" in outcome.stdout
    assert "verified bit for bit; logits numerically equivalent" in outcome.stdout
    assert (tmp_path / "x.weights.h5").is_file()


def test_command_names_a_missing_file_in_one_line(tmp_path):
    outcome = command(tmp_path / "x.pt", tmp_path / "x.keras", *MODEL)

    assert outcome.returncode == 2
    assert outcome.stdout == ""
    assert outcome.stderr == (
        f"error: {tmp_path}/x.pt: expected a checkpoint file; got nothing of that name.\n"
    )


def test_command_loads_no_framework():
    code = "import sys, conversion.__main__; print([m for m in sys.modules])"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout

    assert "conversion.convert" in modules
    assert not [name for name in ("torch", "keras", "tensorflow", "jax") if f"'{name}'" in modules]


def test_conversion_without_torch_files_loads_no_framework(checkpoint, tmp_path):
    source, target = checkpoint("x.safetensors"), tmp_path / "x.weights.h5"
    code = (
        "import sys; from conversion.cli import main; main(sys.argv[1:]);"
        "print(not {'torch', 'keras', 'tensorflow', 'jax'} & set(sys.modules))"
    )
    arguments = [source, target, *MODEL, "--no-verify"]
    outcome = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True
    )

    assert outcome.stdout.endswith("True\n")


def test_quiet_leaves_out_the_layers(run, checkpoint, tmp_path):
    code, out, _ = run(
        checkpoint("x.pt"), tmp_path / "x.safetensors", *MODEL, "--quiet", "--no-verify"
    )

    assert code == 0
    assert out.splitlines()[0].startswith(f"{tmp_path}/x.safetensors: 19 layers, ")
    assert out.splitlines()[-1] == "not verified"


def test_run_gives_the_model(run, checkpoint, tmp_path, spec):
    (tmp_path / "run.json").write_text(json.dumps({"model_spec": dataclasses.asdict(spec)}))

    code, out, _ = run(
        checkpoint("x.pt"), tmp_path / "x.safetensors", "--run", tmp_path, "--no-verify"
    )

    assert code == 0
    assert "note:" not in out


def test_preset_gives_what_the_file_does_not_state(run, checkpoint, tmp_path):
    arguments = [checkpoint("x.pt"), tmp_path / "x.safetensors", *MODEL, "--no-verify"]

    code, out, _ = run(*arguments, "--preset", "keras")

    assert code == 0
    assert "note:" not in out


def test_report_has_a_row_a_layer_with_whole_columns(run, checkpoint, tmp_path):
    _, out, _ = run(checkpoint("x.pt"), tmp_path / "x.weights.h5", *MODEL, "--no-verify")

    rows = [line.split() for line in out.splitlines()]
    assert ["stem.conv", "weight", "oihw", "->", "hwio", *"4x3x3x3".replace("x", " x ").split(),
            *"3x3x3x4".replace("x", " x ").split()] in rows  # fmt: skip
    assert sum("->" in row for row in rows) == 19


def test_force_replaces_a_target(run, checkpoint, tmp_path):
    source, target = checkpoint("x.pt"), checkpoint("x.safetensors")

    assert run(source, target, *MODEL, "--no-verify")[0] == 2
    assert run(source, target, *MODEL, "--no-verify", "--force")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "described"),
    [
        ([], "Missing argument"),
        (["a.pt", "b.pt"], "give either --model NAME or --run DIR"),
        (["a.pt", "b.pt", *MODEL, "--run", "x"], "give either --model NAME or --run DIR"),
        (["a.pt", "b.pt", "--run", "x", "--preset", "torch"], "--preset goes with --model"),
        (["a.pt", "b.pt", "--modle", "x"], "No such option"),
        (["a.pt", "b.pt", *MODEL, "--classes", "0"], "Invalid value for '--classes'"),
        (["a.pt", "b.pt", *MODEL, "--input-size", "big"], "Invalid value for '--input-size'"),
        (["a.pt", "b.onnx", *MODEL], "expected a name that ends in"),
    ],
    ids=str,
)
def test_wrong_usage_is_one_line_and_code_2(run, arguments, described):
    code, out, err = run(*arguments)

    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert described in err
    assert err.count("\n") == 1


def test_unknown_model_is_one_line_and_code_2(run, checkpoint, tmp_path):
    code, _, err = run(checkpoint("x.pt"), tmp_path / "y.pt", "--model", "resnet17")

    assert code == 2
    assert "model 'resnet17' not found" in err


@pytest.mark.parametrize(
    ("raised", "code", "described"),
    [
        (KeyboardInterrupt(), 130, "interrupted\n"),
        (RuntimeError("broken"), 70, "a defect of the toolkit, not of the input.\n"),
    ],
    ids=["interrupt", "internal"],
)
def test_interruptions_and_internal_errors_have_their_codes(
    run, checkpoint, tmp_path, monkeypatch, raised, code, described
):
    def fail(state, spec):
        raise raised

    broken = dataclasses.replace(FORMATS[".safetensors"], encode=fail)
    monkeypatch.setitem(FORMATS, ".safetensors", broken)

    actual, _, err = run(checkpoint("x.pt"), tmp_path / "y.safetensors", *MODEL)

    assert actual == code
    assert err.endswith(described)
    assert not (tmp_path / "y.safetensors").exists()


def test_verification_that_finds_a_difference_has_code_1(run, checkpoint, tmp_path, monkeypatch):
    source = FORMATS[".safetensors"]

    def shift(state, spec):
        return source.encode({name: array + 1 for name, array in state.items()}, spec)

    monkeypatch.setitem(FORMATS, ".safetensors", dataclasses.replace(source, encode=shift))

    code, _, err = run(checkpoint("x.pt"), tmp_path / "y.safetensors", *MODEL)

    assert code == 1
    assert "y.safetensors: 47 slots differ from the source: " in err
    assert not (tmp_path / "y.safetensors").exists()


def test_help_names_the_formats(run):
    code, out, _ = run("--help")

    assert code == 0
    assert ".pt .pth .safetensors .weights.h5 .keras" in out
