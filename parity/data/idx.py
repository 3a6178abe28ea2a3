"""Reader of IDX files of uint8, the format of MNIST and its relatives, plain or gzipped.

Source: the format's description at yann.lecun.com/exdb/mnist: two zero bytes, a type code, the
number of dimensions, each dimension as a big-endian 32-bit integer, then the values in row-major
order.
"""

import gzip
import math
import struct
import zlib
from io import BufferedIOBase
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from parity.errors import DataError

UINT8_CODE = 0x08


def read_idx(path: Path, *, ndim: int) -> NDArray[np.uint8]:
    """Return the array of an IDX file of uint8 with `ndim` dimensions; a name in `.gz` is gzipped.

    Raises:
        DataError: If the magic number is another, or the file is shorter or longer than its header
            says.
    """
    try:
        with _open_bytes(path) as file:
            shape = _read_header(file, path, ndim=ndim)
            content = file.read()
    except (OSError, EOFError, zlib.error) as error:
        message = f"{path}: expected a readable file; {error}. Fetch it again."
        raise DataError(message) from error
    if len(content) != math.prod(shape):
        message = (
            f"{path}: expected {math.prod(shape)} bytes after the header, for shape {shape}; "
            f"got {len(content)}. The file is damaged: fetch it again."
        )
        raise DataError(message)
    return np.frombuffer(content, dtype=np.uint8).reshape(shape)


def _open_bytes(path: Path) -> BufferedIOBase:
    return gzip.open(path) if path.suffix == ".gz" else path.open("rb")


def _read_header(file: BufferedIOBase, path: Path, *, ndim: int) -> tuple[int, ...]:
    expected_magic = UINT8_CODE << 8 | ndim
    header = file.read(4 * (1 + ndim))
    magic = int.from_bytes(header[:4])
    if len(header) >= 4 and magic != expected_magic:
        message = (
            f"{path}: expected magic number 0x{expected_magic:08x} (uint8, {ndim} dimensions); "
            f"got 0x{magic:08x}. Give an IDX file of that kind."
        )
        raise DataError(message)
    if len(header) != 4 * (1 + ndim):
        message = (
            f"{path}: expected a header of {4 * (1 + ndim)} bytes; got {len(header)}. "
            "The file is damaged: fetch it again."
        )
        raise DataError(message)
    shape = struct.unpack(f">{ndim}I", header[4:])
    if 0 in shape:
        message = f"{path}: expected dimensions of at least 1; got {shape}. Fetch it again."
        raise DataError(message)
    return shape
