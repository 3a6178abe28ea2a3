import dataclasses
import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parity.errors import SpecError
from parity.spec.schedule_kinds import ConstantSchedule, CosineSchedule, LinearSchedule
from parity.spec.schedules import schedule_factor
from parity.testing.assertions import assert_close

FORMS = {"warmup_first_step": "one_rise_above", "warmup_last_step": "one_rise_below"}
WARMED = {"unit": "step", "warmup": "prefix", "warmup_epochs": 1.0, "warmup_start_factor": 0.0}
CONSTANT = ConstantSchedule(**WARMED, **FORMS)
LINEAR = LinearSchedule(**WARMED, **FORMS, final_factor=0.0)
COSINE = CosineSchedule(**WARMED, **FORMS, final_factor=0.0)


def factors(schedule, *, steps_per_epoch, epochs):
    return [
        schedule_factor(schedule, step=step, steps_per_epoch=steps_per_epoch, epochs=epochs)
        for step in range(steps_per_epoch * epochs)
    ]


@pytest.mark.parametrize(
    ("first", "last", "rising"),
    [
        ("one_rise_above", "one_rise_below", [0.2, 0.4, 0.6, 0.8]),
        ("start_factor", "one_rise_below", [0.0, 0.25, 0.5, 0.75]),
        ("one_rise_above", "one", [0.25, 0.5, 0.75, 1.0]),
        ("start_factor", "one", [0.0, 1 / 3, 2 / 3, 1.0]),
    ],
)
def test_warmup_by_step_rises_in_equal_steps_between_the_ends_it_names(first, last, rising):
    schedule = dataclasses.replace(CONSTANT, warmup_first_step=first, warmup_last_step=last)

    values = factors(schedule, steps_per_epoch=4, epochs=2)

    assert_close(values, [*rising, 1.0, 1.0, 1.0, 1.0], atol=1e-15, rtol=0.0)


@pytest.mark.parametrize(
    ("first", "last", "only"),
    [
        ("one_rise_above", "one_rise_below", 0.6),
        ("start_factor", "one_rise_below", 0.2),
        ("one_rise_above", "one", 1.0),
        ("start_factor", "one", 1.0),
    ],
)
def test_warmup_of_one_step_runs_at_the_end_it_names(first, last, only):
    forms = {"warmup_first_step": first, "warmup_last_step": last, "warmup_start_factor": 0.2}

    values = factors(dataclasses.replace(CONSTANT, **forms), steps_per_epoch=1, epochs=2)

    assert_close(values, [only, 1.0], atol=1e-15, rtol=0.0)


def test_warmup_by_epoch_rises_in_equal_steps_and_ends_at_one():
    schedule = dataclasses.replace(CONSTANT, unit="epoch", warmup_epochs=2.0)

    rising = factors(schedule, steps_per_epoch=2, epochs=3)

    assert_close(rising, [1 / 3, 1 / 3, 2 / 3, 2 / 3, 1.0, 1.0], atol=1e-15, rtol=0.0)


def test_start_factor_is_where_the_rise_starts():
    schedule = dataclasses.replace(
        CONSTANT, warmup_start_factor=0.2, warmup_first_step="start_factor"
    )

    rising = factors(schedule, steps_per_epoch=4, epochs=1)

    assert_close(rising, [0.2, 0.4, 0.6, 0.8], atol=1e-15, rtol=0.0)


def test_prefix_gives_the_shape_what_is_left_of_the_training():
    decaying = factors(LINEAR, steps_per_epoch=2, epochs=3)[2:]

    assert_close(decaying, [1.0, 0.75, 0.5, 0.25], atol=1e-15, rtol=0.0)


def test_overlay_hides_the_beginning_of_a_shape_over_the_whole_training():
    schedule = dataclasses.replace(LINEAR, warmup="overlay")

    decaying = factors(schedule, steps_per_epoch=2, epochs=4)[2:]

    assert_close(decaying, [0.75, 0.625, 0.5, 0.375, 0.25, 0.125], atol=1e-15, rtol=0.0)


def test_overlaid_cosine_ends_its_warmup_below_the_base_rate():
    schedule = dataclasses.replace(COSINE, unit="epoch", warmup="overlay", warmup_epochs=5.0)

    factor = schedule_factor(schedule, step=5, steps_per_epoch=1, epochs=300)

    assert_close(5e-3 * factor, 4.997e-3, atol=5e-7, rtol=0.0)


@pytest.mark.parametrize(("epochs", "warm"), [(0.29, 29), (0.255, 26), (0.254, 25)])
def test_length_is_rounded_to_whole_steps(epochs, warm):
    schedule = dataclasses.replace(CONSTANT, warmup_epochs=epochs)

    values = factors(schedule, steps_per_epoch=100, epochs=1)

    assert values.index(1.0) == warm


@given(steps=st.integers(1, 40), start=st.floats(0.0, 0.9), epochs=st.integers(2, 4))
def test_rise_has_no_longer_and_no_shorter_step(steps, start, epochs):
    schedule = dataclasses.replace(CONSTANT, warmup_start_factor=start)

    values = [start, *factors(schedule, steps_per_epoch=steps, epochs=epochs)[: steps + 1]]

    rises = [high - low for low, high in itertools.pairwise(values)]
    assert_close(rises, [(1.0 - start) / (steps + 1)] * (steps + 1), atol=1e-14, rtol=0.0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"warmup": "before"}, "warmup must be 'prefix' or 'overlay'; got 'before'"),
        ({"warmup_epochs": -1.0}, "warmup_epochs must be >= 0; got -1.0"),
        ({"warmup_epochs": math.nan}, "warmup_epochs must be >= 0; got nan"),
        ({"warmup_epochs": math.inf}, "warmup_epochs must be >= 0; got inf"),
        ({"warmup_epochs": 0.5, "unit": "epoch"}, "must be whole where .*; got 0.5"),
        ({"warmup_start_factor": 1.1}, r"warmup_start_factor must be in \[0, 1\]; got 1.1"),
        ({"warmup_first_step": "zero"}, "warmup_first_step must be .*; got 'zero'"),
        ({"warmup_last_step": "top"}, "warmup_last_step must be .*; got 'top'"),
    ],
)
def test_warmup_refuses_a_wrong_value_by_name(changes, message):
    with pytest.raises(SpecError, match=message):
        dataclasses.replace(CONSTANT, **changes)
