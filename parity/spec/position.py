"""`Position`: how far a training is at a step, for whatever changes with time but the rate."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Position:
    """Where in a training a step is.

    Attributes:
        epoch: Epochs made before the step, whole or not: steps made over steps of an epoch.
        progress: Share of the training's steps that are made, this one included.
    """

    epoch: float
    progress: float


# Of a step that belongs to no training.
START = Position(epoch=0.0, progress=0.0)


def position_at(step: int, *, steps_per_epoch: int, steps: int) -> Position:
    """Return the position of the 0-based `step` of a training of `steps`.

    >>> position_at(3, steps_per_epoch=2, steps=8)
    Position(epoch=1.5, progress=0.5)
    """
    return Position(epoch=step / steps_per_epoch, progress=(step + 1) / steps)
