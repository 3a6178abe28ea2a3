import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parity.augment.cutout import draw_cutout_corners, square_masks
from parity.testing.assertions import assert_identical


def square_slowly(corner, *, side, cutout_px):
    mask = np.zeros((side, side), dtype=bool)
    y, x = corner
    mask[y : y + cutout_px, x : x + cutout_px] = True
    return mask


@given(side=st.integers(2, 9), data=st.data(), count=st.integers(1, 5), seed=st.integers(0, 2**31))
def test_square_masks_equal_slicing_one_by_one(side, data, count, seed):
    cutout_px = data.draw(st.integers(1, side))
    corners = draw_cutout_corners(seed, 0, count, side=side, cutout_px=cutout_px)

    masks = square_masks(corners, side=side, cutout_px=cutout_px)

    expected = [square_slowly(corner, side=side, cutout_px=cutout_px) for corner in corners]
    assert_identical(masks, np.stack(expected))


@given(side=st.integers(2, 40), data=st.data(), seed=st.integers(0, 2**31))
def test_square_lies_fully_inside_whatever_is_drawn(side, data, seed):
    cutout_px = data.draw(st.integers(1, side))

    corners = draw_cutout_corners(seed, 3, 50, side=side, cutout_px=cutout_px)

    masks = square_masks(corners, side=side, cutout_px=cutout_px)
    assert set(masks.sum(axis=(1, 2)).tolist()) == {cutout_px**2}


@pytest.mark.parametrize(
    ("corner", "told"), [([0, 21], "0 to 21"), ([-1, 0], "-1 to 0")], ids=["beyond", "negative"]
)
def test_square_masks_refuses_a_square_that_leaves_its_image(corner, told):
    with pytest.raises(ValueError, match=rf"expected values in \[0, 20\]; got {told}"):
        square_masks(np.array([corner]), side=32, cutout_px=12)


def test_draw_cutout_corners_reaches_every_corner_about_equally():
    corners = draw_cutout_corners(0, 0, 44_100, side=32, cutout_px=12)

    counts = np.zeros((21, 21), dtype=int)
    np.add.at(counts, (corners[:, 0], corners[:, 1]), 1)

    assert counts.min() > 60  # 100 are expected, with a standard deviation of 10
    assert counts.max() < 140


def test_draw_cutout_corners_differs_between_epochs():
    draws = [draw_cutout_corners(0, epoch, 50, side=32, cutout_px=12) for epoch in (0, 1)]

    assert draws[0].tolist() != draws[1].tolist()


def test_draw_cutout_corners_gives_the_pinned_values():
    corners = draw_cutout_corners(0, 0, 4, side=32, cutout_px=12)

    assert corners.tolist() == [[20, 12], [14, 5], [8, 1], [3, 14]]
