"""Data sets, one file each and one table to load them by name, and the batches made from them."""

from parity.data.batches import (
    START_DIGEST,
    BatchStream,
    DrawnBatch,
    chain_digest,
    normalize_images,
)
from parity.data.dataset import Dataset, resize_dataset
from parity.data.folds import stratified_folds
from parity.data.table import DATASETS, DatasetRow, load_dataset

__all__ = [
    "DATASETS",
    "START_DIGEST",
    "BatchStream",
    "Dataset",
    "DatasetRow",
    "DrawnBatch",
    "chain_digest",
    "load_dataset",
    "normalize_images",
    "resize_dataset",
    "stratified_folds",
]
