"""The reference embedding against torch's functional and autograd, and by hand."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from parity.errors import DivergenceError, SpecError
from parity.reference import layers
from parity.testing.assertions import assert_close, assert_identical
from parity.testing.faults import seed_array_fault

TIGHT = {"atol": 1e-12, "rtol": 1e-12}
IDS = np.array([[0, 2, 2], [4, 2, 0]])
GENERATOR = np.random.default_rng(0)
WEIGHT = GENERATOR.standard_normal((5, 3))
D_OUTPUTS = GENERATOR.standard_normal((2, 3, 3))
TRAINED = {"out_of_range": "refuse", "padding_id": None, "scale_by_frequency": False}


def test_embedding_matches_torch():
    expected = functional.embedding(torch.tensor(IDS), torch.tensor(WEIGHT))

    assert_identical(layers.embedding(IDS, WEIGHT, out_of_range="refuse"), expected.numpy())


@pytest.mark.parametrize("padding_id", [None, 0, 2, -1])
@pytest.mark.parametrize("scale_by_frequency", [False, True])
def test_embedding_gradient_matches_autograd(padding_id, scale_by_frequency):
    leaf = torch.tensor(WEIGHT, requires_grad=True)
    functional.embedding(
        torch.tensor(IDS), leaf, padding_id, scale_grad_by_freq=scale_by_frequency
    ).backward(torch.tensor(D_OUTPUTS))

    actual = layers.embedding_backward(
        D_OUTPUTS, IDS, WEIGHT,
        out_of_range="refuse", padding_id=padding_id, scale_by_frequency=scale_by_frequency,
    )  # fmt: skip

    assert_close(actual, leaf.grad, **TIGHT)


def test_embedding_counts_from_the_end_when_it_wraps():
    arguments = TRAINED | {"out_of_range": "wrap"}

    outputs = layers.embedding([-1, -5], WEIGHT, out_of_range="wrap")
    d_weight = layers.embedding_backward(np.ones((2, 3)), [-1, -5], WEIGHT, **arguments)

    assert_identical(outputs, WEIGHT[[4, 0]])
    assert_identical(d_weight.sum(axis=1), np.array([3.0, 0.0, 0.0, 0.0, 3.0]))


def test_embedding_gives_nan_and_no_gradient_where_there_is_no_row():
    arguments = TRAINED | {"out_of_range": "wrap_or_nan"}

    outputs = layers.embedding([5, -1, -6], WEIGHT, out_of_range="wrap_or_nan")
    d_weight = layers.embedding_backward(np.ones((3, 3)), [5, -1, -6], WEIGHT, **arguments)

    assert_identical(np.isnan(outputs).all(axis=1), np.array([True, False, True]))
    assert_identical(d_weight.sum(axis=1), np.array([0.0, 0.0, 0.0, 0.0, 3.0]))


def test_embedding_mask_keeps_all_ids_but_zero():
    expected = np.array([[False, True], [True, False]])

    assert_identical(layers.embedding_mask([[0, 1], [2, 0]]), expected)


@pytest.mark.parametrize(
    ("ids", "weight", "out_of_range", "message"),
    [
        ([5], WEIGHT, "refuse", r"expected ids from 0 to 4; got 5"),
        ([1, -1], WEIGHT, "refuse", r"expected ids from 0 to 4; got -1"),
        ([-6], WEIGHT, "wrap", r"expected ids from -5 to 4; got -6"),
        ([0.5], WEIGHT, "refuse", r"expected whole numbers as ids; got float64"),
        ([0], WEIGHT[0], "refuse", r"expected weight \(v, e\)"),
        ([0], WEIGHT, "clip", r"must be one of refuse, wrap, wrap_or_nan; got 'clip'"),
    ],
)
def test_embedding_refuses_what_names_no_row(ids, weight, out_of_range, message):
    with pytest.raises(SpecError, match=message):
        layers.embedding(ids, weight, out_of_range=out_of_range)


@pytest.mark.parametrize("fault", ["element_bumped", "channels_swapped", "through_float16"])
def test_embedding_check_catches_faults_in_the_rows(fault):
    faulty = layers.embedding(IDS, seed_array_fault(fault, WEIGHT), out_of_range="refuse")

    with pytest.raises(DivergenceError, match="elements differ"):
        assert_close(faulty, WEIGHT[IDS], **TIGHT)


def test_embedding_computes_in_float64_on_float32_arrays():
    narrow = WEIGHT.astype(np.float32)

    actual = layers.embedding(IDS, narrow, out_of_range="refuse")

    assert_identical(actual, narrow.astype(np.float64)[IDS])
