"""Small trajectories under an update, from drawn parameters and gradients.

Imports numpy, `parity.reference`, `parity.rng` and `parity.spec` only.
"""

from collections.abc import Mapping, Sequence

from parity.reference.optimizers import initial_slots, update_parameters
from parity.reference.optimizers.types import Arrays, Slots
from parity.rng import stream
from parity.spec.optimizers import Update
from parity.spec.position import position_at

Shapes = Mapping[str, tuple[int, ...]]


def draw_arrays(purpose: str, shapes: Shapes, *, step: int = 0) -> Arrays:
    """Return one normal array of each name, the same at every call."""
    return {
        name: stream(0, "trajectory", purpose, name, step).standard_normal(shape)
        for name, shape in shapes.items()
    }


def follow_update(
    update: Update, shapes: Shapes, *, rates: Sequence[float]
) -> tuple[Arrays, Slots]:
    """Return the reference's parameters and slots after one update for each rate.

    They start at `draw_arrays("parameters", shapes)`; the gradients of a step are
    `draw_arrays("gradients", shapes, step=step)`.
    """
    parameters = draw_arrays("parameters", shapes)
    slots = initial_slots(update, parameters)
    for step, rate in enumerate(rates):
        parameters, slots = update_parameters(
            update,
            parameters,
            draw_arrays("gradients", shapes, step=step),
            slots,
            rate=rate,
            step=step,
            position=position_at(step, steps_per_epoch=len(rates), steps=len(rates)),
        )
    return parameters, slots
