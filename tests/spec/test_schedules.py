import dataclasses
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parity.errors import SpecError
from parity.spec.schedules import Schedule, schedule_factor
from parity.testing.assertions import assert_close

COSINE = Schedule(kind="cosine", unit="step", warmup_epochs=0.0, final_factor=0.0)
LINEAR = dataclasses.replace(COSINE, kind="linear")
CONSTANT = dataclasses.replace(COSINE, kind="constant")
SCHEDULES = st.builds(
    Schedule,
    kind=st.sampled_from(["constant", "cosine", "linear"]),
    unit=st.sampled_from(["step", "epoch"]),
    warmup_epochs=st.sampled_from([0.0, 0.5, 1.0, 2.0]),
    final_factor=st.floats(0.0, 1.0),
)


def factors(schedule, *, steps_per_epoch, epochs):
    return [
        schedule_factor(schedule, step=step, steps_per_epoch=steps_per_epoch, epochs=epochs)
        for step in range(steps_per_epoch * epochs)
    ]


@pytest.mark.parametrize("schedule", [COSINE, LINEAR, CONSTANT], ids=lambda s: s.kind)
@pytest.mark.parametrize("unit", ["step", "epoch"])
def test_unwarmed_schedule_starts_at_one(schedule, unit):
    schedule = dataclasses.replace(schedule, unit=unit)

    assert factors(schedule, steps_per_epoch=4, epochs=5)[0] == 1.0


@pytest.mark.parametrize("schedule", [COSINE, LINEAR], ids=lambda s: s.kind)
def test_decaying_schedule_is_half_way_in_the_middle(schedule):
    assert_close(factors(schedule, steps_per_epoch=4, epochs=4)[8], 0.5, atol=1e-15, rtol=0.0)


@pytest.mark.parametrize(
    ("schedule", "last"),
    [(COSINE, (1 + math.cos(math.pi * 15 / 16)) / 2), (LINEAR, 1 / 16), (CONSTANT, 1.0)],
    ids=lambda value: getattr(value, "kind", ""),
)
def test_last_step_stands_one_step_before_the_end(schedule, last):
    assert_close(factors(schedule, steps_per_epoch=4, epochs=4)[-1], last, atol=1e-15, rtol=0.0)


def test_final_factor_is_what_the_schedule_tends_to():
    schedule = dataclasses.replace(LINEAR, final_factor=0.2)

    falling = factors(schedule, steps_per_epoch=1, epochs=4)

    assert_close(falling, [1.0, 0.8, 0.6, 0.4], atol=1e-15, rtol=0.0)


def test_epoch_unit_holds_the_factor_through_an_epoch():
    schedule = dataclasses.replace(LINEAR, unit="epoch")

    assert factors(schedule, steps_per_epoch=2, epochs=4) == [
        1,
        1,
        0.75,
        0.75,
        0.5,
        0.5,
        0.25,
        0.25,
    ]


def test_warmup_by_step_rises_in_equal_steps_and_ends_at_one():
    schedule = dataclasses.replace(CONSTANT, warmup_epochs=1.0)

    rising = factors(schedule, steps_per_epoch=4, epochs=2)

    assert_close(rising, [0.2, 0.4, 0.6, 0.8, 1.0, 1.0, 1.0, 1.0], atol=1e-15, rtol=0.0)


def test_warmup_by_epoch_rises_in_equal_steps_and_ends_at_one():
    schedule = dataclasses.replace(CONSTANT, unit="epoch", warmup_epochs=2.0)

    rising = factors(schedule, steps_per_epoch=2, epochs=3)

    assert_close(rising, [1 / 3, 1 / 3, 2 / 3, 2 / 3, 1.0, 1.0], atol=1e-15, rtol=0.0)


def test_decay_starts_where_warmup_ends():
    schedule = dataclasses.replace(LINEAR, warmup_epochs=1.0)

    decaying = factors(schedule, steps_per_epoch=2, epochs=3)[2:]

    assert_close(decaying, [1.0, 0.75, 0.5, 0.25], atol=1e-15, rtol=0.0)


@given(schedule=SCHEDULES, steps_per_epoch=st.integers(1, 5), epochs=st.integers(1, 6))
def test_factor_stays_in_the_unit_interval(schedule, steps_per_epoch, epochs):
    values = factors(schedule, steps_per_epoch=steps_per_epoch, epochs=epochs)

    assert 0.0 <= min(values) <= max(values) <= 1.0


@given(schedule=SCHEDULES, steps_per_epoch=st.integers(1, 5), epochs=st.integers(1, 6))
def test_factor_rises_to_its_peak_then_never_rises_again(schedule, steps_per_epoch, epochs):
    values = factors(schedule, steps_per_epoch=steps_per_epoch, epochs=epochs)
    peak = values.index(max(values))

    assert values[:peak] == sorted(values[:peak])
    assert values[peak:] == sorted(values[peak:], reverse=True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "step"}, "kind must be .*; got 'step'"),
        ({"unit": "batch"}, "unit must be .*; got 'batch'"),
        ({"warmup_epochs": -1.0}, "warmup_epochs must be >= 0; got -1.0"),
        ({"warmup_epochs": math.nan}, "warmup_epochs must be >= 0; got nan"),
        ({"final_factor": 1.5}, r"final_factor must be in \[0, 1\]; got 1.5"),
    ],
)
def test_schedule_refuses_a_wrong_value_by_name(changes, message):
    with pytest.raises(SpecError, match=message):
        dataclasses.replace(COSINE, **changes)
