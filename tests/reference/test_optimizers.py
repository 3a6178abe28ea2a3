"""The reference update rules: what each part of an update does, and what is refused."""

import dataclasses

import numpy as np
import pytest

from parity.errors import DivergenceError, SpecError
from parity.reference.optimizers import (
    clip_gradients,
    initial_slots,
    orthogonalize,
    update_average,
    update_parameters,
)
from parity.rng import stream
from parity.spec.optimizers import (
    Ema,
    Group,
    LookaheadEma,
    NormClipping,
    Update,
)
from parity.spec.position import Position
from parity.testing import specs
from parity.testing.assertions import assert_close, assert_identical, assert_states_close
from parity.testing.trajectories import draw_arrays, follow_update
from parity.testing.updates import (
    MUON_TORCH,
)

SHAPES = {"conv.weight": (3, 2, 2, 2), "bn.weight": (4,)}
RATES = (0.5, 0.25, 0.25, 0.125, 0.0625)

SGD = dataclasses.replace(specs.SGD, lr=0.5)
ADAM = dataclasses.replace(specs.ADAM, lr=0.5)


def run_reference(spec, *, rates=RATES, shapes=SHAPES):
    """Return parameters and slots after one step a rate, under a rule or a whole update."""
    update = spec if isinstance(spec, Update) else Update(rule=spec)
    return follow_update(update, shapes, rates=rates)


def test_clipping_forms_of_torch_and_keras_differ_by_their_epsilon():
    forms = [
        run_reference(
            Update(rule=SGD, clipping=NormClipping(kind="global_norm", limit=0.5, epsilon=epsilon))
        )[0]
        for epsilon in (1e-6, 0.0)
    ]

    with pytest.raises(DivergenceError):
        assert_states_close(*forms, atol=1e-9, rtol=0.0)
    assert_states_close(*forms, atol=1e-5, rtol=0.0)


def test_gradients_of_zero_are_clipped_to_zero():
    clipping = NormClipping(kind="global_norm", limit=0.5, epsilon=0.0)

    clipped = clip_gradients(clipping, {"w": np.zeros(3)})

    assert_close(clipped["w"], np.zeros(3), atol=0.0, rtol=0.0)


def test_average_from_the_initial_weights_keeps_its_share_of_them():
    averaging = Ema(decay=0.75, starts_at="initial_weights", includes_buffers=True)

    average, state = update_average(
        averaging, {"w": np.array([4.0])}, {"w": np.array([8.0])}, count=1, progress=0.1
    )

    assert (average["w"][0], state["w"][0]) == (5.0, 8.0)


@pytest.mark.parametrize("shape", [(5, 40), (40, 5), (8, 8)])
def test_orthogonalization_brings_singular_values_near_one(shape):
    matrix = stream(0, "test", "matrix", *shape).standard_normal(shape)

    values = np.linalg.svd(orthogonalize(MUON_TORCH, matrix), compute_uv=False)

    # The published iteration ends between these, not at 1.
    assert 0.5 < values.min() < values.max() < 1.3


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

    actual, _ = update_parameters(
        Update(rule=spec), {"w": [8.0]}, {"w": [1.0]}, {}, rate=0.25, step=0
    )

    # Decay takes 0.5 * 0.5 * 8 = 2 off, the step 0.25 * (1 + 0.5 * 8) = 1.25.
    assert_close(actual["w"], [4.75], atol=0.0, rtol=0.0)


@pytest.mark.parametrize("placement", ["corrected", "uncorrected"])
def test_adam_first_step_is_the_rate_where_epsilon_vanishes(placement):
    spec = dataclasses.replace(ADAM, epsilon=1e-300, epsilon_placement=placement)

    update = Update(rule=spec)

    actual, _ = update_parameters(
        update, {"w": [0.0]}, {"w": [7.0]}, initial_slots(update, {"w": [0.0]}), rate=0.25, step=0
    )

    assert_close(actual["w"], [-0.25], atol=0.0, rtol=1e-14)


def test_update_leaves_what_it_was_given():
    parameters, gradients, slots = (
        draw_arrays("parameters", SHAPES),
        draw_arrays("gradients", SHAPES),
        {},
    )
    update = Update(rule=SGD)
    slots = initial_slots(update, parameters)

    update_parameters(update, parameters, gradients, slots, rate=0.5, step=0)

    assert_states_close(parameters, draw_arrays("parameters", SHAPES), atol=0.0, rtol=0.0)
    assert_states_close(gradients, draw_arrays("gradients", SHAPES), atol=0.0, rtol=0.0)
    assert_states_close(
        slots["momentum_buffer"],
        initial_slots(update, parameters)["momentum_buffer"],
        atol=0.0,
        rtol=0.0,
    )


ENDING = Group(
    members="norm", lr_factor=2.0, decay_factor=1.0, trained_epochs=4.0, schedule="linear_to_end"
)
STARTS, GRADIENTS = (draw_arrays(kind, SHAPES) for kind in ("parameters", "gradients"))


def update_at(update, epoch, *, slots=None):
    """Return parameters and slots after the fourth update."""
    return update_parameters(
        update,
        STARTS,
        GRADIENTS,
        slots or initial_slots(update, STARTS),
        rate=0.25,
        step=3,
        position=Position(epoch=epoch, progress=0.5),
    )


def test_group_that_has_ended_keeps_parameter_and_slots():
    update = Update(rule=dataclasses.replace(SGD, l2=0.5, decoupled_decay=0.5), groups=(ENDING,))

    parameters, slots = update_at(update, 4.0)

    assert_identical(parameters["bn.weight"], STARTS["bn.weight"])
    assert_identical(slots["momentum_buffer"]["bn.weight"], np.zeros(4))
    assert not np.array_equal(parameters["conv.weight"], STARTS["conv.weight"])


def test_gradient_of_a_group_that_has_ended_is_not_clipped_with_the_rest():
    clipping = NormClipping(kind="global_norm", limit=0.5, epsilon=0.0)
    update = Update(
        rule=dataclasses.replace(SGD, momentum=0.0), groups=(ENDING,), clipping=clipping
    )

    actual = update_at(update, 4.0)[0]["conv.weight"]

    gradient = GRADIENTS["conv.weight"]
    expected = STARTS["conv.weight"] - 0.25 * gradient * 0.5 / np.linalg.norm(gradient)
    assert_close(actual, expected, atol=0.0, rtol=1e-14)


@pytest.mark.parametrize(("epoch", "rate"), [(0.0, 1.0), (1.0, 0.75), (3.5, 0.125)])
def test_rate_of_a_group_falls_from_its_base_on_a_line_to_its_end(epoch, rate):
    update = Update(rule=dataclasses.replace(SGD, lr=0.5, momentum=0.0), groups=(ENDING,))

    actual = update_at(update, epoch)[0]["bn.weight"]

    expected = STARTS["bn.weight"] - rate * GRADIENTS["bn.weight"]
    assert_close(actual, expected, atol=0.0, rtol=1e-14)


def test_average_may_move_what_has_ended():
    averaging = LookaheadEma(every=4, decay=0.5, power=0.0)
    update = Update(rule=SGD, groups=(ENDING,), averaging=averaging)
    slots = initial_slots(update, STARTS)
    slots["average"]["bn.weight"] = np.full(4, 3.0)

    actual = update_at(update, 4.0, slots=slots)[0]["bn.weight"]

    assert_close(actual, 0.5 * 3.0 + 0.5 * STARTS["bn.weight"], atol=0.0, rtol=1e-14)


def test_update_refuses_what_does_not_match_and_lists_it_all():
    parameters = {"a": np.zeros(2), "b": np.zeros(3)}
    gradients = {"a": np.zeros(2), "c": np.zeros(3)}
    slots = {"momentum_buffer": {"a": np.zeros(1), "b": np.zeros(3)}}

    with pytest.raises(SpecError) as caught:
        update_parameters(Update(rule=SGD), parameters, gradients, slots, rate=0.5, step=0)

    assert str(caught.value) == (
        "update_parameters: gradients: 1 missing (b). gradients: 1 unexpected (c). "
        "momentum_buffer: a must have shape (2,); got (1,)."
    )


def test_update_refuses_missing_slots():
    parameters = {"a": np.zeros(2)}

    with pytest.raises(SpecError, match="slots must be exp_avg, exp_avg_sq; got none"):
        update_parameters(Update(rule=ADAM), parameters, parameters, {}, rate=0.5, step=0)
