import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parity.augment.flip import draw_alternating_flips, draw_flips, flip_images
from parity.testing.assertions import assert_identical


def flip_slowly(images, flips):
    pairs = zip(images, flips.tolist(), strict=True)
    return np.stack([np.fliplr(image) if flip else image for image, flip in pairs])


def random_images(count, side, channels, seed=0):
    generator = np.random.default_rng(seed)
    return generator.integers(0, 256, size=(count, side, side, channels), dtype=np.uint8)


@given(
    side=st.integers(1, 7),
    channels=st.integers(1, 4),
    flips=st.lists(st.booleans(), min_size=1, max_size=6),
    seed=st.integers(0, 2**31),
)
def test_flip_images_equals_mirroring_one_by_one(side, channels, flips, seed):
    images = random_images(len(flips), side, channels, seed)

    flipped = flip_images(images, np.array(flips))

    assert_identical(flipped, flip_slowly(images, np.array(flips)))


@given(st.lists(st.booleans(), min_size=1, max_size=6))
def test_flip_images_twice_is_the_identity(flips):
    images = random_images(len(flips), 5, 3)

    twice = flip_images(flip_images(images, np.array(flips)), np.array(flips))

    assert_identical(twice, images)


def test_flip_images_reads_a_strided_view():
    images = random_images(2, 4, 3)[..., ::-1]
    flips = np.array([True, False])

    assert_identical(flip_images(images, flips), flip_slowly(images, flips))


def test_flip_images_leaves_its_input_as_it_was():
    images = random_images(2, 4, 1)
    before = images.copy()

    flip_images(images, np.array([True, True]))

    assert_identical(images, before)


@pytest.mark.parametrize(
    "flips", [np.array([True]), np.array([0, 1])], ids=["too_few", "no_booleans"]
)
def test_flip_images_refuses_anything_but_one_boolean_an_image(flips):
    with pytest.raises(ValueError, match=r"flips: expected bool of shape \(2,\)"):
        flip_images(random_images(2, 4, 1), flips)


def test_draw_flips_mirrors_about_half():
    flips = draw_flips(0, 0, 10_000)

    assert 4800 < flips.sum() < 5200  # four standard deviations of 50


def test_draw_flips_differs_between_epochs():
    assert draw_flips(0, 0, 64).tolist() != draw_flips(0, 1, 64).tolist()


def test_draw_flips_gives_the_pinned_values():
    assert draw_flips(0, 0, 12).astype(int).tolist() == [0, 0, 1, 1, 0, 0, 1, 1, 0, 0, 1, 0]


@given(seed=st.integers(0, 2**31), epoch=st.integers(0, 99), count=st.integers(1, 50))
def test_alternating_flips_turn_every_image_from_one_epoch_to_the_next(seed, epoch, count):
    before, after = (draw_alternating_flips(seed, number, count) for number in (epoch, epoch + 1))

    assert_identical(after, ~before)


def test_alternating_flips_mirror_about_half_of_the_first_epoch():
    flips = draw_alternating_flips(0, 0, 10_000)

    assert 4800 < flips.sum() < 5200  # four standard deviations of 50


def test_alternating_flips_of_an_image_do_not_depend_on_the_count():
    assert_identical(draw_alternating_flips(3, 4, 9), draw_alternating_flips(3, 4, 30)[:9])


def test_alternating_flips_give_the_pinned_values():
    assert draw_alternating_flips(0, 0, 12).astype(int).tolist() == [
        0,
        1,
        0,
        1,
        0,
        0,
        0,
        0,
        0,
        0,
        1,
        1,
    ]
