"""The GPU benchmark trains both twins; here at a tiny size, on the CPU."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from parity import runtime

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.backend
def test_both_twins_are_trained_seed_by_seed(tmp_path):
    backend = runtime.select_keras_backend(None)
    out = tmp_path / "lines.jsonl"
    size = ["--device", "cpu", "--data", "synthetic", "--model", "airbench94:width=4"]
    rest = ["--epochs", "1", "--seeds", "2", "--keras-backend", backend, "--out", out]

    finished = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu_airbench", *size, *rest],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert finished.returncode == 0, finished.stderr
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    nets = ["torch", f"keras-{backend}"]
    assert [(line["net"], line["seed"]) for line in lines[:4]] == [
        (net, seed) for seed in (0, 1) for net in nets
    ]
    assert [(line["net"], line["n"]) for line in lines[4:]] == [(net, 2) for net in nets]
    digests = [line["stream_digest"] for line in lines[:4]]
    assert digests[0] == digests[1] != digests[2] == digests[3]
    assert all(0.0 <= line["test_accuracy"] <= 1.0 for line in lines[:4])
    assert all(line["test_accuracy"]["standard_deviation"] is not None for line in lines[4:])
