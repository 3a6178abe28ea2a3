"""`Update`: everything between a batch's gradients and the next weights."""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from parity.spec.optimizers.accumulators import Adadelta, Adagrad, Rmsprop
from parity.spec.optimizers.averaging import AVERAGINGS, AveragingSpec, NoAveraging
from parity.spec.optimizers.clipping import CLIPPINGS, ClippingSpec, NoClipping
from parity.spec.optimizers.groups import Group, GroupSchedule, rate_to_end
from parity.spec.optimizers.kilostep import SgdKilostep
from parity.spec.optimizers.moments import AdaBound, Adam, Lamb
from parity.spec.optimizers.momentum import Lars, Muon, Sgd

OptimizerSpec = Sgd | Lars | Muon | Adam | AdaBound | Lamb | Rmsprop | Adagrad | Adadelta
OPTIMIZERS: dict[str, Any] = {
    "sgd": Sgd,
    "lars": Lars,
    "muon": Muon,
    "adam": Adam,
    "adabound": AdaBound,
    "lamb": Lamb,
    "rmsprop": Rmsprop,
    "adagrad": Adagrad,
    "adadelta": Adadelta,
}

# What a recipe may state its rule as: the rule itself, or a form that the batch size makes one.
OptimizerForm = OptimizerSpec | SgdKilostep
OPTIMIZER_FORMS: dict[str, Any] = OPTIMIZERS | {"sgd_kilostep": SgdKilostep}

NO_CLIPPING = NoClipping()
NO_AVERAGING = NoAveraging()


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """How one parameter is updated.

    Attributes:
        rule: Its rule, with the rates of its group.
        lr_factor: Its learning rate over that of the whole update, where the schedule is shared.
        trained_epochs: As of its `Group`.
        schedule: As of its `Group`.
    """

    rule: OptimizerSpec
    lr_factor: float
    trained_epochs: float = math.inf
    schedule: GroupSchedule = "shared"

    @property
    def ends(self) -> bool:
        """Whether it is trained for some epochs only."""
        return self.trained_epochs < math.inf

    def is_over(self, epoch: float) -> bool:
        """Return whether it is updated no more at a step that `epoch` epochs precede."""
        return epoch >= self.trained_epochs

    def rate(self, shared: float, *, epoch: float) -> float:
        """Return its learning rate at a step, given the training's."""
        if self.schedule == "shared":
            return shared * self.lr_factor
        return rate_to_end(self.rule.lr, epoch=epoch, trained_epochs=self.trained_epochs)


@dataclass(frozen=True, kw_only=True)
class Update:
    """Clip the gradients, apply the rule to each group, average the weights.

    Attributes:
        rule: The update rule.
        groups: Exceptions to its rates; a parameter is in the first group that holds it.
        clipping: What is done to the gradients first.
        averaging: What is kept of the weights afterwards.
    """

    rule: OptimizerSpec
    groups: tuple[Group, ...] = ()
    clipping: ClippingSpec = NO_CLIPPING
    averaging: AveragingSpec = NO_AVERAGING

    def assign(self, name: str, dimensions: int) -> Assignment:
        """Return how a parameter is updated, by its canonical name and number of dimensions."""
        rule: OptimizerSpec = self.rule
        if isinstance(rule, Muon) and not _is_muons(rule, dimensions):
            rule = rule.others
        factor = rule.lr / self.rule.lr if rule is not self.rule else 1.0
        for group in self.groups:
            if group.holds(name, dimensions):
                rule = dataclasses.replace(
                    rule,
                    lr=rule.lr * group.lr_factor,
                    l2=rule.l2 * group.decay_factor,
                    decoupled_decay=rule.decoupled_decay * group.decay_factor,
                )
                return Assignment(
                    rule=rule,
                    lr_factor=factor * group.lr_factor,
                    trained_epochs=group.trained_epochs,
                    schedule=group.schedule,
                )
        return Assignment(rule=rule, lr_factor=factor)

    def initial_slots(self, name: str, dimensions: int) -> dict[str, float]:
        """Return the arrays that the rule keeps of a parameter, with the value they start at."""
        return self.assign(name, dimensions).rule.initial_slots()

    def to_table(self) -> dict[str, Any]:
        """Return the update as nested plain tables."""
        return dataclasses.asdict(self)


def _is_muons(rule: Muon, dimensions: int) -> bool:
    return (dimensions == 2 and rule.members != "filters") or (
        dimensions > 2 and rule.members != "matrices"
    )


def update_from_table(table: Mapping[str, Any]) -> Update:
    """Return the update that `Update.to_table` described."""
    clipping, averaging = table["clipping"], table["averaging"]
    return Update(
        rule=_rule_from_table(table["rule"]),
        groups=tuple(Group(**group) for group in table["groups"]),
        clipping=CLIPPINGS[clipping["kind"]](**clipping),
        averaging=AVERAGINGS[averaging["kind"]](**averaging),
    )


def _rule_from_table(table: Mapping[str, Any]) -> OptimizerSpec:
    values = dict(table)
    if "others" in values:
        values["others"] = _rule_from_table(values["others"])
    rule: OptimizerSpec = OPTIMIZERS[values["kind"]](**values)
    return rule
