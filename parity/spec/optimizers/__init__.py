"""Optimizer specs: every hyper-parameter and every form on which the frameworks differ.

No field of a rule has a default. Update rules are stated in `parity.reference.optimizers`, which
both twins follow.
"""

from parity.spec.optimizers.accumulators import Adadelta, Adagrad, Rmsprop
from parity.spec.optimizers.averaging import (
    AVERAGE,
    AVERAGINGS,
    STAY,
    AverageMove,
    AveragingSpec,
    Ema,
    Lookahead,
    LookaheadEma,
    NoAveraging,
    average_move,
)
from parity.spec.optimizers.clipping import (
    CLIPPINGS,
    ClippingSpec,
    NoClipping,
    NormClipping,
    ValueClipping,
)
from parity.spec.optimizers.groups import Group, GroupSchedule, rate_to_end
from parity.spec.optimizers.kilostep import SgdKilostep
from parity.spec.optimizers.moments import AdaBound, Adam, Lamb
from parity.spec.optimizers.momentum import NEWTON_SCHULZ, Lars, Muon, Sgd, matrix_scale
from parity.spec.optimizers.rule import Rule, decay_rate
from parity.spec.optimizers.update import (
    OPTIMIZER_FORMS,
    OPTIMIZERS,
    Assignment,
    OptimizerForm,
    OptimizerSpec,
    Update,
    update_from_table,
)

__all__ = [
    "AVERAGE",
    "AVERAGINGS",
    "CLIPPINGS",
    "NEWTON_SCHULZ",
    "OPTIMIZERS",
    "OPTIMIZER_FORMS",
    "STAY",
    "AdaBound",
    "Adadelta",
    "Adagrad",
    "Adam",
    "Assignment",
    "AverageMove",
    "AveragingSpec",
    "ClippingSpec",
    "Ema",
    "Group",
    "GroupSchedule",
    "Lamb",
    "Lars",
    "Lookahead",
    "LookaheadEma",
    "Muon",
    "NoAveraging",
    "NoClipping",
    "NormClipping",
    "OptimizerForm",
    "OptimizerSpec",
    "Rmsprop",
    "Rule",
    "Sgd",
    "SgdKilostep",
    "Update",
    "ValueClipping",
    "average_move",
    "decay_rate",
    "matrix_scale",
    "rate_to_end",
    "update_from_table",
]
