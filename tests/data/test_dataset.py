import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parity.data.dataset import Dataset, describe_resolutions, measure_moments, resize_dataset
from parity.errors import DataError
from parity.testing.assertions import assert_close, assert_identical


def build_dataset(side=4, channels=1, **changes):
    generator = np.random.default_rng(0)
    fields = {
        "name": "tiny",
        "train_images": generator.integers(0, 256, (3, side, side, channels), dtype=np.uint8),
        "train_labels": np.array([0, 1, 1]),
        "test_images": generator.integers(0, 256, (2, side, side, channels), dtype=np.uint8),
        "test_labels": np.array([1, 0]),
        "classes": ("cat", "dog"),
        "mean": (0.5,) * channels,
        "std": (0.25,) * channels,
        "scale": 255,
        "source": "drawn",
    }
    return Dataset(**(fields | changes))


def test_dataset_knows_its_input_size_and_channels():
    dataset = build_dataset(side=6, channels=3)

    assert (dataset.input_size, dataset.channels) == ((6, 6), 3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_images": np.zeros((3, 4, 4, 1))}, "train_images must be uint8 .* got float64"),
        ({"train_images": np.zeros((3, 4, 4), np.uint8)}, r"got uint8 \(3, 4, 4\)"),
        ({"test_images": np.zeros((0, 4, 4, 1), np.uint8)}, "test_images must be uint8 .* none"),
        ({"test_images": np.zeros((2, 4, 5, 1), np.uint8)}, r"must be square; got \(4, 5\)"),
        ({"test_images": np.zeros((2, 5, 5, 1), np.uint8)}, r"must be \(4, 4, 1\) as train_images"),
        ({"train_labels": np.array([0, 1])}, r"int64 \(3,\); got int64 \(2,\)"),
        ({"train_labels": np.array([0, 1, 1], np.int32)}, r"got int32 \(3,\)"),
        ({"test_labels": np.array([0, 2])}, r"must be in \[0, 1\]; got 0 to 2"),
        ({"test_labels": np.array([-1, 0])}, r"must be in \[0, 1\]; got -1 to 0"),
        ({"scale": 16}, "must not exceed scale 16"),
        ({"scale": 256}, r"scale must be in \[1, 255\]; got 256"),
        ({"mean": (0.5, 0.5)}, r"mean must be 1 finite numbers, one a channel; got \(0.5, 0.5\)"),
        ({"mean": (float("nan"),)}, "mean must be 1 finite"),
        ({"std": (0.0,)}, r"std must be > 0; got \(0.0,\)"),
    ],
)
def test_dataset_refuses_what_does_not_fit(changes, message):
    with pytest.raises(DataError, match=message):
        build_dataset(**changes)


def test_dataset_names_all_problems_at_once():
    changes = {"train_labels": np.array([5, 5, 5]), "test_labels": np.array([7, 7])}

    with pytest.raises(DataError, match=r"tiny \(drawn\): train_labels .* test_labels .* 7 to 7"):
        build_dataset(**changes)


@given(st.integers(0, 2**31), st.integers(1, 3), st.sampled_from([16, 255]))
def test_measured_moments_equal_numpy_in_float64(seed, channels, scale):
    generator = np.random.default_rng(seed)
    images = generator.integers(0, scale, (4, 5, 5, channels), dtype=np.uint8, endpoint=True)

    mean, std = measure_moments(images, scale=scale)

    shares = images.astype(np.float64) / scale
    assert_close(mean, shares.mean(axis=(0, 1, 2)), atol=0, rtol=1e-14)
    assert_close(std, shares.std(axis=(0, 1, 2)), atol=0, rtol=1e-13)


@pytest.mark.parametrize("resolution", [0, 4])
def test_resize_returns_the_same_data_set_at_its_own_resolution(resolution):
    dataset = build_dataset(side=4)

    assert resize_dataset(dataset, resolution) is dataset


def test_resize_repeats_pixels_for_a_multiple():
    images = np.array([[1, 2], [3, 4]], dtype=np.uint8).reshape(1, 2, 2, 1)
    dataset = build_dataset(
        train_images=images,
        train_labels=np.array([0]),
        test_images=images,
        test_labels=np.array([0]),
    )

    resized = resize_dataset(dataset, 4)

    expected = [[1, 1, 2, 2], [1, 1, 2, 2], [3, 3, 4, 4], [3, 3, 4, 4]]
    assert resized.train_images[0, :, :, 0].tolist() == expected
    assert resized.test_images[0, :, :, 0].tolist() == expected


def test_resize_averages_blocks_and_rounds_halves_up_for_a_divisor():
    blocks = np.array([[0, 1, 255, 255], [0, 0, 255, 254], [0, 1, 3, 4], [1, 0, 4, 4]], np.uint8)
    images = blocks.reshape(1, 4, 4, 1)
    dataset = build_dataset(train_images=images, train_labels=np.array([0]))

    resized = resize_dataset(dataset, 2)

    # Means 0.25, 254.75, 0.5 and 3.75.
    assert resized.train_images[0, :, :, 0].tolist() == [[0, 255], [1, 4]]


def test_resize_keeps_channels_apart():
    dataset = build_dataset(side=4, channels=3)

    resized = resize_dataset(dataset, 2)

    sums = dataset.train_images[0, :2, :2].sum(axis=(0, 1))
    assert_identical(resized.train_images[0, 0, 0], ((sums + 2) // 4).astype(np.uint8))


def test_resize_pads_zeros_evenly_below_double():
    dataset = build_dataset(side=4)

    resized = resize_dataset(dataset, 6)

    assert_identical(resized.train_images[:, 1:-1, 1:-1], dataset.train_images)
    assert int(resized.train_images.sum()) == int(dataset.train_images.sum())


def test_resize_says_what_it_did_and_keeps_the_constants():
    dataset = build_dataset(side=4)

    resized = resize_dataset(dataset, 2)

    assert resized.source == "drawn; mean pooled from 4x4 to 2x2"
    assert (resized.mean, resized.std) == (dataset.mean, dataset.std)


@pytest.mark.parametrize("resolution", [3, 5, 7, 9, -4])
def test_resize_refuses_what_no_rule_reaches(resolution):
    with pytest.raises(DataError, match=f"tiny: resolution must be 0 or 4.* got {resolution}"):
        resize_dataset(build_dataset(side=4), resolution)


def test_refused_resolution_lists_those_that_work():
    assert describe_resolutions("digits", 8, 11) == (
        "digits: resolution must be 0 or 8, below it 1, 2, 4, above it an even border "
        "(10, 12 or 14) or a multiple (16, 24, ...); got 11."
    )


@given(side=st.integers(1, 12), resolution=st.integers(-3, 40))
def test_resize_reaches_the_resolution_or_refuses(side, resolution):
    dataset = build_dataset(side=side)
    is_multiple = resolution > 0 and (resolution % side == 0 or side % resolution == 0)
    is_border = side < resolution < 2 * side and (resolution - side) % 2 == 0

    try:
        reached = resize_dataset(dataset, resolution).input_size
    except DataError:
        reached = None

    expected = {0: (side, side)}.get(resolution, (resolution, resolution))
    assert reached == (expected if resolution == 0 or is_multiple or is_border else None)
