"""Bounds follow the step, the loss, the size of the maps and the control."""

import pytest

from parity.lockstep.bounds import free_bounds, step_bounds


@pytest.mark.parametrize(
    ("loss", "bound"), [(2.0, 5e-13), (1.0, 5e-13), (0.1, 5e-12), (1e-3, 1e-11), (0.0, 1e-11)]
)
def test_gradients_may_lose_digits_as_the_loss_falls(loss, bound):
    found = step_bounds(step=50, loss=loss, kind="sgd", pixels=64)

    assert found.gradients == pytest.approx(bound)


@pytest.mark.parametrize(("step", "bound"), [(1, 3.5e-8), (2, 1.3e-11), (10, 1.3e-11), (11, 5e-13)])
def test_adams_first_updates_have_wider_bounds(step, bound):
    found = step_bounds(step=step, loss=1.0, kind="adam", pixels=64)

    assert found.parameters == bound


def test_sgd_updates_have_one_bound():
    bounds = {step_bounds(step=n, loss=1.0, kind="sgd", pixels=64).parameters for n in (1, 99)}

    assert bounds == {1.5e-13}


def test_large_maps_have_the_bounds_that_were_measured_on_them():
    found = step_bounds(step=1, loss=2.3, kind="sgd", pixels=32 * 32)

    assert (found.gradients, found.slots, found.parameters) == (4e-11, 4e-11, 4e-11)
    assert (found.running_statistics, found.loss) == (4e-12, pytest.approx(4.6e-13))


CONTROL = {
    "loss": 1e-12,
    "running mean": 1e-9,
    "running variance": 1e-20,
    "slots": 1.0,
    "parameters": 2e-12,
}


def test_free_running_nets_have_fixed_bounds_as_far_as_was_measured():
    found = free_bounds(step=200, pixels=64, control=CONTROL)

    assert found["parameters"] == 1e-11
    assert found["running mean"] == 1e-10


def test_later_the_control_sets_the_bound_until_it_has_a_kink_of_its_own():
    found = free_bounds(step=201, pixels=64, control=CONTROL)

    assert found["parameters"] == pytest.approx(6e-11)
    assert found["running mean"] == pytest.approx(3e-8)
    assert found["running variance"] == 1e-10
    assert found["slots"] == pytest.approx(3e-5)
