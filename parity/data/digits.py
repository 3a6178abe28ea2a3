"""The 1,797 handwritten digits of 8x8 pixels that scikit-learn bundles; no download, no files."""

import numpy as np

from parity.data.dataset import Dataset, measure_moments
from parity.data.folds import stratified_folds
from parity.errors import DataError

FOLDS = 5
SCALE = 16


def load_digits(*, fold: int = 0) -> Dataset:
    """Return the digits with one of five stratified folds as test set.

    The folds are `stratified_folds(labels, folds=5, purpose="digits")`, which depends on nothing
    but the labels. Fold 0, the default, gives 1,437 training and 360 test images; the test parts of
    all five together score every image once. Both parts keep scikit-learn's order. Pixel values are
    0 to 16. `mean` and `std` are measured on the training part (fold 0: 0.306 and 0.376).

    Source: scikit-learn 1.9, `load_digits`: the test part of UCI "Optical Recognition of
    Handwritten Digits".

    Raises:
        DataError: If `fold` is not 0 to 4.
    """
    from sklearn import datasets  # takes a second; only this data set needs it

    if not 0 <= fold < FOLDS:
        message = f"digits: fold must be 0 to {FOLDS - 1}; got {fold!r}."
        raise DataError(message)
    bunch = datasets.load_digits()
    images = bunch.images.astype(np.uint8)[..., np.newaxis]
    labels = bunch.target.astype(np.int64)
    is_test = stratified_folds(labels, folds=FOLDS, purpose="digits") == fold
    mean, std = measure_moments(images[~is_test], scale=SCALE)
    return Dataset(
        name="digits",
        train_images=images[~is_test],
        train_labels=labels[~is_test],
        test_images=images[is_test],
        test_labels=labels[is_test],
        classes=tuple(str(digit) for digit in range(10)),
        mean=mean,
        std=std,
        scale=SCALE,
        source=f"scikit-learn load_digits, stratified fold {fold} of {FOLDS} as test set",
    )
