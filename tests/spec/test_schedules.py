import dataclasses
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parity.errors import SpecError
from parity.spec.schedule_kinds import (
    ConstantSchedule,
    CosineSchedule,
    CyclicSchedule,
    ExponentialSchedule,
    LinearSchedule,
    MultistepSchedule,
    PolynomialSchedule,
    RestartSchedule,
    TriangularSchedule,
)
from parity.spec.schedules import SCHEDULES, count_steps, is_constant, schedule_factor
from parity.spec.warmup import WarmedSchedule
from parity.testing.assertions import assert_close

UNWARMED = {
    "unit": "step",
    "warmup": "prefix",
    "warmup_epochs": 0.0,
    "warmup_start_factor": 0.0,
    "warmup_first_step": "one_rise_above",
    "warmup_last_step": "one_rise_below",
}
CONSTANT = ConstantSchedule(**UNWARMED)
COSINE = CosineSchedule(**UNWARMED, final_factor=0.0)
LINEAR = LinearSchedule(**UNWARMED, final_factor=0.0)
POLYNOMIAL = PolynomialSchedule(**UNWARMED, final_factor=0.1, power=3.0)
RESTARTS = RestartSchedule(**UNWARMED, first_cycle=2, cycle_growth=3, final_factor=0.0)
MULTISTEP = MultistepSchedule(**UNWARMED, milestones=(2, 5), gamma=0.1, drops="at_milestone")
EXPONENTIAL = ExponentialSchedule(**UNWARMED, gamma=0.5, gamma_every=2)
TRIANGULAR = TriangularSchedule(unit="step", start_factor=0.2, peak=0.5, final_factor=0.0)
CYCLIC = CyclicSchedule(unit="step", floor_factor=0.1, rise=2, fall=3, peaks="equal")
EVERY_KIND = (
    CONSTANT,
    MULTISTEP,
    LINEAR,
    COSINE,
    POLYNOMIAL,
    EXPONENTIAL,
    RESTARTS,
    TRIANGULAR,
    CYCLIC,
)
WARMED_KINDS = tuple(schedule for schedule in EVERY_KIND if isinstance(schedule, WarmedSchedule))

SHARES = st.floats(0.0, 1.0)
COUNTS = st.integers(1, 7)
UNITS = st.sampled_from(["step", "epoch"])
WARMUPS = st.fixed_dictionaries(
    {
        "unit": UNITS,
        "warmup": st.sampled_from(["prefix", "overlay"]),
        "warmup_epochs": st.sampled_from([0.0, 1.0, 2.0]),
        "warmup_start_factor": SHARES,
        "warmup_first_step": st.sampled_from(["start_factor", "one_rise_above"]),
        "warmup_last_step": st.sampled_from(["one", "one_rise_below"]),
    }
)
MILESTONES = st.sets(st.integers(1, 30), min_size=1).map(lambda marks: tuple(sorted(marks)))
SHAPES = {
    ConstantSchedule: {},
    CosineSchedule: {"final_factor": SHARES},
    LinearSchedule: {"final_factor": SHARES},
    PolynomialSchedule: {"final_factor": SHARES, "power": st.floats(0.1, 5.0)},
    RestartSchedule: {"first_cycle": COUNTS, "cycle_growth": COUNTS, "final_factor": SHARES},
    MultistepSchedule: {
        "milestones": MILESTONES,
        "gamma": st.floats(1e-3, 1.0),
        "drops": st.sampled_from(["at_milestone", "after_milestone"]),
    },
    ExponentialSchedule: {"gamma": st.floats(1e-3, 1.0), "gamma_every": COUNTS},
}
WARMED = st.one_of(
    st.builds(lambda warmup, shape, kind=kind: kind(**warmup, **shape), WARMUPS, shapes)
    for kind, shapes in ((kind, st.fixed_dictionaries(fields)) for kind, fields in SHAPES.items())
)
SELF_RISING = st.one_of(
    st.builds(
        TriangularSchedule,
        unit=UNITS,
        start_factor=SHARES,
        peak=st.floats(0.0, 0.99),
        final_factor=SHARES,
    ),
    st.builds(
        CyclicSchedule,
        unit=UNITS,
        floor_factor=SHARES,
        rise=COUNTS,
        fall=COUNTS,
        peaks=st.sampled_from(["equal", "halved"]),
    ),
)
ANY = st.one_of(WARMED, SELF_RISING)


def kind_of(schedule):
    return getattr(schedule, "kind", None)


def factors(schedule, *, steps_per_epoch, epochs):
    return [
        schedule_factor(schedule, step=step, steps_per_epoch=steps_per_epoch, epochs=epochs)
        for step in range(count_steps(epochs, steps_per_epoch=steps_per_epoch))
    ]


@pytest.mark.parametrize(
    ("epochs", "steps_per_epoch", "steps"),
    [
        (9.9, 48, 476),
        (10, 48, 480),
        (9.5, 48, 456),
        (1.1, 50, 55),  # 55.00000000000001 in float64
        (9.8, 25, 245),  # 245.00000000000003
        (29 / 7, 7, 29),  # 29.000000000000004
        (2.3, 100, 230),  # 229.99999999999997
        (1.01, 10, 11),
        (1.0001, 48, 49),
        (200, 391, 78_200),
    ],
)
def test_steps_are_counted_up_but_not_for_rounding(epochs, steps_per_epoch, steps):
    assert count_steps(epochs, steps_per_epoch=steps_per_epoch) == steps


@given(steps_per_epoch=st.integers(1, 40_000), data=st.data())
def test_epochs_of_whole_steps_have_that_many(steps_per_epoch, data):
    steps = data.draw(st.integers(steps_per_epoch, 1000 * steps_per_epoch))

    assert count_steps(steps / steps_per_epoch, steps_per_epoch=steps_per_epoch) == steps


@given(tenths=st.integers(10, 20_000), steps_per_epoch=st.integers(1, 40_000))
def test_steps_are_those_of_exact_arithmetic(tenths, steps_per_epoch):
    counted = count_steps(tenths / 10, steps_per_epoch=steps_per_epoch)

    assert counted == -(-tenths * steps_per_epoch // 10)


def test_triangle_of_a_training_that_ends_within_an_epoch_is_airbenchs():
    schedule = TriangularSchedule(unit="step", start_factor=0.2, peak=0.23, final_factor=0.07)

    values = factors(schedule, steps_per_epoch=48, epochs=9.9)

    assert len(values) == 476
    assert values.index(1.0) == 109
    assert_close(values[0], 0.2, atol=1e-15, rtol=0.0)
    assert_close(values[-1], 1 - 0.93 * (475 - 109) / (476 - 109), atol=1e-15, rtol=0.0)


@given(schedule=ANY, steps_per_epoch=st.integers(1, 5), tenths=st.integers(10, 60))
def test_epochs_that_end_early_run_at_the_factors_of_whole_ones(schedule, steps_per_epoch, tenths):
    by_epoch = dataclasses.replace(schedule, unit="epoch")
    steps = count_steps(tenths / 10, steps_per_epoch=steps_per_epoch)

    early = factors(by_epoch, steps_per_epoch=steps_per_epoch, epochs=tenths / 10)

    begun = math.ceil(steps / steps_per_epoch)
    assert early == factors(by_epoch, steps_per_epoch=steps_per_epoch, epochs=begun)[:steps]


def test_every_kind_is_tested_here():
    assert [schedule.kind for schedule in EVERY_KIND] == list(SCHEDULES)


@pytest.mark.parametrize("schedule", WARMED_KINDS, ids=kind_of)
@pytest.mark.parametrize("unit", ["step", "epoch"])
def test_unwarmed_schedule_starts_at_one(schedule, unit):
    schedule = dataclasses.replace(schedule, unit=unit)

    assert factors(schedule, steps_per_epoch=4, epochs=5)[0] == 1.0


@pytest.mark.parametrize("schedule", [COSINE, LINEAR], ids=kind_of)
def test_decaying_schedule_is_half_way_in_the_middle(schedule):
    assert_close(factors(schedule, steps_per_epoch=4, epochs=4)[8], 0.5, atol=1e-15, rtol=0.0)


@pytest.mark.parametrize(
    ("schedule", "last"),
    [
        (COSINE, (1 + math.cos(math.pi * 15 / 16)) / 2),
        (LINEAR, 1 / 16),
        (CONSTANT, 1.0),
        (POLYNOMIAL, 0.1 + 0.9 / 4096),
    ],
    ids=kind_of,
)
def test_last_step_stands_one_step_before_the_end(schedule, last):
    assert_close(factors(schedule, steps_per_epoch=4, epochs=4)[-1], last, atol=1e-15, rtol=0.0)


@pytest.mark.parametrize("schedule", [COSINE, LINEAR, POLYNOMIAL], ids=kind_of)
def test_decay_stays_at_its_end_once_training_is_over(schedule):
    after = schedule_factor(schedule, step=99, steps_per_epoch=4, epochs=4)

    assert after == schedule.final_factor


def test_final_factor_is_what_the_schedule_tends_to():
    schedule = dataclasses.replace(LINEAR, final_factor=0.2)

    falling = factors(schedule, steps_per_epoch=1, epochs=4)

    assert_close(falling, [1.0, 0.8, 0.6, 0.4], atol=1e-15, rtol=0.0)


def test_epoch_unit_holds_the_factor_through_an_epoch():
    schedule = dataclasses.replace(LINEAR, unit="epoch")

    falling = factors(schedule, steps_per_epoch=2, epochs=4)

    assert falling == [1, 1, 0.75, 0.75, 0.5, 0.5, 0.25, 0.25]


def test_cosine_by_epoch_is_its_formula_to_the_bit():
    schedule = dataclasses.replace(COSINE, unit="epoch")

    falling = factors(schedule, steps_per_epoch=1, epochs=200)

    assert falling == [(1.0 + math.cos(math.pi * (t / 200))) / 2.0 for t in range(200)]


@pytest.mark.parametrize(
    ("drops", "expected"),
    [
        ("at_milestone", [1.0, 1.0, 0.1, 0.1, 0.1, 0.01, 0.01, 0.01]),
        ("after_milestone", [1.0, 1.0, 1.0, 0.1, 0.1, 0.1, 0.01, 0.01]),
    ],
)
def test_multistep_drops_where_it_says(drops, expected):
    schedule = dataclasses.replace(MULTISTEP, drops=drops)

    assert_close(factors(schedule, steps_per_epoch=4, epochs=2), expected, atol=1e-15, rtol=0.0)


def test_restarts_grow_their_cycles():
    schedule = dataclasses.replace(RESTARTS, final_factor=0.2)

    starts = [
        step
        for step, factor in enumerate(factors(schedule, steps_per_epoch=15, epochs=1))
        if factor == 1.0
    ]

    assert starts == [0, 2, 8]


def test_airbench_triangle_is_the_published_one():
    schedule = TriangularSchedule(unit="step", start_factor=0.2, peak=0.23, final_factor=0.07)

    values = factors(schedule, steps_per_epoch=476, epochs=1)

    assert values[0] == 0.2
    assert values.index(1.0) == 109
    assert_close(values[-1], 0.07253, atol=5e-6, rtol=0.0)


def test_cyclic_goes_from_its_floor_to_one_and_back():
    expected = [0.1, 0.55, 1.0, 0.7, 0.4, 0.1, 0.55, 1.0, 0.7, 0.4]

    assert_close(factors(CYCLIC, steps_per_epoch=5, epochs=2), expected, atol=1e-15, rtol=0.0)


def test_halved_peaks_halve_the_height_above_the_floor():
    schedule = dataclasses.replace(CYCLIC, peaks="halved", rise=1, fall=1)

    peaks = factors(schedule, steps_per_epoch=6, epochs=1)[1::2]

    assert_close(peaks, [1.0, 0.55, 0.325], atol=1e-15, rtol=0.0)


def test_exponential_above_one_rises_evenly_to_the_end_of_a_range_test():
    schedule = dataclasses.replace(EXPONENTIAL, gamma=400.0, gamma_every=528)

    values = factors(schedule, steps_per_epoch=176, epochs=3)

    assert_close(values[-1], 400.0 ** (527 / 528), atol=0.0, rtol=1e-14)
    assert_close(values[264], 20.0, atol=0.0, rtol=1e-14)


def test_factor_beyond_float64_is_refused_with_its_step():
    schedule = dataclasses.replace(EXPONENTIAL, gamma=1e300, gamma_every=1)

    with pytest.raises(SpecError, match="beyond float64 at step 2"):
        schedule_factor(schedule, step=2, steps_per_epoch=4, epochs=1)


@given(schedule=ANY, steps_per_epoch=st.integers(1, 5), epochs=st.integers(1, 6))
def test_factor_stays_in_the_unit_interval(schedule, steps_per_epoch, epochs):
    values = factors(schedule, steps_per_epoch=steps_per_epoch, epochs=epochs)

    assert 0.0 <= min(values) <= max(values) <= 1.0 + 1e-15


@given(schedule=ANY, steps_per_epoch=st.integers(1, 5), epochs=st.integers(1, 6))
def test_factor_depends_on_nothing_but_its_arguments(schedule, steps_per_epoch, epochs):
    forwards = factors(schedule, steps_per_epoch=steps_per_epoch, epochs=epochs)
    backwards = [
        schedule_factor(schedule, step=step, steps_per_epoch=steps_per_epoch, epochs=epochs)
        for step in reversed(range(len(forwards)))
    ]

    assert backwards[::-1] == forwards


@given(schedule=ANY, steps_per_epoch=st.integers(1, 5), epochs=st.integers(1, 6))
def test_epoch_unit_moves_between_epochs_only(schedule, steps_per_epoch, epochs):
    by_epoch = dataclasses.replace(schedule, unit="epoch")

    values = factors(by_epoch, steps_per_epoch=steps_per_epoch, epochs=epochs)

    once_an_epoch = factors(by_epoch, steps_per_epoch=1, epochs=epochs)
    assert values == [value for value in once_an_epoch for _ in range(steps_per_epoch)]


@given(
    kind=st.sampled_from([ConstantSchedule, CosineSchedule, LinearSchedule]),
    warmup=WARMUPS,
    final_factor=SHARES,
    epochs=st.integers(1, 6),
)
def test_prefixed_decay_rises_to_its_peak_then_never_rises_again(
    kind, warmup, final_factor, epochs
):
    shape = {} if kind is ConstantSchedule else {"final_factor": final_factor}
    schedule = kind(**warmup | {"warmup": "prefix"}, **shape)
    values = [round(value, 14) for value in factors(schedule, steps_per_epoch=3, epochs=epochs)]
    peak = values.index(max(values))

    assert values[:peak] == sorted(values[:peak])
    assert values[peak:] == sorted(values[peak:], reverse=True)


@given(schedule=ANY)
def test_constant_schedule_is_one_throughout(schedule):
    values = factors(schedule, steps_per_epoch=2, epochs=20)

    assert is_constant(schedule) <= (set(values) == {1.0})


@pytest.mark.parametrize(
    "schedule",
    [
        CONSTANT,
        dataclasses.replace(CONSTANT, warmup_epochs=1.0, warmup_start_factor=1.0),
        dataclasses.replace(CONSTANT, warmup_start_factor=0.5),
        dataclasses.replace(COSINE, final_factor=1.0),
        dataclasses.replace(RESTARTS, final_factor=1.0),
        dataclasses.replace(MULTISTEP, gamma=1.0),
        dataclasses.replace(EXPONENTIAL, gamma=1.0),
        dataclasses.replace(TRIANGULAR, peak=0.0, final_factor=1.0),
        dataclasses.replace(CYCLIC, floor_factor=1.0),
    ],
)
def test_schedule_that_never_leaves_one_is_constant(schedule):
    assert is_constant(schedule)
    assert set(factors(schedule, steps_per_epoch=2, epochs=20)) == {1.0}


@pytest.mark.parametrize(
    "schedule", [*EVERY_KIND[1:], dataclasses.replace(CONSTANT, warmup_epochs=1.0)], ids=kind_of
)
def test_schedule_that_moves_is_not_constant(schedule):
    assert not is_constant(schedule)
    assert set(factors(schedule, steps_per_epoch=2, epochs=20)) > {1.0}


@pytest.mark.parametrize(
    ("schedule", "changes", "message"),
    [
        (COSINE, {"unit": "batch"}, "unit must be 'step' or 'epoch'; got 'batch'"),
        (COSINE, {"final_factor": 1.5}, r"final_factor must be in \[0, 1\]; got 1.5"),
        (POLYNOMIAL, {"power": 0.0}, "power must be > 0 and finite; got 0.0"),
        (POLYNOMIAL, {"power": math.nan}, "power must be > 0 and finite; got nan"),
        (RESTARTS, {"first_cycle": 0}, "first_cycle must be >= 1; got 0"),
        (RESTARTS, {"cycle_growth": 0}, "cycle_growth must be >= 1; got 0"),
        (RESTARTS, {"final_factor": -0.1}, r"final_factor must be in \[0, 1\]; got -0.1"),
        (MULTISTEP, {"milestones": ()}, r"milestones must be >= 1 and rise; got \[\]"),
        (MULTISTEP, {"milestones": (0, 2)}, r"milestones must be .*; got \[0, 2\]"),
        (MULTISTEP, {"milestones": (3, 3)}, r"milestones must be .*; got \[3, 3\]"),
        (MULTISTEP, {"gamma": -1.0}, "gamma must be > 0 and finite; got -1.0"),
        (MULTISTEP, {"drops": "late"}, "drops must be 'at_milestone' or .*; got 'late'"),
        (EXPONENTIAL, {"gamma": math.inf}, "gamma must be > 0 and finite; got inf"),
        (EXPONENTIAL, {"gamma_every": 0}, "gamma_every must be >= 1; got 0"),
        (TRIANGULAR, {"start_factor": 2.0}, r"start_factor must be in \[0, 1\]; got 2.0"),
        (TRIANGULAR, {"peak": 1.0}, r"peak must be in \[0, 1\); got 1.0"),
        (TRIANGULAR, {"final_factor": math.nan}, "final_factor must be .*; got nan"),
        (CYCLIC, {"floor_factor": -1.0}, r"floor_factor must be in \[0, 1\]; got -1.0"),
        (CYCLIC, {"rise": 0}, "rise must be >= 1; got 0"),
        (CYCLIC, {"fall": 0}, "fall must be >= 1; got 0"),
        (CYCLIC, {"peaks": "lower"}, "peaks must be 'equal' or 'halved'; got 'lower'"),
    ],
    ids=kind_of,
)
def test_schedule_refuses_a_wrong_value_by_name(schedule, changes, message):
    with pytest.raises(SpecError, match=message):
        dataclasses.replace(schedule, **changes)


def test_wrong_values_of_a_schedule_are_listed_together():
    with pytest.raises(SpecError, match=r"schedule: unit must .* rise must .* fall must"):
        dataclasses.replace(CYCLIC, unit="batch", rise=0, fall=-1)
