"""The case tables: readable ids, repeatable arrays, every knob in every setting."""

import itertools

import pytest

from parity.testing import cases
from parity.testing.assertions import assert_identical

TABLES = {
    "conv": cases.CONV_CASES,
    "maxpool": cases.MAX_POOL_CASES,
    "bn": cases.BATCH_NORM_CASES,
    "linear": cases.LINEAR_CASES,
    "dropout": cases.DROPOUT_CASES,
    "depth": cases.STOCHASTIC_DEPTH_CASES,
}


def test_case_names_are_unique():
    names = [cases.case_name(case) for case in itertools.chain(*TABLES.values())]

    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    ("table", "name"),
    [
        ("conv", "conv-k7-s2-8x7-end-bias"),
        ("maxpool", "maxpool-5x6-start-negative"),
        ("bn", "bn-n4-5x7-train-decay0.99-unbiased-eps0.001"),
        ("linear", "linear-5-2"),
        ("dropout", "dropout-0.5-eval"),
        ("depth", "depth-5x7-0.1-train"),
    ],
)
def test_case_name_reads_as_its_knobs(table, name):
    assert name in map(cases.case_name, TABLES[table])


@pytest.mark.parametrize("table", TABLES)
def test_case_arrays_are_the_same_each_time(table):
    first, second = TABLES[table][0].arrays(), TABLES[table][0].arrays()

    assert first.keys() == second.keys()
    for name in first:
        assert_identical(first[name], second[name], where=name)


@pytest.mark.parametrize("case", cases.MAX_POOL_CASES, ids=cases.case_name)
def test_max_pool_images_have_no_equal_pixels_and_one_sign(case):
    images = case.arrays()["images"]

    assert len(set(images.ravel())) == images.size
    assert (images > 0).all() if case.sign == "positive" else (images < 0).all()


@pytest.mark.parametrize(
    "case",
    [case for case in (*cases.DROPOUT_CASES, *cases.STOCHASTIC_DEPTH_CASES) if case.rate == 0.5],
    ids=cases.case_name,
)
def test_mask_of_a_case_keeps_some_and_drops_some(case):
    assert 0 < case.kept().sum() < case.kept().size
