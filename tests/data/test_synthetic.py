import hashlib

import numpy as np

from parity.data.synthetic import load_synthetic


def test_synthetic_has_its_documented_shape():
    dataset = load_synthetic()

    assert dataset.train_images.shape == (512, 32, 32, 3)
    assert dataset.test_images.shape == (128, 32, 32, 3)
    assert np.ptp(np.bincount(dataset.train_labels)) <= 1


def test_synthetic_is_learnable_from_its_training_part():
    dataset = load_synthetic()
    centres = np.stack(
        [dataset.train_images[dataset.train_labels == label].mean(axis=0) for label in range(10)]
    )

    gaps = ((dataset.test_images[:, np.newaxis] - centres) ** 2).mean(axis=(2, 3, 4))

    assert (gaps.argmin(axis=1) == dataset.test_labels).mean() > 0.95


def test_synthetic_noise_differs_between_images():
    dataset = load_synthetic()

    assert len({image.tobytes() for image in dataset.train_images}) == 512


def test_synthetic_is_the_pinned_data_set():
    dataset = load_synthetic()

    content = dataset.train_images.tobytes() + dataset.test_images.tobytes()

    assert hashlib.sha256(content).hexdigest() == (
        "726ff67b7d2b3c535c9de999950a3d5bb5036c1a2f59729374aebc4f21275583"
    )
