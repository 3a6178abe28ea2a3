"""What crosses the protocol `Net`: states, slots and traces, in either framework."""

import numpy as np
import pytest

from parity.errors import ConversionError, ParityError
from parity.frameworks.build import build_twin
from parity.frameworks.net import Batch, OptimizerState
from parity.initialize import initial_state
from parity.rng import stream
from parity.spec.conventions import KERAS, TORCH
from parity.spec.losses import CrossEntropy, build_targets
from parity.spec.optimizers import Update
from parity.spec.resnet import resnet_spec
from parity.testing import specs
from parity.testing.assertions import assert_identical

FRAMEWORKS = ["torch", "keras"]


def tiny_spec(preset=TORCH):
    return resnet_spec(
        "resnet8:width=3",
        conventions=preset.conventions,
        in_channels=2,
        input_size=(7, 6),
        classes=3,
    )


def tiny_batch(spec, *, seed=0, size=5):
    generator = stream(seed, "test batch")
    labels = generator.integers(0, spec.classes, size)
    loss = CrossEntropy(label_smoothing=0.1, reduction="mean")
    return Batch(
        images=generator.standard_normal((size, *spec.input_size, spec.in_channels)).astype(
            np.float32
        ),
        labels=labels,
        targets=build_targets(loss, labels, classes=spec.classes),
    )


@pytest.fixture(params=FRAMEWORKS)
def net(request):
    built = build_twin(request.param, tiny_spec(), update=Update(rule=specs.ADAM), dtype="float64")
    built.load_state(initial_state(tiny_spec(), seed=0))
    return built


@pytest.mark.backend
@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("preset", [TORCH, KERAS], ids=["torch", "keras"])
def test_state_holds_the_specs_slots_and_no_other(framework, preset):
    spec = tiny_spec(preset)

    state = build_twin(framework, spec).state()

    assert {name: array.shape for name, array in state.items()} == spec.state_shapes()


@pytest.mark.backend
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_initial_weights_are_bit_identical_in_either_framework(framework):
    expected = initial_state(tiny_spec(), seed=3)
    built = build_twin(framework, tiny_spec())

    built.load_state(expected)

    for name, array in built.state().items():
        assert_identical(array, expected[name], where=name)


@pytest.mark.backend
def test_a_step_can_be_repeated_from_saved_state_and_slots(net):
    batch = tiny_batch(tiny_spec())
    net.step(batch, rate=1e-2)
    state, slots = net.state(), net.optimizer_state()
    net.step(batch, rate=1e-2)
    expected = net.state()

    net.load_state(state)
    net.load_optimizer_state(slots)
    net.step(batch, rate=1e-2)

    for name, array in net.state().items():
        assert_identical(array, expected[name], where=name)


@pytest.mark.backend
def test_optimizer_state_counts_steps_and_names_every_parameter(net):
    net.step(tiny_batch(tiny_spec()), rate=1e-2)

    optimizer_state = net.optimizer_state()

    assert optimizer_state.step == 1
    assert set(optimizer_state.slots) == {"exp_avg", "exp_avg_sq"}
    assert all(
        set(arrays) == set(net.parameter_names()) for arrays in optimizer_state.slots.values()
    )


@pytest.mark.backend
def test_applying_a_steps_own_gradients_gives_the_same_parameters(net):
    batch = tiny_batch(tiny_spec())
    before, slots = net.state(), net.optimizer_state()
    record = net.step(batch, rate=1e-2, with_gradients=True)
    expected = net.state()

    net.load_state(before)
    net.load_optimizer_state(OptimizerState(step=0, slots=slots.slots))
    net.apply_gradients(record.gradients, rate=1e-2)

    for name in net.parameter_names():
        assert np.max(np.abs(net.state()[name] - expected[name])) < 1e-15, name


@pytest.mark.backend
@pytest.mark.parametrize("training", [False, True])
def test_trace_leaves_the_net_as_it_was(net, training):
    before = net.state()

    net.trace(tiny_batch(tiny_spec()).images, training=training)

    for name, array in net.state().items():
        assert_identical(array, before[name], where=name)


@pytest.mark.backend
@pytest.mark.filterwarnings("error")
def test_reading_a_net_warns_of_nothing(net):
    net.state()
    net.optimizer_state()


def test_state_is_a_copy(net):
    state = net.state()
    state["head.bias"] += 1.0

    assert np.max(np.abs(net.state()["head.bias"] - state["head.bias"])) > 0.5


def test_load_state_lists_every_misfit_and_changes_nothing(net):
    before = net.state()
    wrong = dict(before)
    wrong["extra.weight"] = wrong.pop("stem.bn.bias")
    wrong["head.weight"] = wrong["head.weight"].T

    with pytest.raises(ConversionError, match=r"stem\.bn\.bias.*extra\.weight.*head\.weight"):
        net.load_state(wrong)

    for name, array in net.state().items():
        assert_identical(array, before[name], where=name)


def test_astype_keeps_values_and_slots(net):
    net.step(tiny_batch(tiny_spec()), rate=1e-2)

    copied = net.astype("float32")

    assert copied.dtype == "float32"
    expected = net.optimizer_state().slots["exp_avg"]["head.weight"].astype(np.float32)
    assert_identical(copied.optimizer_state().slots["exp_avg"]["head.weight"], expected)


def test_unknown_framework_offers_the_nearest():
    with pytest.raises(ParityError, match="Nearest: torch"):
        build_twin("torhc", tiny_spec())
