"""The reference update rules against torch's and Keras's own, over steps of changing rate."""

import dataclasses
import importlib

import numpy as np
import pytest
import torch

from parity import runtime
from parity.errors import DivergenceError, SpecError
from parity.reference.optimizers import initial_slots, update_parameters
from parity.rng import stream
from parity.testing import specs
from parity.testing.assertions import assert_close, assert_states_close
from parity.testing.faults import OPTIMIZER_FAULTS, seed_spec_fault

SHAPES = {"conv.weight": (3, 2, 2, 2), "head.bias": (4,)}
RATES = (0.5, 0.25, 0.25, 0.125, 0.0625)

SGD = dataclasses.replace(specs.SGD, lr=0.5)
ADAM = dataclasses.replace(specs.ADAM, lr=0.5)
# Keras passes hyper-parameters through float32 on tensorflow: these values survive it.
EXACT_SGD = dataclasses.replace(SGD, momentum=0.875, velocity_holds_lr=True)
EXACT_ADAM = dataclasses.replace(
    ADAM, beta1=0.75, beta2=0.9375, epsilon=2.0**-10, epsilon_placement="uncorrected"
)


def draws(purpose, step=0):
    return {
        name: stream(0, "test", purpose, name, step).standard_normal(shape)
        for name, shape in SHAPES.items()
    }


def run_reference(spec, *, rates=RATES):
    parameters, slots = draws("parameters"), initial_slots(spec, draws("parameters"))
    for step, rate in enumerate(rates):
        gradients = draws("gradients", step)
        parameters, slots = update_parameters(
            spec, parameters, gradients, slots, rate=rate, step=step
        )
    return parameters, slots


def run_torch(build):
    tensors = {
        name: torch.nn.Parameter(torch.tensor(value)) for name, value in draws("parameters").items()
    }
    optimizer = build(list(tensors.values()))
    for step, rate in enumerate(RATES):
        optimizer.param_groups[0]["lr"] = rate
        for name, gradient in draws("gradients", step).items():
            tensors[name].grad = torch.tensor(gradient)
        optimizer.step()
    slots = {
        slot: {name: optimizer.state[tensor][slot].numpy() for name, tensor in tensors.items()}
        for slot in ("momentum_buffer", "exp_avg", "exp_avg_sq")
        if slot in next(iter(optimizer.state.values()), {})
    }
    return {name: tensor.detach().numpy() for name, tensor in tensors.items()}, slots


def run_keras(build):
    runtime.select_keras_backend(None)
    importlib.import_module("keras")  # the context sets what is loaded
    with runtime.precision("float64"):
        return run_keras_in_float64(build)


def run_keras_in_float64(build):
    import keras

    variables = {
        name: keras.Variable(value, dtype="float64", name=name.replace(".", "-"))
        for name, value in draws("parameters").items()
    }
    optimizer = build(keras.optimizers)
    optimizer.build(list(variables.values()))
    for step, rate in enumerate(RATES):
        optimizer.learning_rate.assign(rate)
        gradients = draws("gradients", step)
        optimizer.apply(
            [keras.ops.convert_to_tensor(gradients[name], dtype="float64") for name in variables]
        )
    return {
        name: keras.ops.convert_to_numpy(variable.value) for name, variable in variables.items()
    }


TORCH_ROWS = {
    "sgd-plain": (
        dataclasses.replace(SGD, momentum=0.0),
        lambda p: torch.optim.SGD(p, lr=0.5),
    ),
    "sgd-momentum-l2": (
        dataclasses.replace(SGD, l2=5e-4),
        lambda p: torch.optim.SGD(p, lr=0.5, momentum=0.9, weight_decay=5e-4),
    ),
    "sgd-nesterov-l2": (
        dataclasses.replace(SGD, l2=5e-4, nesterov=True),
        lambda p: torch.optim.SGD(p, lr=0.5, momentum=0.9, weight_decay=5e-4, nesterov=True),
    ),
    "adam": (ADAM, lambda p: torch.optim.Adam(p, lr=0.5)),
    "adam-l2": (
        dataclasses.replace(ADAM, l2=0.02),
        lambda p: torch.optim.Adam(p, lr=0.5, weight_decay=0.02),
    ),
    "adamw": (
        dataclasses.replace(ADAM, decoupled_decay=0.02),
        lambda p: torch.optim.AdamW(p, lr=0.5, weight_decay=0.02),
    ),
}
KERAS_ROWS = {
    "sgd-plain": (
        dataclasses.replace(EXACT_SGD, momentum=0.0),
        lambda o: o.SGD(0.5),
    ),
    "sgd-momentum": (EXACT_SGD, lambda o: o.SGD(0.5, momentum=0.875)),
    "sgd-nesterov-decay": (
        dataclasses.replace(EXACT_SGD, nesterov=True, decoupled_decay=0.125),
        lambda o: o.SGD(0.5, momentum=0.875, nesterov=True, weight_decay=0.125),
    ),
    "adam": (
        EXACT_ADAM,
        lambda o: o.Adam(0.5, beta_1=0.75, beta_2=0.9375, epsilon=2.0**-10),
    ),
    "adamw": (
        dataclasses.replace(EXACT_ADAM, decoupled_decay=0.125),
        lambda o: o.AdamW(0.5, beta_1=0.75, beta_2=0.9375, epsilon=2.0**-10, weight_decay=0.125),
    ),
}


@pytest.mark.parametrize("row", TORCH_ROWS)
def test_update_matches_torch_over_changing_rates(row):
    spec, build = TORCH_ROWS[row]
    expected, expected_slots = run_torch(build)

    actual, slots = run_reference(spec)

    assert_states_close(actual, expected, atol=1e-13, rtol=1e-13)
    for slot in spec.slot_names():
        assert_states_close(slots[slot], expected_slots[slot], atol=1e-13, rtol=1e-13, where=slot)


@pytest.mark.parametrize("row", KERAS_ROWS)
def test_update_matches_keras_over_changing_rates(row):
    spec, build = KERAS_ROWS[row]

    actual, _ = run_reference(spec)

    assert_states_close(actual, run_keras(build), atol=1e-13, rtol=1e-13)


@pytest.mark.parametrize("nesterov", [False, True])
def test_velocity_forms_agree_while_the_rate_is_constant(nesterov):
    holds_gradient = dataclasses.replace(SGD, nesterov=nesterov, l2=5e-4)
    holds_rate = dataclasses.replace(holds_gradient, velocity_holds_lr=True)

    actual, velocity = run_reference(holds_rate, rates=(0.1,) * 4)
    expected, expected_velocity = run_reference(holds_gradient, rates=(0.1,) * 4)

    assert_states_close(actual, expected, atol=1e-14, rtol=1e-14)
    scaled = {k: -0.1 * v for k, v in expected_velocity["momentum_buffer"].items()}
    assert_states_close(velocity["momentum_buffer"], scaled, atol=1e-14, rtol=1e-14)


def test_velocity_forms_part_once_the_rate_changes():
    holds_rate = dataclasses.replace(SGD, velocity_holds_lr=True)

    with pytest.raises(DivergenceError, match=r"conv\.weight: 24 of 24 elements differ"):
        assert_states_close(
            run_reference(holds_rate)[0], run_reference(SGD)[0], atol=1e-6, rtol=0.0
        )


def test_unscaled_decay_follows_the_base_rate_and_l2_the_original_parameter():
    spec = dataclasses.replace(
        SGD, lr=0.5, momentum=0.0, l2=0.5, decoupled_decay=0.5, decay_scaled_by_lr=False
    )

    actual, _ = update_parameters(spec, {"w": [8.0]}, {"w": [1.0]}, {}, rate=0.25, step=0)

    # Decay takes 0.5 * 0.5 * 8 = 2 off, the step 0.25 * (1 + 0.5 * 8) = 1.25.
    assert_close(actual["w"], [4.75], atol=0.0, rtol=0.0)


@pytest.mark.parametrize("placement", ["corrected", "uncorrected"])
def test_adam_first_step_is_the_rate_where_epsilon_vanishes(placement):
    spec = dataclasses.replace(ADAM, epsilon=1e-300, epsilon_placement=placement)

    actual, _ = update_parameters(
        spec, {"w": [0.0]}, {"w": [7.0]}, initial_slots(spec, {"w": [0.0]}), rate=0.25, step=0
    )

    assert_close(actual["w"], [-0.25], atol=0.0, rtol=1e-14)


def test_update_leaves_what_it_was_given():
    parameters, gradients, slots = draws("parameters"), draws("gradients"), {}
    slots = initial_slots(SGD, parameters)

    update_parameters(SGD, parameters, gradients, slots, rate=0.5, step=0)

    assert_states_close(parameters, draws("parameters"), atol=0.0, rtol=0.0)
    assert_states_close(gradients, draws("gradients"), atol=0.0, rtol=0.0)
    assert_states_close(
        slots["momentum_buffer"],
        initial_slots(SGD, parameters)["momentum_buffer"],
        atol=0.0,
        rtol=0.0,
    )


def test_update_refuses_what_does_not_match_and_lists_it_all():
    parameters = {"a": np.zeros(2), "b": np.zeros(3)}
    gradients = {"a": np.zeros(2), "c": np.zeros(3)}
    slots = {"momentum_buffer": {"a": np.zeros(1), "b": np.zeros(3)}}

    with pytest.raises(SpecError) as caught:
        update_parameters(SGD, parameters, gradients, slots, rate=0.5, step=0)

    assert str(caught.value) == (
        "update_parameters: gradients: 1 missing (b). gradients: 1 unexpected (c). "
        "momentum_buffer: a must have shape (2,); got (1,)."
    )


def test_update_refuses_missing_slots():
    parameters = {"a": np.zeros(2)}

    with pytest.raises(SpecError, match="slots must be exp_avg, exp_avg_sq; got none"):
        update_parameters(ADAM, parameters, parameters, {}, rate=0.5, step=0)


# `lr` is read only by decay at the base rate, so its faults are seen there.
FAULTY = {
    "sgd": dataclasses.replace(
        SGD, lr=0.1, l2=5e-4, decoupled_decay=0.02, nesterov=True, decay_scaled_by_lr=False
    ),
    "adam": dataclasses.replace(
        ADAM, lr=0.1, l2=5e-4, decoupled_decay=0.02, epsilon=1e-3, decay_scaled_by_lr=False
    ),
}
FAULT_ROWS = [
    (kind, fault)
    for kind, spec in FAULTY.items()
    for fault, (field, _) in OPTIMIZER_FAULTS.items()
    if hasattr(spec, field)
]


@pytest.mark.parametrize(("kind", "fault"), FAULT_ROWS)
def test_update_check_catches_the_fault(kind, fault):
    expected, _ = run_reference(FAULTY[kind])

    actual, _ = run_reference(seed_spec_fault(fault, FAULTY[kind]))

    with pytest.raises(DivergenceError):
        assert_states_close(actual, expected, atol=1e-13, rtol=1e-13)
