"""Fashion-MNIST: 60,000 and 10,000 grey images of 28x28 pixels in the four published IDX files.

Source: Xiao, Rasul, Vollgraf 2017, arXiv 1708.07747; file names, links and checksums from the
    README of
github.com/zalandoresearch/fashion-mnist.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from parity.data.dataset import Dataset
from parity.data.download import RemoteFile, cache_folder, fetch_file
from parity.data.idx import read_idx
from parity.errors import DataError

DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")
_URL = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com"
MD5 = {
    "train-images-idx3-ubyte": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
    "train-labels-idx1-ubyte": "25c81989df183df01b3e8a0aad5dffbe",
    "t10k-images-idx3-ubyte": "bef4ecab320f06d8554ea6380940ec79",
    "t10k-labels-idx1-ubyte": "bb300cfdad3c16e7a12a480ee83cd310",
}
REMOTE_FILES = {
    stem: RemoteFile(url=f"{_URL}/{stem}.gz", name=f"{stem}.gz", checksum=f"md5:{digest}")
    for stem, digest in MD5.items()
}
CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
    "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
HOW_TO_GET = (
    "Install it with `apt-get install dataset-fashion-mnist`, name its folder with "
    "`--data-dir FOLDER`, or fetch it with `--download`."
)


def load_fashion_mnist(*, folder: Path | None = None, download: bool = False) -> Dataset:
    """Return Fashion-MNIST from `folder`; without one, from Debian's package or the cache folder.

    With `download`, files that are missing are fetched into `folder` or the cache folder. File
    names may end in `.gz` or not. `mean` and `std` are .2860 and .3530, over all training pixels.

    Raises:
        DataError: If a file is missing or damaged, or images and labels do not belong together.
    """
    paths = find_files(folder, download=download)
    train_images, train_labels = _read_split(paths, "train")
    test_images, test_labels = _read_split(paths, "t10k")
    return Dataset(
        name="fashion_mnist",
        train_images=train_images,
        train_labels=train_labels,
        test_images=test_images,
        test_labels=test_labels,
        classes=CLASSES,
        mean=(0.2860,),
        std=(0.3530,),
        scale=255,
        source=str(paths["train-images-idx3-ubyte"].parent),
    )


def find_files(folder: Path | None, *, download: bool) -> dict[str, Path]:
    """Return the path of each of the four files by its name without `.gz`.

    Raises:
        DataError: If files are missing; all of them are named.
    """
    target = folder or cache_folder() / "fashion_mnist"
    candidates = [folder] if folder else [DEBIAN_FOLDER, target]
    found = [_present_files(candidate) for candidate in candidates]
    complete = next((paths for paths in found if len(paths) == len(MD5)), None)
    if complete:
        return complete
    if download:
        fetched = {stem: REMOTE_FILES[stem] for stem in MD5 if stem not in found[-1]}
        return found[-1] | {stem: fetch_file(file, target) for stem, file in fetched.items()}
    missing = ", ".join(f"{stem}.gz" for stem in MD5 if stem not in found[-1])
    searched = " and ".join(map(str, candidates))
    message = f"fashion_mnist: files not found in {searched}: {missing}. {HOW_TO_GET}"
    raise DataError(message)


def _present_files(folder: Path) -> dict[str, Path]:
    paths = {stem: (folder / stem, folder / f"{stem}.gz") for stem in MD5}
    return {
        stem: next(path for path in names if path.is_file())
        for stem, names in paths.items()
        if any(path.is_file() for path in names)
    }


def _read_split(paths: dict[str, Path], split: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    images_path = paths[f"{split}-images-idx3-ubyte"]
    labels_path = paths[f"{split}-labels-idx1-ubyte"]
    images, labels = read_idx(images_path, ndim=3), read_idx(labels_path, ndim=1)
    if len(images) != len(labels):
        message = (
            f"{labels_path}: expected {len(images)} labels, as many as images in "
            f"{images_path.name}; got {len(labels)}. Fetch both again."
        )
        raise DataError(message)
    if labels.size and int(labels.max()) >= len(CLASSES):
        message = (
            f"{labels_path}: expected labels in [0, {len(CLASSES) - 1}]; got {int(labels.max())} "
            f"at {int(labels.argmax())}. The file is damaged: fetch it again."
        )
        raise DataError(message)
    return images[..., np.newaxis], labels.astype(np.int64)
