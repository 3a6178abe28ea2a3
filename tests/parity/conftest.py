"""Stock layers of both frameworks in float64, in PyTorch's names and layouts.

Fixtures:
    stock: Runs stock layers and compares them with the reference; Keras computes in float64 for the
        whole module that asks for it.
    float64_keras: Keras in float64 while a module's tests run.

A test that seeds many faults records how many were caught and missed, with `record_property("faults
of ...")`; the counts are printed at the end.
"""

import contextlib
import importlib

import hypothesis
import numpy as np
import pytest

from conversion.layouts import move_axes, to_keras_layout, to_torch_layout
from parity import runtime
from parity.testing.assertions import assert_states_close


def channels_last(array):
    return move_axes(array, source="nchw", target="nhwc") if array.ndim == 4 else array


def channels_first(array):
    return move_axes(array, source="nhwc", target="nchw") if array.ndim == 4 else array


@contextlib.contextmanager
def rejecting_what_torch_refuses():
    """Give up a Hypothesis example of which torch refuses its own gradient.

    torch 2.13.0, in float64 on processors: where a kernel has one pixel or one channel, torch takes
    Keras's channels-last copy of it for neither order of axes.
    """
    try:
        yield
    except RuntimeError as error:
        if "grad_weight" in str(error) and "contiguous" in str(error):
            hypothesis.reject()
        raise


def quantities_of(outcome):
    return {
        "outputs": {"outputs": outcome.outputs},
        "input gradients": {str(i): array for i, array in enumerate(outcome.input_gradients)},
        "parameter gradients": outcome.parameter_gradients,
        "buffers": outcome.buffers,
    }


class Stock:
    """Stock layers run on arrays in PyTorch's layouts, images as `(n, c, h, w)`."""

    def __init__(self, keras_backend):
        self.keras_backend = keras_backend

    @staticmethod
    def array(seed, *shape):
        return np.random.default_rng(seed).standard_normal(shape)

    @staticmethod
    def outcome(outputs, d_inputs, gradients=None, buffers=None):
        """Return what the reference made as the frameworks' outcomes have it."""
        from parity.frameworks.outcomes import LayerOutcome

        return LayerOutcome(
            outputs=outputs,
            input_gradients=(d_inputs,),
            parameter_gradients=gradients or {},
            buffers=buffers or {},
        )

    @staticmethod
    def run_torch(layer, inputs, d_outputs, weights=None):
        import torch

        from parity.frameworks.torch_layer import run_torch_layer

        layer = layer.double() if isinstance(layer, torch.nn.Module) else layer
        return run_torch_layer(layer, [inputs], d_outputs, weights=weights)

    def run_keras(self, layer, inputs, d_outputs, weights=None, *, sizes=None):
        from parity.frameworks.keras_layer import run_keras_layer

        kind = type(layer).__name__
        stored = dict(
            to_keras_layout(kind, slot, array, sizes=sizes)
            for slot, array in (weights or {}).items()
        )
        images, d_outputs = channels_last(inputs), channels_last(d_outputs)
        with rejecting_what_torch_refuses():
            outcome = run_keras_layer(layer, [images], d_outputs, weights=stored)
        slots = (
            dict(to_torch_layout(kind, name, array) for name, array in arrays.items())
            for arrays in (outcome.parameter_gradients, outcome.buffers)
        )
        d_inputs = channels_first(outcome.input_gradients[0])
        return self.outcome(channels_first(outcome.outputs), d_inputs, *slots)

    @staticmethod
    def assert_close(actual, expected, *, bound):
        """Check every array to `bound` of the largest value of its quantity."""
        for quantity, arrays in quantities_of(expected).items():
            scale = max((float(np.abs(array).max()) for array in arrays.values()), default=0.0)
            assert_states_close(
                quantities_of(actual)[quantity],
                arrays,
                atol=bound * scale,
                rtol=bound,
                where=quantity,
            )


@pytest.fixture(scope="module")
def stock():
    backend = runtime.select_keras_backend(None)
    importlib.import_module("keras")
    with runtime.precision("float64"):
        yield Stock(backend)


@pytest.fixture(scope="module")
def float64_keras():
    runtime.select_keras_backend(None)
    importlib.import_module("keras")  # the context sets what is loaded
    with runtime.precision("float64"):
        yield


def pytest_terminal_summary(terminalreporter):
    for report in terminalreporter.stats.get("passed", []):
        for name, value in report.user_properties:
            if name.startswith("faults of "):
                caught, missed = value
                terminalreporter.write_line(f"{name} caught: {caught} of {caught + missed}")
