"""Small records in the form that training and lockstep write them."""

import copy
import json

import pytest

RECIPE = {
    "name": "best_sgd",
    "data": "digits",
    "model": "resnet8",
    "epochs": 4,
    "augment": {"crop_px": 1, "flip": "none"},
    "optimizer": {"kind": "sgd", "lr": 0.1},
}
VERSIONS = {
    "torch": {"numpy": "2.4.6", "torch": "2.13.0"},
    "keras": {"keras": "3.15.1", "numpy": "2.4.6", "tensorflow": "2.21.0"},
}
EPOCHS = [
    {"epoch": 1, "step": 23, "rate": 0.1, "train_loss": 1.5, "train_accuracy": 0.5},
    {"epoch": 2, "step": 46, "rate": 0.1, "train_loss": 0.4, "test_accuracy": 0.75},
    {"epoch": 3, "step": 69, "rate": 0.05, "train_loss": 0.2},
    {"epoch": 4, "step": 92, "rate": 0.01, "train_loss": 0.1, "test_accuracy": 0.975},
]
DIVERGENCE = {
    "step": 1,
    "quantity": "running statistics",
    "where": "stem.bn.running_var",
    "gap": 2.5e-4,
    "bound": 1e-13,
    "ratio": 2.5e9,
    "share_out": 0.75,
}
GRADIENTS = {
    "step": 2,
    "quantity": "gradients",
    "where": "head.weight",
    "gap": 3e-14,
    "bound": 1e-13,
    "ratio": 0.3,
    "share_out": 0.0,
    "growth": 1.25,
}


def run_table(
    *, framework="torch", seed=0, accuracy=0.975, plain=None, digest="ab" * 32, **identity
):
    """Return a finished run's `run.json`; further keywords replace parts of its identity."""
    return {
        "format": 1,
        "identity": {
            "recipe": RECIPE,
            "seed": seed,
            "framework": framework,
            "keras_backend": "tensorflow" if framework == "keras" else None,
            "dtype": "float32",
            "compiled": False,
            "threads": 2,
            "memory_format": "channels_last",
            "device": "cpu",
            "versions": VERSIONS[framework],
            "cpu": "AMD EPYC",
        }
        | identity,
        "status": "finished",
        "stream_digest": digest,
        "parameters": 77754,
        "result": {
            "test_accuracy": accuracy,
            "test_loss": 0.04,
            "train_accuracy": 1.0,
            "seconds": 7.12,
            "steps": 92,
        }
        | ({} if plain is None else {"test_accuracy_plain": plain}),
        "model_spec": {"name": "resnet8"},
    }


def lockstep_table(**changes):
    """Return a diverging lockstep's record; keywords replace its keys."""
    row = {
        "step": 1,
        "rate": 0.1,
        "loss": 2.3,
        "quantities": {
            "gradients": {"gap": 0.0, "bound": 1e-13, "where": "head.weight"},
            "running statistics": {"gap": 2.5e-4, "bound": 1e-13, "where": "stem.bn.running_var"},
        },
    }
    second = copy.deepcopy(row) | {"step": 2}
    second["quantities"]["gradients"]["gap"] = 3e-14
    return {
        "format": 1,
        "reference": "torch",
        "candidate": "keras-tensorflow",
        "mode": "resync",
        "dtype": "float64",
        "device": "cpu",
        "recipe": RECIPE,
        "seed": 0,
        "steps": 2,
        "every": 1,
        "injected": None,
        "verdict": "diverges",
        "reason": "Running statistics left their bound.",
        "first_divergence": DIVERGENCE,
        "summary": [GRADIENTS, {**DIVERGENCE, "growth": None}],
        "rows": [row, second],
        "notes": ["Gradients that are zero in theory: none."],
        "input_sensitivity": 0.5,
        "detection_power": [],
        "environment": {"versions": VERSIONS["keras"], "cpu": "AMD EPYC", "threads": 2},
        "stream_digest": "cd" * 32,
        "seconds": 12.3,
    } | changes


TRIALS = [
    {
        "fault": "lr_off",
        "change": "lr=0.1000000001",
        "caught": True,
        "quantity": "parameters",
        "ratio": 6.7e3,
    },
    {
        "fault": "momentum_through_float32",
        "change": "momentum=0.8999999761581421",
        "caught": False,
        "quantity": "slots",
        "ratio": 0.1,
    },
]


@pytest.fixture
def power_trials():
    return copy.deepcopy(TRIALS)


@pytest.fixture
def write_run(tmp_path):
    """Write a run folder and return its path."""

    def write(*, table=None, epochs=EPOCHS, **changes):
        table = table or run_table(**changes)
        folder = tmp_path / f"run-{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        (folder / "run.json").write_text(json.dumps(table))
        lines = "".join(json.dumps(epoch) + "\n" for epoch in epochs)
        (folder / "metrics.jsonl").write_text(lines)
        return folder

    return write


@pytest.fixture
def load_run(write_run):
    """Write a run folder and read it back."""
    from parity.report.records import read_run

    def load(**changes):
        return read_run(write_run(**changes))

    return load


@pytest.fixture
def finished_run_table():
    return run_table


@pytest.fixture
def lockstep_record_table():
    return lockstep_table


@pytest.fixture
def load_lockstep():
    from parity.report.locksteps import parse_lockstep

    def load(**changes):
        return parse_lockstep(lockstep_table(**changes), where="lockstep.json")

    return load
