import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parity.rng import stream, stream_rows
from parity.testing.assertions import assert_identical

KEYS = st.lists(st.integers() | st.text("ab/.", max_size=3), max_size=3)


def draw(*key):
    return stream(*key).integers(0, 2**63, size=4)


def test_stream_gives_the_pinned_integers():
    drawn = stream(0, "flip", 3).integers(0, 2**32, size=4)

    assert drawn.tolist() == [2359049593, 1381926724, 3977426750, 464644053]


def test_stream_gives_the_pinned_uniforms():
    drawn = stream(7, "initial", "head.weight").random(3)

    assert [value.hex() for value in drawn.tolist()] == [
        "0x1.880e8fcd8e49cp-1",
        "0x1.176430f0d4e5ap-2",
        "0x1.736342c3d37acp-2",
    ]


def test_stream_gives_the_pinned_normals():
    drawn = stream(7, "initial", "head.weight").standard_normal(3)

    assert [value.hex() for value in drawn.tolist()] == [
        "-0x1.1a2bf4129dcbcp-2",
        "-0x1.6287d443135afp-2",
        "0x1.47f71c2c987c9p+0",
    ]


@given(seed=st.integers(), keys=KEYS)
def test_stream_repeats_under_the_same_key(seed, keys):
    assert_identical(draw(seed, "flip", *keys), draw(seed, "flip", *keys))


@pytest.mark.parametrize(
    "key",
    [
        (1, "flip", 3),
        (0, "crop", 3),
        (0, "flip", 4),
        (0, "flip"),
        (0, "flip", 3, 0),
        (0, "flip3"),
        (0, "fli", "p", 3),
        (-0, "flip", "03"),
    ],
    ids=str,
)
def test_stream_changes_with_every_part_of_its_key(key):
    assert set(draw(0, "flip", 3).tolist()).isdisjoint(draw(*key).tolist())


def test_stream_does_not_depend_on_who_drew_before():
    other = stream(0, "crop", 0)
    before = draw(0, "flip", 0)
    other.random(1000)

    assert_identical(draw(0, "flip", 0), before)


def test_stream_leaves_the_global_generator_alone():
    state = np.random.get_state()[1].copy()  # noqa: NPY002  # the global generator is what is watched

    draw(0, "flip", 0)

    assert_identical(np.random.get_state()[1], state)  # noqa: NPY002


def test_streams_of_neighbouring_epochs_are_uncorrelated():
    epochs = np.array([stream(0, "flip", epoch).random(4000) for epoch in range(20)])

    between = np.corrcoef(epochs)[np.triu_indices(20, k=1)]

    assert np.abs(between).max() < 5 / np.sqrt(4000)


@given(rows=st.lists(st.integers(0, 60), max_size=8), size=st.integers(1, 9))
def test_rows_are_those_of_the_table_that_the_stream_fills(rows, size):
    # A row starts at a whole count of the generator, of four numbers each.
    whole = stream(3, "kept", "a").random((61, 4 * -(-size // 4)))[:, :size]

    assert_identical(stream_rows(rows, size, 3, "kept", "a"), whole[rows])


def test_rows_far_apart_are_read_without_what_lies_between():
    first, far = stream_rows([0, 2**40], 2, 3, "kept")

    assert_identical(stream_rows([2**40, 0], 2, 3, "kept"), np.array([far, first]))
    assert set(first.tolist()).isdisjoint(far.tolist())
