"""The table of data sets, and the one function that reads any of them.

To add a data set: one file with a loader, one row here.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from parity.data import cifar10, fashion_mnist
from parity.data.cifar10 import load_cifar10
from parity.data.dataset import Dataset, resize_dataset
from parity.data.digits import load_digits
from parity.data.fashion_mnist import load_fashion_mnist
from parity.data.synthetic import load_synthetic
from parity.errors import DataError, describe_nearest


@dataclass(frozen=True, kw_only=True)
class DatasetRow:
    """One data set.

    Attributes:
        load: Loader; takes `folder` and `download` if the data set needs files, nothing otherwise.
        description: One line for lists.
        needs_files: Whether it is read from files that do not come with the toolkit.
        how_to_get: Where those files come from; empty where none are needed.
    """

    load: Callable[..., Dataset]
    description: str
    needs_files: bool
    how_to_get: str


DATASETS: dict[str, DatasetRow] = {
    "digits": DatasetRow(
        load=load_digits,
        description="1,797 handwritten digits, 8x8 grey, bundled with scikit-learn",
        needs_files=False,
        how_to_get="",
    ),
    "fashion_mnist": DatasetRow(
        load=load_fashion_mnist,
        description="70,000 articles of clothing, 28x28 grey",
        needs_files=True,
        how_to_get=fashion_mnist.HOW_TO_GET,
    ),
    "cifar10": DatasetRow(
        load=load_cifar10,
        description="60,000 photographs in ten classes, 32x32 colour",
        needs_files=True,
        how_to_get=cifar10.HOW_TO_GET,
    ),
    "synthetic": DatasetRow(
        load=load_synthetic,
        description="640 generated images in ten classes, 32x32 colour, for smoke tests",
        needs_files=False,
        how_to_get="",
    ),
}


def load_dataset(
    name: str, *, folder: Path | None = None, resolution: int = 0, download: bool = False
) -> Dataset:
    """Read a data set by name.

    Args:
        name: A key of `DATASETS`.
        folder: Where its files are; without it, the usual places of that data set.
        resolution: Side in pixels to bring the images to, see `resize_dataset`; 0 leaves them.
        download: Whether missing files may be fetched.

    Raises:
        DataError: If the name is unknown, files are missing or damaged, a folder is given for a
            data set that reads none, or the resolution cannot be reached.
    """
    if name not in DATASETS:
        message = (
            f"data set {name!r} not found.{describe_nearest(name, DATASETS)} "
            "List them with `python -m parity list data`."
        )
        raise DataError(message)
    row = DATASETS[name]
    if row.needs_files:
        return resize_dataset(row.load(folder=folder, download=download), resolution)
    if folder is not None:
        message = (
            f"{name}: expected no folder, it reads no files; got {str(folder)!r}. "
            "Leave out `--data-dir`."
        )
        raise DataError(message)
    return resize_dataset(row.load(), resolution)
