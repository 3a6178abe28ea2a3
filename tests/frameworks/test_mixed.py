"""Mixed precision: 16 bits in the passes and nowhere else."""

import numpy as np
import pytest

from parity import runtime
from parity.errors import ParityError
from parity.frameworks.build import build_twin
from parity.lockstep.pair import LockstepSettings
from parity.spec.conventions import TORCH
from parity.spec.resnet import ResNetSpec
from parity.testing.assertions import assert_identical, relative_gap

FRAMEWORKS = ["torch", "keras"]

# Half the distance from 1 to the next number.
UNITS = {"mixed_bfloat16": 2.0**-8, "mixed_float16": 2.0**-11}


TWIN = ResNetSpec(
    conventions=TORCH.conventions,
    block="basic",
    blocks=(1,),
    stem="cifar",
    width=16,
    in_channels=1,
    input_size=(8, 8),
    classes=3,
)


@pytest.mark.backend
@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("dtype", UNITS)
def test_a_step_is_as_close_to_float32_as_16_bits_allow_and_no_closer(
    small_net, small_batch, framework, dtype
):
    plain, mixed = small_net(framework), small_net(framework, dtype=dtype)

    expected = plain.step(small_batch(), rate=0.1, with_gradients=True)
    actual = mixed.step(small_batch(), rate=0.1, with_gradients=True)

    unit = UNITS[dtype]
    assert abs(actual.loss - expected.loss) <= 2 * unit * expected.loss
    assert unit / 64 < relative_gap(actual.logits, expected.logits) <= 2 * unit
    for name, gradient in expected.gradients.items():
        assert relative_gap(actual.gradients[name], gradient) <= 16 * unit, name
    for name, array in plain.state().items():
        assert relative_gap(mixed.state()[name], array) <= 8 * unit, name


@pytest.mark.backend
@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("dtype", UNITS)
def test_everything_a_mixed_net_hands_out_is_float32(small_net, small_batch, framework, dtype):
    net = small_net(framework, dtype=dtype)

    record = net.step(small_batch(), rate=0.1, with_gradients=True)

    arrays = {
        **net.state(),
        **net.optimizer_state().slots["momentum_buffer"],
        **net.trace(small_batch().images, training=True),
        **record.gradients,
        "logits": record.logits,
        "evaluated": net.forward(small_batch().images, training=False),
    }
    assert {name for name, array in arrays.items() if array.dtype != np.float32} == set()


@pytest.mark.backend
def test_layers_of_a_keras_twin_have_the_policy():
    model = build_twin("keras", TWIN, dtype="mixed_bfloat16").model

    assert {layer.compute_dtype for layer in model.layers} == {"bfloat16"}
    assert {layer.variable_dtype for layer in model.layers} == {"float32"}


@pytest.mark.parametrize("dtype", UNITS)
def test_every_layer_of_a_torch_twin_but_none_of_its_arrays_is_in_16_bits(dtype):
    import torch

    net = build_twin("torch", TWIN, dtype=dtype)
    seen = {}

    def record(module, inputs, outputs):
        seen[type(module).__name__, outputs.dtype] = {p.dtype for p in module.parameters()}

    for module in net._module.modules():
        if not list(module.children()):
            module.register_forward_hook(record)
    net.forward(np.ones((2, 8, 8, 1), np.float32), training=True)

    kind = {"mixed_bfloat16": torch.bfloat16, "mixed_float16": torch.float16}[dtype]
    assert {outputs for _, outputs in seen} == {kind}
    assert set().union(*seen.values()) == {torch.float32}


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_mixed_net_widens_to_the_same_weights(small_net, small_batch, framework):
    net = small_net(framework, dtype="mixed_bfloat16")
    net.step(small_batch(), rate=0.1)

    wide = net.astype("float64")

    assert wide.dtype == "float64"
    for name, array in net.state().items():
        assert_identical(wide.state()[name], array.astype(np.float64), where=name)


def test_the_policy_ends_with_the_net(small_net, small_batch):
    import keras

    small_net("keras", dtype="mixed_float16").step(small_batch(), rate=0.1)

    assert keras.config.dtype_policy().name == "float32"
    assert keras.config.floatx() == "float32"


def test_lockstep_refuses_mixed_precision():
    with pytest.raises(ParityError, match="float32, float64; got 'mixed_bfloat16'"):
        LockstepSettings(steps=1, dtype="mixed_bfloat16")


def test_an_unknown_precision_is_refused():
    with pytest.raises(ParityError, match="mixed_float16; got 'float16'"):
        runtime.array_dtype("float16")
