"""CIFAR-10: 50,000 and 10,000 colour images of 32x32 pixels, in its Python or binary format.

Source: Krizhevsky 2009, "Learning Multiple Layers of Features from Tiny Images"; both formats and
the MD5 of each archive: www.cs.toronto.edu/~kriz/cifar.html.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from parity.data.array_pickle import read_array_pickle
from parity.data.dataset import Dataset
from parity.data.download import RemoteFile, cache_folder, fetch_file, unpack_archive
from parity.errors import DataError

PYTHON_FOLDER = "cifar-10-batches-py"
BINARY_FOLDER = "cifar-10-batches-bin"
ARCHIVES = {
    PYTHON_FOLDER: RemoteFile(
        url="https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
        name="cifar-10-python.tar.gz",
        checksum="md5:c58f30108f718f92721af3b95e74349a",
    ),
    BINARY_FOLDER: RemoteFile(
        url="https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
        name="cifar-10-binary.tar.gz",
        checksum="md5:c32a1d4ab5d03f1284b67883e8d87530",
    ),
}
BATCHES = (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch")
CLASSES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip
IMAGE_BYTES = 3 * 32 * 32
HOW_TO_GET = (
    "Unpack cifar-10-python.tar.gz or cifar-10-binary.tar.gz and name its folder with "
    "`--data-dir FOLDER`, or fetch it with `--download`."
)

Split = tuple[NDArray[np.uint8], NDArray[np.int64]]


def load_cifar10(*, folder: Path | None = None, download: bool = False) -> Dataset:
    """Return CIFAR-10 from `folder`, or from the cache folder where none is given.

    `folder` holds the batches, or one of the two published folders that do. With `download`, the
    Python version is fetched and unpacked there if nothing is found. `mean` and `std` are taken
    over all pixels of the training set. The std (.2023, .1994, .2010) that many repositories copy
    is the mean of the images' own standard deviations.

    Raises:
        DataError: If files are missing or damaged, or a pickle needs code to load.
    """
    batches = find_folder(folder, download=download)
    is_python = any((batches / name).is_file() for name in BATCHES)
    read, suffix = (read_python_batch, "") if is_python else (read_binary_batch, ".bin")
    *train, (test_images, test_labels) = _read_batches(batches, read, suffix)
    return Dataset(
        name="cifar10",
        train_images=np.concatenate([images for images, _ in train]),
        train_labels=np.concatenate([labels for _, labels in train]),
        test_images=test_images,
        test_labels=test_labels,
        classes=CLASSES,
        mean=(0.4914, 0.4822, 0.4465),
        std=(0.2470, 0.2435, 0.2616),
        scale=255,
        source=str(batches),
    )


def find_folder(folder: Path | None, *, download: bool) -> Path:
    """Return the folder that holds the batches.

    Raises:
        DataError: If neither the folder nor a published folder in it holds a batch, and nothing may
            be fetched.
    """
    root = folder or cache_folder()
    for candidate in (root, root / PYTHON_FOLDER, root / BINARY_FOLDER):
        files = [candidate / f"{name}{suffix}" for name in BATCHES for suffix in ("", ".bin")]
        if any(path.is_file() for path in files):
            return candidate
    if download:
        return unpack_archive(fetch_file(ARCHIVES[PYTHON_FOLDER], root), PYTHON_FOLDER)
    message = (
        f"cifar10: no batches found in {root}, nor in {PYTHON_FOLDER} or {BINARY_FOLDER} below it. "
        f"{HOW_TO_GET}"
    )
    raise DataError(message)


def _read_batches(folder: Path, read: Callable[[Path], Split], suffix: str) -> list[Split]:
    paths = [folder / f"{name}{suffix}" for name in BATCHES]
    missing = [path.name for path in paths if not path.is_file()]
    if missing:
        message = (
            f"{folder}: expected 6 batches; missing {', '.join(missing)}. Unpack the archive again."
        )
        raise DataError(message)
    parts = [read(path) for path in paths]
    counts = {path.name: len(labels) for path, (_, labels) in zip(paths, parts, strict=True)}
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{name} {count}" for name, count in counts.items())
        message = (
            f"{folder}: expected as many images in each batch; got {listed}. "
            "Unpack the archive again."
        )
        raise DataError(message)
    return parts


def read_binary_batch(path: Path) -> Split:
    """Return images `(n, 32, 32, 3)` and labels of a binary batch.

    A record is a label byte and 3,072 pixel bytes, one colour plane after the other.

    Raises:
        DataError: If the file is no whole number of records, or a label is not 0 to 9.
    """
    content = np.fromfile(path, dtype=np.uint8)
    record_bytes = 1 + IMAGE_BYTES
    if content.size == 0 or content.size % record_bytes:
        message = (
            f"{path}: expected records of {record_bytes} bytes; got {content.size} bytes, "
            f"{content.size % record_bytes} past the last whole record. "
            "The file is damaged: fetch it again."
        )
        raise DataError(message)
    records = content.reshape(-1, record_bytes)
    return _planes_to_images(records[:, 1:]), _checked_labels(path, records[:, 0])


def read_python_batch(path: Path) -> Split:
    """Return images `(n, 32, 32, 3)` and labels of a pickled batch, without running code from it.

    Raises:
        DataError: If the pickle is damaged, needs code, or its `data` and `labels` do not belong
            together.
    """
    batch = read_array_pickle(path)
    keys = {key.decode("latin1") if isinstance(key, bytes) else key: key for key in batch}
    missing = [key for key in ("data", "labels") if key not in keys]
    if missing:
        message = f"{path}: expected the keys data and labels; missing {', '.join(missing)}."
        raise DataError(message)
    data, labels = batch[keys["data"]], batch[keys["labels"]]
    got = data.shape if isinstance(data, np.ndarray) else type(data).__name__
    if not isinstance(data, np.ndarray) or got != (len(data), IMAGE_BYTES) or not len(data):
        message = (
            f"{path}: data must be uint8 (n, {IMAGE_BYTES}); got {got}. Unpack the archive again."
        )
        raise DataError(message)
    if not isinstance(labels, list) or len(labels) != len(data):
        found = f"{len(labels)}" if isinstance(labels, list) else type(labels).__name__
        message = (
            f"{path}: labels must be a list of {len(data)}; got {found}. Unpack the archive again."
        )
        raise DataError(message)
    return _planes_to_images(data), _checked_labels(path, labels)


def _planes_to_images(planes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(planes.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))


def _checked_labels(path: Path, labels: NDArray[np.uint8] | list[object]) -> NDArray[np.int64]:
    wrong = [
        f"{value!r} at {index}"
        for index, value in enumerate(labels if isinstance(labels, list) else labels.tolist())
        if type(value) is not int or not 0 <= value < len(CLASSES)
    ]
    if wrong:
        message = (
            f"{path}: expected labels in [0, {len(CLASSES) - 1}]; got {len(wrong)} others, "
            f"first {wrong[0]}. The file is damaged: fetch it again."
        )
        raise DataError(message)
    return np.asarray(labels, dtype=np.int64)
