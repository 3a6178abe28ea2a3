"""Whitening filters against what whitening means: outputs uncorrelated, of unit variance."""

import numpy as np
import pytest

from parity.rng import stream
from parity.testing.assertions import assert_close, assert_identical
from parity.whitening import EPSILON, WHITENING_IMAGES, whitening_filters


def correlated_images(channels=3, side=9):
    """Return images whose neighbouring pixels and channels resemble each other."""
    noise = stream(0, "whitening").standard_normal((40, side, side, channels))
    smooth = noise + np.roll(noise, 1, axis=1) + np.roll(noise, 1, axis=2)
    return smooth + smooth.mean(axis=3, keepdims=True) + 0.5


def patch_moments(images, kernel):
    """Return the second moments of all patches, by loops over their places."""
    count, height, width, _ = images.shape
    rows = [
        images[index, y : y + kernel, x : x + kernel].transpose(2, 0, 1).ravel()
        for index in range(count)
        for y in range(height - kernel + 1)
        for x in range(width - kernel + 1)
    ]
    return np.mean([np.outer(row, row) for row in rows], axis=0)


@pytest.mark.parametrize(("channels", "kernel"), [(1, 2), (3, 2), (2, 3)])
def test_filtered_patches_are_uncorrelated_with_unit_variance(channels, kernel):
    images = correlated_images(channels)

    filters = whitening_filters(images, kernel=kernel, order="descending")

    count = channels * kernel**2
    assert filters.shape == (2 * count, channels, kernel, kernel)
    rows = filters[:count].reshape(count, -1)
    moments = patch_moments(images, kernel)
    values = np.sort(np.linalg.eigvalsh(moments))[::-1]
    expected = np.diag(values / (values + EPSILON))
    assert_close(rows @ moments @ rows.T, expected, atol=1e-11, rtol=0.0)


def test_second_half_holds_the_negatives():
    filters = whitening_filters(correlated_images(), kernel=2, order="descending")

    assert_identical(filters[12:], -filters[:12])


def test_largest_element_of_an_eigenvector_is_positive():
    rows = whitening_filters(correlated_images(), kernel=2, order="descending")[:12].reshape(12, 12)

    assert (rows[np.arange(12), abs(rows).argmax(axis=1)] > 0.0).all()


def test_ascending_order_is_the_descending_one_reversed():
    descending, ascending = (
        whitening_filters(correlated_images(), kernel=2, order=order)
        for order in ("descending", "ascending")
    )

    assert_identical(ascending[:12], np.ascontiguousarray(descending[:12][::-1]))


def test_mean_is_not_taken_off():
    images = correlated_images()

    first, second = (
        whitening_filters(shifted, kernel=2, order="descending")
        for shifted in (images, images + 1.0)
    )

    assert abs(first - second).max() > 1e-2


def test_as_many_images_count_as_published():
    """Source: cifar10-airbench, every script whitens by its first 5000 training images."""
    assert WHITENING_IMAGES == 5_000
