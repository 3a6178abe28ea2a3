import pytest

from parity.data import DATASETS, Dataset, load_dataset
from parity.errors import DataError

BUNDLED = [name for name, row in DATASETS.items() if not row.needs_files]


def test_every_row_describes_itself_and_its_files():
    described = {name: bool(row.description) for name, row in DATASETS.items()}
    explained = {name: bool(row.how_to_get) for name, row in DATASETS.items()}

    assert all(described.values())
    assert explained == {name: row.needs_files for name, row in DATASETS.items()}


@pytest.mark.parametrize("name", BUNDLED)
def test_load_dataset_reads_bundled_data_by_name(name):
    dataset = load_dataset(name)

    assert isinstance(dataset, Dataset)
    assert dataset.name == name


def test_load_dataset_reads_files_by_name(cifar_binary_folder):
    dataset = load_dataset("cifar10", folder=cifar_binary_folder)

    assert (dataset.name, len(dataset.test_labels)) == ("cifar10", 4)


@pytest.mark.parametrize("fashion_suffix", [".gz"], indirect=True)
@pytest.mark.parametrize("resolution", [14, 28, 32, 56])
def test_load_dataset_brings_images_to_a_resolution(fashion_folder, resolution):
    dataset = load_dataset("fashion_mnist", folder=fashion_folder, resolution=resolution)

    assert dataset.input_size == (resolution, resolution)


def test_load_dataset_names_the_nearest_of_an_unknown_name():
    with pytest.raises(DataError, match=r"data set 'digit' not found\. Nearest: digits\."):
        load_dataset("digit")


@pytest.mark.parametrize("name", BUNDLED)
def test_load_dataset_refuses_a_folder_for_bundled_data(name, tmp_path):
    with pytest.raises(DataError, match=f"{name}: expected no folder.* Leave out `--data-dir`"):
        load_dataset(name, folder=tmp_path)
