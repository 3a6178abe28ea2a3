"""The float64 context: proved by a canary, and restored."""

import numpy as np
import pytest

from parity import runtime
from parity.errors import ParityError
from parity.frameworks.build import build_twin
from parity.spec.conventions import TORCH
from parity.spec.resnet import resnet_spec

runtime.select_keras_backend(None)

import keras  # noqa: E402  # after the backend is chosen

from parity.frameworks import keras_net  # noqa: E402


@pytest.mark.backend
def test_known_layers_compute_in_float64_inside_the_context():
    with runtime.precision("float64"):
        assert keras_net.measure_precision() < 1e-14


@pytest.mark.backend
def test_the_context_restores_what_it_set():
    before = keras.config.floatx(), keras.backend.result_type("float64", "float32")

    with runtime.precision("float64"):
        assert keras.backend.result_type("float64", "float32") == "float64"

    assert (keras.config.floatx(), keras.backend.result_type("float64", "float32")) == before


@pytest.mark.backend
def test_the_canary_sees_silent_float32(monkeypatch):
    with runtime.precision("float64"):
        monkeypatch.setattr(keras.config, "floatx", lambda: "float32")
        with pytest.raises(ParityError, match="lower precision"):
            keras_net.check_precision("float64")


def test_one_process_keeps_one_backend():
    other = "jax" if keras.backend.backend() != "jax" else "torch"

    with pytest.raises(ParityError, match="already runs Keras on"):
        runtime.select_keras_backend(other)


def test_float32_nets_stay_float32_after_float64_ones():
    spec = resnet_spec(
        "resnet8:width=2",
        conventions=TORCH.conventions,
        in_channels=1,
        input_size=(6, 6),
        classes=2,
    )
    build_twin("keras", spec, dtype="float64")

    state = build_twin("keras", spec).state()

    assert {array.dtype for array in state.values()} == {np.dtype("float32")}
