"""What the two ways of running a lockstep, resynced and free, leave beside their findings."""

from dataclasses import dataclass

from parity.lockstep.steps import Snapshot


@dataclass(frozen=True, kw_only=True)
class Course:
    """A pair that has been trained to the last step.

    Attributes:
        digest: Digest of the stream up to the last batch.
        notes: Sentences for the reader.
        start: 0-based step from which the comparison's power can be measured.
        before: The reference's state before that step.
        has_kink: Whether the trajectories parted at a ReLU kink.
    """

    digest: str
    notes: tuple[str, ...]
    start: int
    before: Snapshot
    has_kink: bool = False
