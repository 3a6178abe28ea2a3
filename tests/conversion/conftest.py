"""Small models and states for the tests of conversion.

Fixtures:
    spec: A small CIFAR ResNet in torch's conventions.
    state: Its state after some training: no array is constant.
    checkpoint: Writes a state to a file in the format of its name.
"""

import numpy as np
import pytest

from conversion.formats.table import find_format
from parity import runtime
from parity.rng import stream
from parity.spec.conventions import PRESETS
from parity.spec.resnet import resnet_spec

MODEL = "resnet8:width=4"


@pytest.fixture(scope="session", autouse=True)
def keras_backend():
    """Load the frameworks in the tested order before any test loads one of them itself."""
    return runtime.select_keras_backend(None)


def make_spec(model=MODEL, *, preset="torch", classes=5, in_channels=3, input_size=32):
    return resnet_spec(
        model,
        conventions=PRESETS[preset].conventions,
        in_channels=in_channels,
        input_size=(input_size, input_size),
        classes=classes,
    )


def make_state(spec, *, dtype="float32"):
    state = {}
    for name, shape in spec.state_shapes().items():
        values = 0.1 * stream(1, "conversion test", name).standard_normal(shape)
        positive = name.endswith(("running_var", "bn1.weight", "bn2.weight", "bn.weight"))
        state[name] = (1.0 + np.abs(values) if positive else values).astype(dtype)
    return state


@pytest.fixture
def spec():
    return make_spec()


@pytest.fixture
def state(spec):
    return make_state(spec)


@pytest.fixture
def specs():
    """Returns `make_spec`."""
    return make_spec


@pytest.fixture
def states():
    """Returns `make_state`."""
    return make_state


@pytest.fixture
def checkpoint(tmp_path, spec, state):
    def write(name, *, spec=spec, state=state):
        path = tmp_path / name
        path.write_bytes(find_format(path).encode(state, spec))
        return path

    return write
