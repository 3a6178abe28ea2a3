import hashlib
import shutil

import numpy as np
import pytest

from parity.data import fashion_mnist
from parity.data.dataset import measure_moments
from parity.data.download import RemoteFile
from parity.data.fashion_mnist import load_fashion_mnist
from parity.errors import DataError
from parity.testing.assertions import assert_close, assert_identical

STEMS = tuple(fashion_mnist.MD5)


@pytest.fixture(scope="module")
def published():
    return load_fashion_mnist()


def test_published_fashion_mnist_has_its_counts(published):
    assert published.train_images.shape == (60_000, 28, 28, 1)
    assert published.test_images.shape == (10_000, 28, 28, 1)
    assert np.bincount(published.train_labels).tolist() == [6000] * 10
    assert np.bincount(published.test_labels).tolist() == [1000] * 10


def test_published_fashion_mnist_has_the_stated_mean_and_std(published):
    mean, std = measure_moments(published.train_images, scale=255)

    assert_close(published.mean, mean, atol=5e-5, rtol=0)
    assert_close(published.std, std, atol=5e-5, rtol=0)


def test_published_fashion_mnist_starts_with_an_ankle_boot(published):
    labels = [published.classes[label] for label in published.train_labels[:3]]

    assert labels == ["Ankle boot", "T-shirt/top", "T-shirt/top"]


def test_fashion_mnist_reads_both_names_of_its_files(fashion_folder, fashion_arrays):
    dataset = load_fashion_mnist(folder=fashion_folder)

    images = fashion_arrays["train-images-idx3-ubyte"]
    assert_identical(dataset.train_images[..., 0], images)
    assert dataset.test_labels.tolist() == [0, 1, 2, 3]
    assert dataset.source == str(fashion_folder)


@pytest.mark.parametrize("stem", STEMS)
def test_fashion_mnist_names_a_missing_file_and_what_to_do(fashion_folder, fashion_suffix, stem):
    (fashion_folder / f"{stem}{fashion_suffix}").unlink()

    with pytest.raises(DataError, match=f"{stem}.gz") as raised:
        load_fashion_mnist(folder=fashion_folder)

    assert str(raised.value) == (
        f"fashion_mnist: files not found in {fashion_folder}: {stem}.gz. "
        "Install it with `apt-get install dataset-fashion-mnist`, name its folder with "
        "`--data-dir FOLDER`, or fetch it with `--download`."
    )


def test_fashion_mnist_names_the_places_it_searched(cache, tmp_path, monkeypatch):
    monkeypatch.setattr(fashion_mnist, "DEBIAN_FOLDER", tmp_path / "debian")

    with pytest.raises(DataError, match=f"{tmp_path / 'debian'} and {cache / 'fashion_mnist'}"):
        load_fashion_mnist()


def test_fashion_mnist_refuses_more_images_than_labels(fashion_folder, fashion_suffix):
    source, target = (
        fashion_folder / f"{split}-images-idx3-ubyte{fashion_suffix}" for split in ("train", "t10k")
    )
    shutil.copy(source, target)

    with pytest.raises(DataError, match=r"t10k-labels.* expected 6 labels, .* got 4"):
        load_fashion_mnist(folder=fashion_folder)


def test_fashion_mnist_refuses_a_label_beyond_its_classes(fashion_folder, fashion_suffix):
    path = fashion_folder / "t10k-labels-idx1-ubyte"
    path.with_suffix(fashion_suffix).unlink()
    path.write_bytes(b"\0\0\x08\x01\0\0\0\x04" + bytes([0, 1, 10, 3]))

    with pytest.raises(DataError, match=r"expected labels in \[0, 9\]; got 10 at 2"):
        load_fashion_mnist(folder=fashion_folder)


@pytest.mark.parametrize("fashion_suffix", [".gz"], indirect=True)
def test_fashion_mnist_downloads_into_the_cache(cache, fashion_folder, web, monkeypatch):
    folder, address = web
    monkeypatch.setattr(fashion_mnist, "DEBIAN_FOLDER", folder / "debian")
    monkeypatch.setattr(fashion_mnist, "REMOTE_FILES", publish(fashion_folder, folder, address))

    dataset = load_fashion_mnist(download=True)

    assert dataset.source == str(cache / "fashion_mnist")
    assert_identical(dataset.train_images, load_fashion_mnist(folder=fashion_folder).train_images)


@pytest.mark.parametrize("fashion_suffix", [".gz"], indirect=True)
def test_fashion_mnist_downloads_only_what_its_folder_lacks(
    fashion_folder, web, tmp_path, monkeypatch
):
    folder, address = web
    monkeypatch.setattr(fashion_mnist, "REMOTE_FILES", publish(fashion_folder, folder, address))
    kept = fashion_folder / "t10k-labels-idx1-ubyte"
    kept.with_suffix(".gz").unlink()
    kept.write_bytes(b"\0\0\x08\x01\0\0\0\x04" + bytes([9, 9, 9, 9]))
    (fashion_folder / "train-labels-idx1-ubyte.gz").unlink()

    dataset = load_fashion_mnist(folder=fashion_folder, download=True)

    assert dataset.test_labels.tolist() == [9, 9, 9, 9]
    assert dataset.train_labels.tolist() == [0, 1, 2, 3, 4, 5]


def publish(source, folder, address):
    shutil.copytree(source, folder, dirs_exist_ok=True)
    digests = {
        stem: hashlib.md5((folder / f"{stem}.gz").read_bytes()).hexdigest() for stem in STEMS
    }
    return {
        stem: RemoteFile(url=f"{address}/{stem}.gz", name=f"{stem}.gz", checksum=f"md5:{digest}")
        for stem, digest in digests.items()
    }
