import hashlib

import numpy as np
import pytest
from sklearn.datasets import load_digits as load_bundled

from parity.data.digits import load_digits
from parity.errors import DataError
from parity.testing.assertions import assert_close, assert_identical


@pytest.fixture(scope="module")
def digits():
    return load_digits()


def test_digits_have_the_documented_split(digits):
    assert digits.train_images.shape == (1437, 8, 8, 1)
    assert digits.test_images.shape == (360, 8, 8, 1)


def test_digits_split_holds_every_class_in_proportion(digits):
    assert np.bincount(digits.test_labels).tolist() == [36, 36, 36, 36, 37, 36, 36, 36, 35, 36]


def test_digits_hold_the_bundled_pixels(digits):
    bundled = load_bundled().images.astype(np.uint8)

    both = np.concatenate([digits.train_images, digits.test_images])[..., 0]

    assert_identical(np.sort(both, axis=0), np.sort(bundled, axis=0))


def test_digits_keep_images_and_labels_together(digits):
    bundle = load_bundled()
    label_of = {
        image.astype(np.uint8).tobytes(): int(label)
        for image, label in zip(bundle.images, bundle.target, strict=True)
    }

    assert [label_of[image.tobytes()] for image in digits.test_images] == (
        digits.test_labels.tolist()
    )


def test_digits_constants_are_those_of_the_training_part(digits):
    shares = digits.train_images / 16

    assert_close(digits.mean, [shares.mean()], atol=0, rtol=1e-14)
    assert_close(digits.std, [shares.std()], atol=0, rtol=1e-13)
    assert_close(digits.mean + digits.std, [0.306, 0.376], atol=5e-4, rtol=0)


def test_digits_split_is_the_pinned_one(digits):
    content = digits.test_images.tobytes() + digits.test_labels.astype("<i8").tobytes()

    assert hashlib.sha256(content).hexdigest() == (
        "a3f666b319fdf0c2acf14fb68161ef76eff90f7216f159efe5008ee6557d8c5f"
    )


def test_digits_folds_score_every_image_once():
    tests = np.concatenate([load_digits(fold=fold).test_images for fold in range(5)])

    bundled = load_bundled().images.astype(np.uint8)
    assert sorted(image.tobytes() for image in tests) == sorted(
        image.tobytes() for image in bundled
    )


def test_digits_refuse_a_fold_that_does_not_exist():
    with pytest.raises(DataError, match="digits: fold must be 0 to 4; got 5"):
        load_digits(fold=5)
