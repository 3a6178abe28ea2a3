"""ReLU kinks: units whose sign rounding has turned, where trajectories of right twins part."""

from collections.abc import Sequence
from dataclasses import dataclass

from parity.compare.gaps import largest
from parity.frameworks.net import Batch, Net
from parity.lockstep.steps import Snapshot, take_snapshot

# A unit that rounding has turned is tiny on both sides; one that a fault has turned need not be.
NEAR_ZERO = 1e-6


@dataclass(frozen=True, kw_only=True)
class MaskFlips:
    """Units of one layer that are active on one side only.

    Attributes:
        path: Layer path of the ReLU.
        flipped: Count of them.
        units: Units of the layer over the batch.
        magnitude: Their largest output, relative to the layer's largest.
    """

    path: str
    flipped: int
    units: int
    magnitude: float


def count_mask_flips(
    nets: Sequence[Net], snapshots: Sequence[Snapshot], batch: Batch
) -> tuple[MaskFlips, ...]:
    """Return the ReLU layers whose masks differ between two nets in training mode.

    Each net runs from its own snapshot, and both are left as they were.
    """
    traces = []
    for net, snapshot in zip(nets, snapshots, strict=True):
        present = take_snapshot(net)
        net.load_state(snapshot.state)
        traces.append(net.trace(batch.images, training=True, masks=batch.masks))
        net.load_state(present.state)
    flips = []
    for path in traces[0]:
        if not path.rpartition(".")[2].startswith("relu"):
            continue
        left, right = traces[0][path], traces[1][path]
        turned = (left > 0) != (right > 0)
        if turned.any():
            magnitude = max(largest(left[turned]), largest(right[turned])) / largest(left)
            flips.append(
                MaskFlips(
                    path=path, flipped=int(turned.sum()), units=turned.size, magnitude=magnitude
                )
            )
    return tuple(flips)


def describe_flips(flips: Sequence[MaskFlips], *, step: int) -> str | None:
    """Return the sentence that names a kink, or None if no unit turned or one far from zero did."""
    if not flips or max(flip.magnitude for flip in flips) > NEAR_ZERO:
        return None
    turned, units = sum(flip.flipped for flip in flips), sum(flip.units for flip in flips)
    first = flips[0]
    return (
        f"ReLU kink at step {step}: {turned} of {units:,} units in {len(flips)} layers are active "
        f"on one side only, first in {first.path} (outputs up to {first.magnitude:.1g} of the "
        "layer's largest); from here the trajectories part, as a right twin's do."
    )
