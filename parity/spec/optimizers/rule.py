"""What every update rule's spec has: a rate, decays, and the checks of its values."""

from dataclasses import dataclass

from parity.errors import SpecError


@dataclass(frozen=True, kw_only=True)
class Rule:
    """The fields that all update rules share; none has a default.

    Attributes:
        kind: Name of the rule.
        lr: Base learning rate; the schedule multiplies it.
        l2: Coupled penalty, added to the gradient as `l2 * parameter`.
        l2_in_loss: Whether the penalty is a term of the loss, `l2 / 2 * sum(parameter^2)`, whose
            gradient is clipped with the rest (Keras's regularizers); otherwise the optimizer adds
            it to the clipped gradient, and the loss does not show it (torch).
        decoupled_decay: Fraction taken off the parameter beside the gradient step.
        decay_scaled_by_lr: Whether the current rate multiplies `decoupled_decay`; otherwise the
            base rate does.
    """

    kind: str
    lr: float
    l2: float
    l2_in_loss: bool
    decoupled_decay: float
    decay_scaled_by_lr: bool

    def __post_init__(self) -> None:
        if problems := self.problems():
            message = "optimizer: " + " ".join(problems)
            raise SpecError(message)

    def problems(self) -> list[str]:
        """Return what is wrong with the values."""
        return self.not_positive("lr", "l2", "decoupled_decay", zero=True)

    def initial_slots(self) -> dict[str, float]:
        """Return the arrays kept per parameter, by PyTorch's name, with the value they start at."""
        return {}

    def normalizes(self) -> bool:
        """Return whether steps hardly depend on the size of the gradient.

        Such a rule makes steps of full size of a gradient that is pure rounding.
        """
        return True

    def not_positive(self, *fields: str, zero: bool = False) -> list[str]:
        """Return a problem for each field that is negative, not finite, or zero without leave."""
        sign = ">=" if zero else ">"
        return [
            f"{field} must be {sign} 0 and finite; got {value!r}."
            for field in fields
            if not (0.0 <= (value := getattr(self, field)) < float("inf") and (zero or value > 0.0))
        ]

    def outside_unit(self, *fields: str) -> list[str]:
        """Return a problem for each field outside [0, 1)."""
        return [
            f"{field} must be in [0, 1); got {getattr(self, field)!r}."
            for field in fields
            if not 0.0 <= getattr(self, field) < 1.0
        ]

    def not_among(self, field: str, *choices: str) -> list[str]:
        """Return a problem if a field is none of the choices."""
        value = getattr(self, field)
        if value in choices:
            return []
        listed = ", ".join(map(repr, choices[:-1])) + f" or {choices[-1]!r}"
        return [f"{field} must be {listed}; got {value!r}."]


def decay_rate(spec: Rule, *, rate: float) -> float:
    """Return the fraction that decoupled decay takes off each parameter at a step of rate `rate`.

    >>> scaled = Rule(kind="any", lr=0.1, l2=0.0, l2_in_loss=False, decoupled_decay=0.5,
    ...               decay_scaled_by_lr=True)
    >>> unscaled = Rule(kind="any", lr=0.1, l2=0.0, l2_in_loss=False, decoupled_decay=0.5,
    ...                 decay_scaled_by_lr=False)
    >>> decay_rate(scaled, rate=0.01), decay_rate(unscaled, rate=0.01)
    (0.005, 0.05)
    """
    return spec.decoupled_decay * (rate if spec.decay_scaled_by_lr else spec.lr)
