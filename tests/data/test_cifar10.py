import hashlib
import os
import pickle
import tarfile

import numpy as np
import pytest

from parity.data import cifar10
from parity.data.cifar10 import load_cifar10, read_binary_batch
from parity.data.download import RemoteFile
from parity.errors import DataError
from parity.testing.assertions import assert_identical


class RunsCommand:
    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.fixture(params=["python", "binary"])
def cifar_folder(request):
    return request.getfixturevalue(f"cifar_{request.param}_folder")


def write_batch(folder, name, **changes):
    batch = {"data": np.zeros((4, 3072), np.uint8), "labels": [0, 1, 2, 3]} | changes
    (folder / name).write_bytes(pickle.dumps(batch, protocol=2))


def test_cifar10_reads_every_batch_in_order(cifar_folder, cifar_batches):
    dataset = load_cifar10(folder=cifar_folder)

    *train, test = cifar_batches.values()
    assert dataset.train_labels.tolist() == [label for _, labels in train for label in labels]
    assert dataset.test_labels.tolist() == test[1]
    assert (len(dataset.train_images), len(dataset.test_images)) == (20, 4)


def test_cifar10_turns_planes_into_channels(cifar_folder, cifar_batches):
    dataset = load_cifar10(folder=cifar_folder)

    planes = cifar_batches["data_batch_1"][0][1]
    pixel = [planes[0 + 5 * 32 + 7], planes[1024 + 5 * 32 + 7], planes[2048 + 5 * 32 + 7]]
    assert dataset.train_images[1, 5, 7].tolist() == pixel


def test_cifar10_is_the_same_from_both_formats(cifar_python_folder, cifar_binary_folder):
    python = load_cifar10(folder=cifar_python_folder)
    binary = load_cifar10(folder=cifar_binary_folder)

    assert_identical(python.train_images, binary.train_images)
    assert_identical(python.test_labels, binary.test_labels)


def test_cifar10_is_found_from_the_parent_folder(cifar_folder):
    dataset = load_cifar10(folder=cifar_folder.parent)

    assert dataset.source == str(cifar_folder)


def test_cifar10_names_a_missing_batch(cifar_folder):
    next(cifar_folder.glob("data_batch_3*")).unlink()

    with pytest.raises(DataError, match="expected 6 batches; missing data_batch_3"):
        load_cifar10(folder=cifar_folder)


def test_cifar10_says_how_to_get_it_when_nothing_is_there(tmp_path):
    with pytest.raises(DataError, match=rf"no batches found in {tmp_path}, .* `--download`"):
        load_cifar10(folder=tmp_path)


def test_cifar10_refuses_a_batch_with_fewer_images(cifar_binary_folder):
    path = cifar_binary_folder / "data_batch_5.bin"
    path.write_bytes(path.read_bytes()[:-3073])

    with pytest.raises(DataError, match=r"as many images in each batch; .* data_batch_5\.bin 3,"):
        load_cifar10(folder=cifar_binary_folder)


@pytest.mark.parametrize("change", [-1, 1, -3072], ids=["short", "long", "label_only"])
def test_cifar10_refuses_a_binary_batch_of_broken_records(cifar_binary_folder, change):
    path = cifar_binary_folder / "test_batch.bin"
    content = path.read_bytes()
    path.write_bytes(content[:change] if change < 0 else content + bytes(change))

    with pytest.raises(DataError, match=f"^{path}: expected records of 3073 bytes; got"):
        load_cifar10(folder=cifar_binary_folder)


def test_cifar10_refuses_an_empty_binary_batch(tmp_path):
    path = tmp_path / "test_batch.bin"
    path.write_bytes(b"")

    with pytest.raises(DataError, match="got 0 bytes"):
        read_binary_batch(path)


def test_cifar10_refuses_a_binary_label_beyond_its_classes(cifar_binary_folder):
    path = cifar_binary_folder / "data_batch_2.bin"
    content = bytearray(path.read_bytes())
    content[3073] = 10
    path.write_bytes(content)

    with pytest.raises(DataError, match=r"data_batch_2.bin: expected labels .* first 10 at 1"):
        load_cifar10(folder=cifar_binary_folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": [0, 1, 2, 10]}, r"expected labels in \[0, 9\]; got 1 others, first 10 at 3"),
        ({"labels": [0, 1, 2, -1]}, "first -1 at 3"),
        ({"labels": [0, 1, 2, 3.0]}, "first 3.0 at 3"),
        ({"labels": [0, 1, 2]}, "labels must be a list of 4; got 3"),
        ({"labels": "0123"}, "labels must be a list of 4; got str"),
        ({"data": np.zeros((4, 3071), np.uint8)}, r"data must be uint8 .* got \(4, 3071\)"),
        ({"data": np.zeros(3072, np.uint8)}, r"got \(3072,\)"),
        ({"data": np.zeros((4, 3072))}, "expected an array of uint8"),
        ({"data": [0] * 3072}, "data must be uint8 .* got list"),
    ],
)
def test_cifar10_refuses_a_python_batch_that_does_not_fit(cifar_python_folder, changes, message):
    write_batch(cifar_python_folder, "data_batch_4", **changes)

    with pytest.raises(DataError, match=f"data_batch_4: .*{message}"):
        load_cifar10(folder=cifar_python_folder)


def test_cifar10_names_the_keys_a_python_batch_lacks(cifar_python_folder):
    (cifar_python_folder / "test_batch").write_bytes(pickle.dumps({"fine_labels": []}))

    with pytest.raises(DataError, match="expected the keys data and labels; missing data, labels"):
        load_cifar10(folder=cifar_python_folder)


def test_cifar10_refuses_a_truncated_python_batch(cifar_python_folder):
    path = cifar_python_folder / "data_batch_1"
    path.write_bytes(path.read_bytes()[:-100])

    with pytest.raises(DataError, match=f"^{path}: expected a pickle"):
        load_cifar10(folder=cifar_python_folder)


def test_cifar10_never_runs_code_from_a_python_batch(cifar_python_folder, tmp_path):
    trace = tmp_path / "trace"
    write_batch(cifar_python_folder, "test_batch", filenames=RunsCommand(f"touch {trace}"))

    with pytest.raises(DataError, match=r"needs code to load, posix\.system, which is not run"):
        load_cifar10(folder=cifar_python_folder)

    assert not trace.exists()


def test_cifar10_downloads_and_unpacks_into_the_cache(cache, cifar_python_folder, web, monkeypatch):
    folder, address = web
    archive = folder / "cifar.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(cifar_python_folder, arcname=cifar_python_folder.name)
    checksum = f"md5:{hashlib.md5(archive.read_bytes()).hexdigest()}"
    remote = RemoteFile(url=f"{address}/cifar.tar.gz", name="cifar.tar.gz", checksum=checksum)
    monkeypatch.setitem(cifar10.ARCHIVES, cifar10.PYTHON_FOLDER, remote)

    dataset = load_cifar10(download=True)

    assert dataset.source == str(cache / "cifar-10-batches-py")
    assert_identical(dataset.train_images, load_cifar10(folder=cifar_python_folder).train_images)
    assert len(load_cifar10().test_labels) == 4
