"""How large a difference rounding alone makes, at each point of a reference.

Calibration runs the reference in float32 against itself in float64, stretch by stretch from the
same values: as it is, in the other memory format where it has one, and with every value moved by
one unit in the last place. The largest error at a point, in units of float32's, is what this
computation makes of a rounding; in another precision the unit is that precision's.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from parity.frameworks.program import Array, Program, Run, ValueId, is_float
from parity.rng import stream

# No point is judged finer than so many units: the last bits of a right port differ by its order of
# operations.
LEAST_UNITS = 4.0


@runtime_checkable
class HasFormats(Protocol):
    """A program whose framework knows a second order of images in memory."""

    def channels_last(self) -> Program:
        """Return the same program in that order."""


def calibrated_runs(
    reference: Program,
    inputs: Sequence[Array],
    exact: Run,
    *,
    points: Sequence[ValueId],
    training: bool,
    uniforms: Mapping[str, Array],
    cotangents: Mapping[ValueId, Array] | None,
) -> list[Run]:
    """Return the reference's float32 runs, each stretch from the values of the exact run.

    Args:
        reference: Of float32.
        inputs: Of the model.
        exact: Its float64 run, with every point kept.
        points: Values to start stretches from.
        training: See `Program.run`.
        uniforms: See `Program.run`.
        cotangents: Of the exact run, by value.
    """
    programs = [reference]
    if isinstance(reference, HasFormats):
        programs.append(reference.channels_last())
    starts = {value: exact.values[value] for value in points if is_float(exact.values[value])}
    single = {value: array.astype(np.float32) for value, array in starts.items()}
    moved = {value: _moved_by_one_unit(array, value) for value, array in single.items()}
    runs = [(program, single) for program in programs] + [(reference, moved)]
    return [
        program.run(
            inputs,
            training=training,
            keep=points,
            replaced=replaced,
            uniforms=uniforms,
            cotangents=cotangents,
        )
        for program, replaced in runs
    ]


def _moved_by_one_unit(array: Array, value: ValueId) -> Array:
    up = stream(value, "one unit").integers(0, 2, array.shape).astype(bool)
    moved: Array = np.nextafter(array, np.where(up, np.inf, -np.inf).astype(array.dtype))
    return moved


def units(exact: Array, runs: Sequence[Array], *, scale: float) -> float:
    """Return the largest error of float32 runs, over the scale, in units of float32."""
    if scale == 0.0:
        return LEAST_UNITS
    worst = max(
        (float(np.max(np.abs(run - exact), initial=0.0)) / scale for run in runs), default=0.0
    )
    return max(worst / float(np.finfo(np.float32).eps), LEAST_UNITS)
