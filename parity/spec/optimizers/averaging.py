"""Averages of the weights, kept beside them after each update, and which of the two is scored."""

from dataclasses import dataclass
from typing import Literal

from parity.errors import SpecError

Start = Literal["initial_weights", "first_move"]

# What an average is called among an optimizer's arrays.
AVERAGE = "average"


def _require(problems: list[str]) -> None:
    if problems:
        message = "averaging: " + " ".join(problems)
        raise SpecError(message)


def _wrong_start(starts_at: str) -> list[str]:
    if starts_at in ("initial_weights", "first_move"):
        return []
    return [f"starts_at must be 'initial_weights' or 'first_move'; got {starts_at!r}."]


def _wrong_period(every: int) -> list[str]:
    return [] if every >= 1 else [f"every must be >= 1; got {every!r}."]


@dataclass(frozen=True, kw_only=True)
class NoAveraging:
    """The weights are all there is."""

    kind: Literal["none"] = "none"

    def holds_buffers(self) -> bool:
        """Return whether buffers are averaged, too."""
        return False

    def is_scored(self) -> bool:
        """Return whether the average is what is evaluated and saved."""
        return False


@dataclass(frozen=True, kw_only=True)
class Ema:
    """Exponential moving average, which is what is evaluated: `a <- decay a + (1 - decay) p`.

    Attributes:
        decay: Weight kept of the old average.
        starts_at: `initial_weights` (timm), or `first_move`, the first update, whose weights it
            copies (Keras).
        includes_buffers: Whether running statistics are averaged (timm), or evaluated as they are
            (Keras).
    """

    kind: Literal["ema"] = "ema"
    decay: float
    starts_at: Start
    includes_buffers: bool

    def __post_init__(self) -> None:
        problems = []
        if not 0.0 <= self.decay < 1.0:
            problems.append(f"decay must be in [0, 1); got {self.decay!r}.")
        problems += _wrong_start(self.starts_at)
        _require(problems)

    def holds_buffers(self) -> bool:
        """See `NoAveraging.holds_buffers`."""
        return self.includes_buffers

    def is_scored(self) -> bool:
        """See `NoAveraging.is_scored`."""
        return True


@dataclass(frozen=True, kw_only=True)
class Lookahead:
    """Lookahead (Zhang et al. 2019): every few steps slow weights move towards the fast ones.

    `slow <- slow + slow_rate (fast - slow)`, then `fast <- slow`. The optimizer's arrays stay.

    Attributes:
        every: Steps between two moves.
        slow_rate: Share of the way.
        starts_at: What the slow weights start as: the `initial_weights` (the paper), or the fast
            ones of the `first_move`, which then changes nothing (timm).
        scores_slow: Whether the slow weights are evaluated (the paper), or the fast ones.
    """

    kind: Literal["lookahead"] = "lookahead"
    every: int
    slow_rate: float
    starts_at: Start
    scores_slow: bool

    def __post_init__(self) -> None:
        problems = _wrong_period(self.every)
        if not 0.0 < self.slow_rate <= 1.0:
            problems.append(f"slow_rate must be in (0, 1]; got {self.slow_rate!r}.")
        problems += _wrong_start(self.starts_at)
        _require(problems)

    def holds_buffers(self) -> bool:
        """See `NoAveraging.holds_buffers`."""
        return False

    def is_scored(self) -> bool:
        """See `NoAveraging.is_scored`."""
        return self.scores_slow


@dataclass(frozen=True, kw_only=True)
class LookaheadEma:
    """airbench's Lookahead: every few steps the whole float state becomes its own moving average.

    `a <- d a + (1 - d) p`, then `p <- a`, buffers included, with `d = decay * t^power` at the share
    `t` of the training that is done; after its last step `p <- a` once more.

    Attributes:
        every: Steps between two averages.
        decay: Weight of the old average at the end of training.
        power: How slowly it gets there.
    """

    kind: Literal["lookahead_ema"] = "lookahead_ema"
    every: int
    decay: float
    power: float

    def __post_init__(self) -> None:
        problems = _wrong_period(self.every)
        if not 0.0 <= self.decay < 1.0:
            problems.append(f"decay must be in [0, 1); got {self.decay!r}.")
        if not 0.0 <= self.power < float("inf"):
            problems.append(f"power must be >= 0 and finite; got {self.power!r}.")
        _require(problems)

    def holds_buffers(self) -> bool:
        """See `NoAveraging.holds_buffers`."""
        return True

    def is_scored(self) -> bool:
        """See `NoAveraging.is_scored`."""
        return False


AveragingSpec = NoAveraging | Ema | Lookahead | LookaheadEma
AVERAGINGS: dict[str, type[NoAveraging] | type[Ema] | type[Lookahead] | type[LookaheadEma]] = {
    "none": NoAveraging,
    "ema": Ema,
    "lookahead": Lookahead,
    "lookahead_ema": LookaheadEma,
}


@dataclass(frozen=True, kw_only=True)
class AverageMove:
    """What an average does after one update.

    Attributes:
        keep: Weight kept of the old average; 1 leaves it, 0 copies the weights.
        writes_back: Whether the weights then become the average.
    """

    keep: float
    writes_back: bool


STAY = AverageMove(keep=1.0, writes_back=False)


def average_move(spec: AveragingSpec, *, count: int, progress: float) -> AverageMove:
    """Return what the average does after update `count`, counted from 1.

    Args:
        spec: The average.
        count: Updates made, this one included.
        progress: Share of the whole training's updates that are made, this one included.

    >>> lookahead = Lookahead(
    ...     every=5, slow_rate=0.75, starts_at="initial_weights", scores_slow=True
    ... )
    >>> average_move(lookahead, count=10, progress=0.5)
    AverageMove(keep=0.25, writes_back=True)
    """
    match spec:
        case Ema(decay=decay, starts_at=starts_at):
            copies = starts_at == "first_move" and count == 1
            return AverageMove(keep=0.0 if copies else decay, writes_back=False)
        case Lookahead(every=every, slow_rate=slow_rate, starts_at=starts_at):
            if count % every:
                return STAY
            copies = starts_at == "first_move" and count == every
            return AverageMove(keep=0.0 if copies else 1.0 - slow_rate, writes_back=True)
        case LookaheadEma(every=every, decay=decay, power=power):
            if count % every == 0:
                return AverageMove(keep=decay * progress**power, writes_back=True)
            return AverageMove(keep=1.0, writes_back=progress >= 1.0)
    return STAY
