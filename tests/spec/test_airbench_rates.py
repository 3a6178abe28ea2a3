"""The rates and weights of airbench's published trainings, at every one of their steps.

Source: cifar10-airbench, airbench93.py to airbench96.py, and the paper's own script of the last
(airbench 0.1.8, lib_airbench96.py): what they set, and by hand what follows for batches of 1024
images, to the digits that stand here.
"""

from dataclasses import dataclass
from decimal import Decimal

import numpy as np
import pytest

from parity.spec.optimizers import LookaheadEma, SgdKilostep, Update, average_move
from parity.spec.position import position_at
from parity.spec.schedule_kinds import TriangularSchedule
from parity.testing.assertions import assert_close
from parity.testing.updates import EARLY_BIASES, FAST_NORM_BIASES

STEPS_PER_EPOCH = 48
AVERAGING = LookaheadEma(every=5, decay=0.95**5, power=3.0)


@dataclass(frozen=True, kw_only=True)
class Training:
    """What is set, and what follows: `decay` is `rate` times `penalty`, whatever the group.

    Attributes:
        lr: Per kilostep.
        weight_decay: Per kilostep.
        steps: Of the whole training.
        peak: Share of them before the rate is at its base.
        end: Factor on the base rate at the end.
        top: Steps before the rate is at its base.
        last: Factor of the last step.
        decay: Taken off the weights by a step at the base rate.
        rate: Base rate.
        penalty: Coupled penalty.
        fast_rate: Base rate of the shifts of norms.
        fast_penalty: Their penalty.
    """

    lr: float
    weight_decay: float
    steps: int
    peak: float
    end: float
    top: int
    last: str
    decay: str
    rate: str
    penalty: str
    fast_rate: str
    fast_penalty: str

    @property
    def form(self):
        return SgdKilostep(
            lr_per_kilostep=self.lr,
            decay_per_kilostep=self.weight_decay,
            momentum=0.85,
            nesterov=True,
            velocity_holds_lr=False,
            l2_in_loss=False,
        )

    def update(self, *, batch_size=1024):
        return Update(
            rule=self.form.rule(batch_size=batch_size),
            groups=(FAST_NORM_BIASES, EARLY_BIASES),
            averaging=AVERAGING,
        )

    @property
    def schedule(self):
        return TriangularSchedule(
            unit="step", start_factor=0.2, peak=self.peak, final_factor=self.end
        )

    def factors(self):
        """Return the schedule's factor at each step."""
        return np.array(
            [
                self.schedule.factor(step, length=self.steps, epoch=STEPS_PER_EPOCH)
                for step in range(self.steps)
            ]
        )

    def positions(self):
        return [
            position_at(step, steps_per_epoch=STEPS_PER_EPOCH, steps=self.steps)
            for step in range(self.steps)
        ]


TRAININGS = {
    "airbench93": Training(
        lr=11.5, weight_decay=0.0153, steps=528, peak=0.23, end=0.07, top=121, last="0.07229",
        decay="1.99565e-3", rate="1.46484e-3", penalty="1.36237",
        fast_rate="0.09375", fast_penalty="0.0212870",
    ),
    "airbench94": Training(
        lr=11.5, weight_decay=0.0153, steps=476, peak=0.23, end=0.07, top=109, last="0.07253",
        decay="1.99565e-3", rate="1.46484e-3", penalty="1.36237",
        fast_rate="0.09375", fast_penalty="0.0212870",
    ),
    "airbench95": Training(
        lr=10.0, weight_decay=0.0153, steps=720, peak=0.23, end=0.07, top=165, last="0.07168",
        decay="1.99565e-3", rate="1.27378e-3", penalty="1.56672",
        fast_rate="0.0815217", fast_penalty="0.02448",
    ),
    "airbench96": Training(
        lr=9.0, weight_decay=0.012, steps=1776, peak=0.10, end=0.0, top=177, last="0.00063",
        decay="1.56522e-3", rate="1.14640e-3", penalty="1.36533",
        fast_rate="0.0733696", fast_penalty="0.0213333",
    ),
    "airbench96_paper": Training(
        lr=9.0, weight_decay=0.0153, steps=1920, peak=0.23, end=0.07, top=441, last="0.07063",
        decay="1.99565e-3", rate="1.14640e-3", penalty="1.74080",
        fast_rate="0.0733696", fast_penalty="0.0272",
    ),
}  # fmt: skip
ALL = pytest.mark.parametrize("training", TRAININGS.values(), ids=TRAININGS)


def assert_printed(actual, printed):
    """Check that a number, or each of an array, is the printed one to its last digit."""
    unit = 10.0 ** Decimal(printed).as_tuple().exponent
    assert_close(
        np.asarray(actual), np.full(np.shape(actual), float(printed)), atol=0.501 * unit, rtol=0.0
    )


@ALL
def test_rates_and_penalties_are_the_published_ones_at_every_step(training):
    update, factors = training.update(), training.factors()
    weight, shift = update.assign("layers.0.conv1.weight", 4), update.assign("layers.0.bn1.bias", 1)
    moments = list(zip(factors, training.positions(), strict=True))

    rates, fast_rates = (
        np.array([each.rate(f * update.rule.lr, epoch=at.epoch) / f for f, at in moments])
        for each in (weight, shift)
    )

    assert_printed(rates, training.rate)
    assert_printed(fast_rates, training.fast_rate)
    assert_printed(weight.rule.l2, training.penalty)
    assert_printed(shift.rule.l2, training.fast_penalty)
    assert_printed(rates * weight.rule.l2, training.decay)
    assert_printed(fast_rates * shift.rule.l2, training.decay)


@ALL
def test_factor_is_on_the_published_lines_at_every_step(training):
    steps = np.arange(training.steps)
    corners = [0, training.top, training.steps]

    factors = training.factors()

    assert_close(factors, np.interp(steps, corners, [0.2, 1.0, training.end]), atol=1e-14, rtol=0.0)
    assert_printed(factors[-1], training.last)


@ALL
def test_average_takes_its_published_share_every_fifth_step_and_ends_on_itself(training):
    moves = [
        average_move(AVERAGING, count=step + 1, progress=position.progress)
        for step, position in enumerate(training.positions())
    ]
    counts = np.arange(1, training.steps + 1)

    expected = np.where(counts % 5 == 0, 0.773781 * (counts / training.steps) ** 3, 1.0)

    assert_close(np.array([move.keep for move in moves]), expected, atol=5e-7, rtol=0.0)
    written = [count for count, move in zip(counts, moves, strict=True) if move.writes_back]
    assert written == sorted({*range(5, training.steps + 1, 5), training.steps})


@ALL
def test_bias_is_trained_in_the_first_three_epochs(training):
    bias = training.update().assign("whiten.bias", 1)

    trained = [not bias.is_over(position.epoch) for position in training.positions()]

    assert trained == [True] * 144 + [False] * (training.steps - 144)


@pytest.mark.parametrize("batch_size", [512, 2000])
def test_batch_size_changes_the_penalty_alone(batch_size):
    training = TRAININGS["airbench94"]
    whole, other = training.update().rule, training.update(batch_size=batch_size).rule

    assert (other.lr, other.momentum) == (whole.lr, whole.momentum)
    assert other.l2 == pytest.approx(whole.l2 * batch_size / 1024, rel=1e-15)
