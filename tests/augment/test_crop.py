import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from parity.augment.crop import crop_images, draw_crop_offsets
from parity.testing.assertions import assert_identical

MODES = {"zeros": "constant", "reflect": "reflect"}


def crop_slowly(images, offsets, crop_px, *, padding="zeros"):
    pads = ((crop_px, crop_px), (crop_px, crop_px), (0, 0))
    _, height, width, _ = images.shape
    windows = [
        np.pad(image, pads, mode=MODES[padding])[y : y + height, x : x + width]
        for image, (y, x) in zip(images, offsets.tolist(), strict=True)
    ]
    return np.stack(windows)


def random_images(count, side, channels, seed=0):
    generator = np.random.default_rng(seed)
    return generator.integers(0, 256, size=(count, side, side, channels), dtype=np.uint8)


@given(
    count=st.integers(1, 5),
    side=st.integers(1, 7),
    channels=st.integers(1, 4),
    crop_px=st.integers(0, 4),
    seed=st.integers(0, 2**31),
)
def test_crop_images_equals_padding_and_slicing(count, side, channels, crop_px, seed):
    images = random_images(count, side, channels, seed)
    offsets = draw_crop_offsets(seed, 0, count, crop_px)

    cropped = crop_images(images, offsets, crop_px)

    assert_identical(cropped, crop_slowly(images, offsets, crop_px))


@given(
    count=st.integers(1, 5),
    side=st.integers(2, 7),
    channels=st.integers(1, 4),
    data=st.data(),
    seed=st.integers(0, 2**31),
)
def test_reflecting_crop_equals_what_torch_pads_and_slices(count, side, channels, data, seed):
    crop_px = data.draw(st.integers(0, side - 1))
    images = random_images(count, side, channels, seed)
    offsets = draw_crop_offsets(seed, 0, count, crop_px)
    tensor = torch.from_numpy(images.transpose(0, 3, 1, 2).astype(np.float32))
    padded = torch.nn.functional.pad(tensor, (crop_px,) * 4, mode="reflect").numpy()

    cropped = crop_images(images, offsets, crop_px, padding="reflect")

    windows = [
        image[:, y : y + side, x : x + side]
        for image, (y, x) in zip(padded, offsets.tolist(), strict=True)
    ]
    assert_identical(cropped, np.stack(windows).transpose(0, 2, 3, 1).astype(np.uint8))


def test_reflecting_crop_does_not_repeat_the_edge():
    images = np.array([[1, 2, 3], [4, 5, 6], [7, 8, 9]], dtype=np.uint8)[
        np.newaxis, ..., np.newaxis
    ]

    cropped = crop_images(images, np.array([[0, 1]]), 1, padding="reflect")

    assert cropped[0, :, :, 0].tolist() == [[4, 5, 6], [1, 2, 3], [4, 5, 6]]


def test_reflecting_crop_refuses_pads_as_large_as_the_image():
    with pytest.raises(ValueError, match="must be below the side of 4 pixels; got 4"):
        crop_images(random_images(1, 4, 1), np.array([[0, 0]]), 4, padding="reflect")


@pytest.mark.parametrize("padding", MODES)
def test_crop_images_reads_a_strided_view_under_any_padding(padding):
    images = random_images(3, 5, 3)[:, :, ::-1]
    offsets = np.array([[0, 2], [2, 0], [1, 1]])

    cropped = crop_images(images, offsets, 1, padding=padding)

    assert_identical(cropped, crop_slowly(images, offsets, 1, padding=padding))


def test_crop_images_leaves_its_input_as_it_was():
    images = random_images(2, 4, 1)
    before = images.copy()

    crop_images(images, np.zeros((2, 2), dtype=np.uint16), 2)

    assert_identical(images, before)


def test_crop_images_shifts_zeros_in_at_the_top_left_for_offset_zero():
    images = np.full((1, 2, 2, 1), 7, dtype=np.uint8)

    cropped = crop_images(images, np.array([[0, 0]]), 1)

    assert cropped[0, :, :, 0].tolist() == [[0, 0], [0, 7]]


@pytest.mark.parametrize(
    ("offsets", "message"),
    [
        (np.array([[0, 3]]), r"expected values in \[0, 2\]; got 0 to 3"),
        (np.array([[-1, 0]]), r"expected values in \[0, 2\]; got -1 to 0"),
        (np.array([0, 0]), r"expected shape \(1, 2\); got \(2,\)"),
    ],
    ids=["beyond", "negative", "shape"],
)
def test_crop_images_refuses_windows_outside_the_padding(offsets, message):
    with pytest.raises(ValueError, match=message):
        crop_images(random_images(1, 4, 1), offsets, 1)


def test_draw_crop_offsets_reaches_every_offset_about_equally():
    offsets = draw_crop_offsets(0, 0, 8100, 4)

    counts = np.zeros((9, 9), dtype=int)
    np.add.at(counts, (offsets[:, 0], offsets[:, 1]), 1)

    assert counts.min() > 60  # 100 are expected, with a standard deviation of 10
    assert counts.max() < 140


def test_draw_crop_offsets_differs_between_epochs():
    assert draw_crop_offsets(0, 0, 50, 4).tolist() != draw_crop_offsets(0, 1, 50, 4).tolist()


def test_draw_crop_offsets_gives_the_pinned_values():
    offsets = draw_crop_offsets(0, 0, 4, 4)

    assert offsets.tolist() == [[3, 3], [6, 2], [6, 4], [2, 7]]
