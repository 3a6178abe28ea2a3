"""Bounds on the gaps of one resynced float64 step.

Measured on twins built by hand (torch 2.13.0 against Keras 3.15.1 on tensorflow 2.21.0, jax 0.10.2
and torch; ResNet-20 on digits, SGD and Adam, 100 to 200 steps), as the worst gap of a right twin
times about ten. The nearest wrong twin that was tried (a learning rate off by 1e-9, an epsilon off
by 1e-8, momentum rounded to float32) lies a hundred times above or more. Larger maps sum more
values in each batch statistic, so they have bounds of their own.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from parity.spec.optimizers import Muon, OptimizerSpec

# Sides of the maps that the small bounds were measured on; the large ones were measured at 32x32.
SMALL_MAP_PIXELS = 8 * 8

# On large maps gradients carry this much more rounding; for what was measured on small maps only.
LARGE_MAP_FACTOR = 80.0

# Layer outputs in float64, relative to the largest of each layer: worst seen 3.3e-13 on right twins
# of ResNet-18 at 32x32, 8e-13 on a bottleneck net that ends in single pixels; a stride offset moves
# them by 6e-2.
FORWARD = 1e-11

# Updates computed from a net's own gradients by the float64 update rule: worst seen 4.2e-16. Rules
# that divide by the gradient's size amplify the rounding of small differences: Adam with a coupled
# penalty that cancels the gradient 5.8e-15, Muon's iteration 8.1e-15.
UPDATE_RULE = 5e-15
NORMALIZED_UPDATE_RULE = 5e-14

# Free-running nets were measured over this many steps. Right twins drifted up to 7.4 times as far
# as the control; a control that is further off than the last has had a ReLU kink of its own.
FREE_MEASURED_STEPS = 200
CONTROL_FACTOR = 30.0
CONTROL_KINKED = 1e-6


@dataclass(frozen=True, kw_only=True)
class StepBounds:
    """Bounds of one step; each is relative to the scale its gap is measured on."""

    loss: float
    gradients: float
    running_statistics: float
    slots: float
    parameters: float


def rule_bound(rule: OptimizerSpec) -> float:
    """Return the bound on a net's update from the float64 rule on its own gradients."""
    return NORMALIZED_UPDATE_RULE if rule.normalizes() else UPDATE_RULE


def describe_unbounded(rule: OptimizerSpec) -> str | None:
    """Return why no bound separates right twins of this rule from wrong ones, or None."""
    if isinstance(rule, Muon) and rule.orthogonalizes_in == "bfloat16":
        # Relative to a layer's largest step: torch and Keras were up to 0.16 apart over four
        # shapes, and from float64 torch up to 0.07, Keras up to 0.13.
        return (
            "Muon orthogonalizes in bfloat16, where each framework sums in an order of its own: "
            "the steps of right twins are a tenth of their size apart. Compare the rule with "
            "--set optimizer.orthogonalizes_in=own."
        )
    return None


def step_bounds(*, step: int, loss: float, kind: str, pixels: int) -> StepBounds:
    """Return the bounds of a 1-based step.

    Args:
        step: Count of this step from 1; Adam's first steps divide by second moments that are hardly
            more than rounding.
        loss: The reference's loss: as it falls, softmax minus target cancels and gradients lose
            digits.
        kind: Of the update rule.
        pixels: Height times width of the input.
    """
    is_small = pixels <= SMALL_MAP_PIXELS
    gradients = min(5e-13 / min(1.0, loss), 1e-11) if loss > 0.0 else 1e-11
    slots = 5e-13 if is_small else 4e-11
    updates = _update_bound(step, kind, is_small=is_small)
    return StepBounds(
        loss=(2e-14 if is_small else 2e-13) * max(1.0, loss),
        gradients=gradients if is_small else max(gradients, 4e-11),
        running_statistics=1e-13 if is_small else 4e-12,
        # RMSprop's velocity is made of steps, not of gradients.
        slots=max(slots, updates) if kind == "rmsprop" else slots,
        parameters=updates,
    )


def _update_bound(step: int, kind: str, *, is_small: bool) -> float:
    if kind == "sgd":
        return 1.5e-13 if is_small else 4e-11
    later = 1.3e-11 if step <= 10 else 5e-13
    bound = 3.5e-8 if step == 1 else later
    return bound if is_small else bound * LARGE_MAP_FACTOR


def free_bounds(*, step: int, pixels: int, control: Mapping[str, float]) -> dict[str, float]:
    """Return bounds on what two free-running float64 nets may have drifted apart, by quantity.

    Within 200 steps of ResNet-20 on digits, parameters were apart by 5.1e-12, running statistics by
    8.1e-12 and slots by 1.4e-10, where a small loss leaves gradients few digits; one unit in the
    last place moves the reference itself as far. A loss differs as its parameters do. Later than
    was measured, the control sets the bound.

    Args:
        step: Count of this step from 1.
        pixels: Height times width of the input.
        control: Largest gap so far of the reference against itself, every weight moved by one unit
            in the last place.
    """
    factor = 1.0 if pixels <= SMALL_MAP_PIXELS else LARGE_MAP_FACTOR
    measured = {
        "loss": 1e-9 * factor,
        "running mean": 1e-10 * factor,
        "running variance": 1e-10 * factor,
        "slots": 1.5e-9 * factor,
        "parameters": 1e-11 * factor,
    }
    if step <= FREE_MEASURED_STEPS:
        return measured
    return {
        quantity: max(bound, CONTROL_FACTOR * min(control[quantity], CONTROL_KINKED))
        for quantity, bound in measured.items()
    }
