"""Averages of the weights in float64."""

from parity.reference.optimizers.types import Arrays
from parity.spec.optimizers import AveragingSpec, average_move


def update_average(
    spec: AveragingSpec, average: Arrays, state: Arrays, *, count: int, progress: float
) -> tuple[Arrays, Arrays]:
    """Return `(average, state)` after update `count` has made `state`.

    Arrays of the state that have no average stay as they are.

    Args:
        spec: What is averaged, and how.
        average: Name -> array before; before the first update the initial state.
        state: Name -> array after the update.
        count: Updates made, this one included.
        progress: Share of the whole training's updates that are made, this one included.
    """
    move = average_move(spec, count=count, progress=progress)
    moved = {
        name: move.keep * array + (1.0 - move.keep) * state[name] for name, array in average.items()
    }
    return moved, {**state, **moved} if move.writes_back else dict(state)
