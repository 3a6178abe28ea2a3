"""The reference update rules against those that torch and Keras ship, over changing rates."""

import dataclasses
import importlib

import pytest
import torch

from parity import runtime
from parity.errors import DivergenceError
from parity.spec.optimizers import (
    AVERAGE,
    Adadelta,
    Adagrad,
    Ema,
    NormClipping,
    Rmsprop,
    Update,
    ValueClipping,
)
from parity.testing import specs
from parity.testing.assertions import assert_states_close
from parity.testing.trajectories import draw_arrays, follow_update
from parity.testing.updates import (
    LAMB_KERAS,
    MUON_KERAS,
    MUON_TORCH,
)

SHAPES = {"conv.weight": (3, 2, 2, 2), "bn.weight": (4,)}
MATRICES = {"wide.weight": (3, 4), "tall.weight": (16, 4)}
RATES = (0.5, 0.25, 0.25, 0.125, 0.0625)

SGD = dataclasses.replace(specs.SGD, lr=0.5)
ADAM = dataclasses.replace(specs.ADAM, lr=0.5)
# Keras passes hyper-parameters through float32 on tensorflow: these values survive it.
EXACT_SGD = dataclasses.replace(SGD, momentum=0.875, velocity_holds_lr=True)
EXACT_ADAM = dataclasses.replace(
    ADAM, beta1=0.75, beta2=0.9375, epsilon=2.0**-10, epsilon_placement="uncorrected"
)
PLAIN = {"l2": 0.0, "l2_in_loss": False, "decoupled_decay": 0.0, "decay_scaled_by_lr": True}
# At the values that torch.optim ships.
TORCH_RMSPROP = Rmsprop(
    lr=0.01,
    square_decay=0.99,
    momentum=0.0,
    centered=False,
    epsilon=1e-8,
    epsilon_placement="outside",
    velocity_holds_lr=False,
    **PLAIN,
)
TORCH_ADAGRAD = Adagrad(
    lr=0.01,
    initial_accumulator=0.0,
    rate_decay=0.0,
    epsilon=1e-10,
    epsilon_placement="outside",
    **PLAIN,
)
TORCH_ADADELTA = Adadelta(lr=1.0, square_decay=0.9, epsilon=1e-6, **PLAIN)
EXACT_RMSPROP = dataclasses.replace(
    TORCH_RMSPROP,
    square_decay=0.875,
    epsilon=2.0**-10,
    epsilon_placement="inside",
    velocity_holds_lr=True,
)


def run_reference(spec, *, rates=RATES, shapes=SHAPES):
    """Return parameters and slots after one step a rate, under a rule or a whole update."""
    update = spec if isinstance(spec, Update) else Update(rule=spec)
    return follow_update(update, shapes, rates=rates)


def run_torch(build, *, before_step=lambda _tensors: None, shapes=SHAPES):
    tensors = {
        name: torch.nn.Parameter(torch.tensor(value))
        for name, value in draw_arrays("parameters", shapes).items()
    }
    optimizer = build(list(tensors.values()))
    for step, rate in enumerate(RATES):
        optimizer.param_groups[0]["lr"] = rate
        for name, gradient in draw_arrays("gradients", shapes, step=step).items():
            tensors[name].grad = torch.tensor(gradient)
        before_step(tensors.values())
        optimizer.step()
    names = set().union(*optimizer.state.values()) - {"step"}
    slots = {
        slot: {name: optimizer.state[tensor][slot].numpy() for name, tensor in tensors.items()}
        for slot in names
        if torch.is_tensor(next(iter(optimizer.state.values()))[slot])
    }
    return {name: tensor.detach().numpy() for name, tensor in tensors.items()}, slots


def run_keras(build, *, shapes=SHAPES, averages=False):
    runtime.select_keras_backend(None)
    importlib.import_module("keras")  # the context sets what is loaded
    with runtime.precision("float64"):
        return run_keras_in_float64(build, shapes=shapes, averages=averages)


def run_keras_in_float64(build, *, shapes, averages):
    import keras

    variables = {
        name: keras.Variable(value, dtype="float64", name=name.replace(".", "-"))
        for name, value in draw_arrays("parameters", shapes).items()
    }
    optimizer = build(keras.optimizers)
    optimizer.build(list(variables.values()))
    for step, rate in enumerate(RATES):
        optimizer.learning_rate.assign(rate)
        gradients = draw_arrays("gradients", shapes, step=step)
        optimizer.apply(
            [keras.ops.convert_to_tensor(gradients[name], dtype="float64") for name in variables]
        )
    held = variables.values()
    if averages:
        held = optimizer._model_variables_moving_average  # keras shows it nowhere else
    return {
        name: keras.ops.convert_to_numpy(variable.value)
        for name, variable in zip(variables, held, strict=True)
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
    "sgd-dampening": (
        dataclasses.replace(SGD, l2=5e-4, dampening=0.3),
        lambda p: torch.optim.SGD(p, lr=0.5, momentum=0.9, weight_decay=5e-4, dampening=0.3),
    ),
    "amsgrad": (
        dataclasses.replace(ADAM, amsgrad=True),
        lambda p: torch.optim.Adam(p, lr=0.5, amsgrad=True),
    ),
    "rmsprop": (TORCH_RMSPROP, torch.optim.RMSprop),
    "rmsprop-momentum-l2": (
        dataclasses.replace(TORCH_RMSPROP, momentum=0.9, l2=5e-4),
        lambda p: torch.optim.RMSprop(p, momentum=0.9, weight_decay=5e-4),
    ),
    "rmsprop-centered": (
        dataclasses.replace(TORCH_RMSPROP, momentum=0.9, centered=True),
        lambda p: torch.optim.RMSprop(p, momentum=0.9, centered=True),
    ),
    "adagrad": (TORCH_ADAGRAD, torch.optim.Adagrad),
    "adagrad-rate-decay": (
        dataclasses.replace(TORCH_ADAGRAD, rate_decay=0.1, initial_accumulator=0.2, l2=5e-4),
        lambda p: torch.optim.Adagrad(
            p, lr_decay=0.1, initial_accumulator_value=0.2, weight_decay=5e-4
        ),
    ),
    "adadelta": (TORCH_ADADELTA, torch.optim.Adadelta),
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
    "amsgrad": (
        dataclasses.replace(EXACT_ADAM, amsgrad=True),
        lambda o: o.Adam(0.5, beta_1=0.75, beta_2=0.9375, epsilon=2.0**-10, amsgrad=True),
    ),
    "rmsprop": (
        EXACT_RMSPROP,
        lambda o: o.RMSprop(0.5, rho=0.875, epsilon=2.0**-10),
    ),
    "rmsprop-momentum-centered-decay": (
        dataclasses.replace(EXACT_RMSPROP, momentum=0.75, centered=True, decoupled_decay=0.125),
        lambda o: o.RMSprop(
            0.5, rho=0.875, epsilon=2.0**-10, momentum=0.75, centered=True, weight_decay=0.125
        ),
    ),
    "adagrad": (
        dataclasses.replace(
            TORCH_ADAGRAD,
            initial_accumulator=0.125,
            epsilon=2.0**-10,
            epsilon_placement="inside",
        ),
        lambda o: o.Adagrad(0.5, initial_accumulator_value=0.125, epsilon=2.0**-10),
    ),
    "adadelta": (
        dataclasses.replace(TORCH_ADADELTA, square_decay=0.875, epsilon=2.0**-10),
        lambda o: o.Adadelta(0.5, rho=0.875, epsilon=2.0**-10),
    ),
    "lamb": (
        dataclasses.replace(
            LAMB_KERAS, beta1=0.75, beta2=0.9375, epsilon=2.0**-10, decoupled_decay=0.125
        ),
        lambda o: o.Lamb(0.5, beta_1=0.75, beta_2=0.9375, epsilon=2.0**-10, weight_decay=0.125),
    ),
}
# Keras's arguments -> our clipping; a norm of these gradients is about 5, an element about 1.


KERAS_CLIPPING = {
    "global_clipnorm": NormClipping(kind="global_norm", limit=0.5, epsilon=0.0),
    "clipnorm": NormClipping(kind="tensor_norm", limit=0.5, epsilon=0.0),
    "clipvalue": ValueClipping(limit=0.5),
}


@pytest.mark.parametrize("row", TORCH_ROWS)
def test_update_matches_torch_over_changing_rates(row):
    spec, build = TORCH_ROWS[row]
    expected, expected_slots = run_torch(build)

    actual, slots = run_reference(spec)

    assert_states_close(actual, expected, atol=1e-13, rtol=1e-13)
    for slot in spec.initial_slots():
        assert_states_close(slots[slot], expected_slots[slot], atol=1e-13, rtol=1e-13, where=slot)


@pytest.mark.parametrize("row", KERAS_ROWS)
def test_update_matches_keras_over_changing_rates(row):
    spec, build = KERAS_ROWS[row]

    actual, _ = run_reference(spec)

    assert_states_close(actual, run_keras(build), atol=1e-13, rtol=1e-13)


@pytest.mark.parametrize(
    ("clipping", "clip"),
    [
        (
            NormClipping(kind="global_norm", limit=0.5, epsilon=1e-6),
            lambda tensors: torch.nn.utils.clip_grad_norm_(tensors, 0.5),
        ),
        (ValueClipping(limit=0.5), lambda tensors: torch.nn.utils.clip_grad_value_(tensors, 0.5)),
    ],
    ids=["norm", "value"],
)
def test_clipping_matches_torch(clipping, clip):
    expected, _ = run_torch(lambda p: torch.optim.SGD(p, lr=0.5, momentum=0.9), before_step=clip)

    actual, _ = run_reference(Update(rule=SGD, clipping=clipping))

    assert_states_close(actual, expected, atol=1e-14, rtol=1e-13)


@pytest.mark.parametrize("argument", KERAS_CLIPPING)
def test_clipping_matches_keras(argument):
    expected = run_keras(lambda o: o.SGD(0.5, **{argument: 0.5}))

    update = Update(rule=dataclasses.replace(SGD, momentum=0.0), clipping=KERAS_CLIPPING[argument])

    assert_states_close(run_reference(update)[0], expected, atol=1e-14, rtol=1e-13)


def test_average_matches_keras():
    expected = run_keras(lambda o: o.SGD(0.5, use_ema=True, ema_momentum=0.75), averages=True)

    update = Update(
        rule=dataclasses.replace(SGD, momentum=0.0),
        averaging=Ema(decay=0.75, starts_at="first_move", includes_buffers=False),
    )

    assert_states_close(run_reference(update)[1][AVERAGE], expected, atol=1e-14, rtol=1e-13)


# Products of matrices rounded to 8 bits, and 3.4 times as far with each of 5 iterations.
BFLOAT16 = 0.05


def test_muon_matches_torch_to_the_rounding_of_bfloat16():
    expected, slots = run_torch(
        lambda p: torch.optim.Muon(p, lr=0.5, weight_decay=0.1), shapes=MATRICES
    )

    rule = dataclasses.replace(MUON_TORCH, orthogonalizes_in="bfloat16")
    actual, own_slots = run_reference(rule, shapes=MATRICES)

    assert_states_close(actual, expected, atol=BFLOAT16, rtol=0.0)
    assert_states_close(
        own_slots["momentum_buffer"], slots["momentum_buffer"], atol=1e-13, rtol=1e-13
    )


def test_muon_in_bfloat16_is_not_muon_in_float64():
    own, rounded = (
        run_reference(
            dataclasses.replace(MUON_TORCH, orthogonalizes_in=precision), shapes=MATRICES
        )[0]
        for precision in ("own", "bfloat16")
    )

    with pytest.raises(DivergenceError):
        assert_states_close(rounded, own, atol=1e-3, rtol=0.0)
    assert_states_close(rounded, own, atol=BFLOAT16, rtol=0.0)


def test_muon_matches_keras():
    expected = run_keras(
        lambda o: o.Muon(0.5, weight_decay=0.125, momentum=0.875, rms_rate=0.25), shapes=MATRICES
    )

    rule = dataclasses.replace(MUON_KERAS, momentum=0.875, decoupled_decay=0.125, rms_rate=0.25)

    # Keras takes the root of the larger side in float32; of these sides it is exact.
    assert_states_close(run_reference(rule, shapes=MATRICES)[0], expected, atol=1e-12, rtol=1e-12)
