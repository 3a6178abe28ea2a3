"""What proofs on stock Keras layers share."""

import importlib

import pytest

from parity import runtime


@pytest.fixture(scope="module")
def float64_keras():
    """Keras in float64 while a module's tests run."""
    runtime.select_keras_backend(None)
    importlib.import_module("keras")  # the context sets what is loaded
    with runtime.precision("float64"):
        yield
