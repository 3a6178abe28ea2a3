"""`parity compare` on models of a user's module."""

import json

import numpy as np
import pytest

from parity import cli

MODELS = """
import keras
import torch
from torch import nn

def torch_net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(96, 4)
    )

def keras_net(pad=((1, 1), (1, 1))):
    return keras.Sequential([
        keras.Input((8, 8, 3)),
        keras.layers.ZeroPadding2D(pad),
        keras.layers.Conv2D(6, 3, strides=2, activation="relu"),
        keras.layers.Flatten(),
        keras.layers.Dense(4),
    ])

def wrong_net():
    return keras_net(((0, 1), (0, 1)))

built = torch_net()
number = 3
"""
IMAGES = ["--input", "2,3,8,8"]


@pytest.fixture
def models(empty_folder, monkeypatch):
    (empty_folder / "nets_to_compare.py").write_text(MODELS)
    monkeypatch.syspath_prepend(str(empty_folder))
    return empty_folder


def compare(*arguments):
    return cli.run(
        ["compare", *(f"nets_to_compare:{name}" for name in arguments[:2]), *arguments[2:]]
    )


@pytest.mark.usefixtures("models")
def test_a_right_port_is_said_to_be_equivalent(capsys):
    code = compare("torch_net", "keras_net", *IMAGES)

    said = capsys.readouterr().out
    assert code == 0
    assert "keras-tensorflow is numerically equivalent to torch" in said
    assert "3 of 3 operations have a counterpart" in said
    assert "injected faults would be caught" in said


def test_a_wrong_port_is_said_to_diverge_and_written_down(models, capsys):
    code = compare("torch_net", "wrong_net", *IMAGES, "--out", "finding.json")

    record = json.loads((models / "finding.json").read_text())
    assert code == 1
    assert "diverges from torch in phase forward: output of 0 (conv2d" in capsys.readouterr().out
    assert (record["verdict"], record["reference_layer"]) == ("diverges", "0")
    assert record["figures"][0]["ratio"] > 1e6


def test_an_archive_and_arrays_are_read(models, capsys):
    import keras

    from parity.frameworks.loading import load_model

    load_model("nets_to_compare:keras_net").save("net.keras")
    images = np.random.default_rng(0).standard_normal((2, 8, 8, 3)).astype(np.float32)
    np.savez("images.npz", images)
    np.savez("moved.npz", np.moveaxis(images, -1, 1))
    files = ["--inputs", "images.npz", "--candidate-inputs", "moved.npz"]

    code = cli.run(["compare", "net.keras", "nets_to_compare:built", *files])

    assert code == 0
    assert "torch is numerically equivalent to keras" in capsys.readouterr().out
    assert keras.backend.backend() == "tensorflow"


REFUSED = {
    "no such module": (["nets:a", "nets:b", *IMAGES], "no module 'nets'"),
    "no such attribute": (
        ["nets_to_compare:torch_nett", "nets_to_compare:built", *IMAGES],
        "Nearest: torch_net",
    ),
    "no callable": (["nets_to_compare:number", "nets_to_compare:built", *IMAGES], "got int"),
    "no colon": (["nets_to_compare", "nets_to_compare:built", *IMAGES], "module:callable"),
    "no archive": (["a.keras", "nets_to_compare:built", *IMAGES], "no such file"),
    "no input": (["nets_to_compare:built", "nets_to_compare:built"], "--input"),
    "wrong shape": (["nets_to_compare:built", "nets_to_compare:built", "--input", "2,x"], "'2,x'"),
    "no arrays": (
        ["nets_to_compare:built", "nets_to_compare:built", "--inputs", "a.npz"],
        "no such file",
    ),
    "wrong weights": (
        ["nets_to_compare:built", "nets_to_compare:built", *IMAGES, "--weights", "as_is"],
        "as-is",
    ),
    "wrong pin": (
        ["nets_to_compare:built", "nets_to_compare:built", *IMAGES, "--map", "0"],
        "REFERENCE=CANDIDATE",
    ),
    "wrong phase": (
        ["nets_to_compare:built", "nets_to_compare:built", *IMAGES, "--phase", "trian"],
        "Nearest: train",
    ),
    "unfit shape": (
        ["nets_to_compare:built", "nets_to_compare:built", "--input", "2,3,9,9"],
        "shape",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals_are_one_line(case, models, capsys):
    arguments, expected = REFUSED[case]

    code = cli.run(["compare", *arguments])

    error = capsys.readouterr().err
    assert code == 2
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert expected in error
    assert {path.name for path in models.iterdir()} <= {"nets_to_compare.py", "__pycache__"}
