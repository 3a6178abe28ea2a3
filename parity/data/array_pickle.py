"""Reader of pickles that hold uint8 arrays, lists and text, which runs no code from the file.

An ordinary unpickler calls whatever the file names. This one knows the four names that NumPy writes
for an array, and puts inert stand-ins of its own in their place; any other name is refused.
"""

import math
import pickle
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parity.errors import DataError


class _PickledDtype:
    """What a file says in place of `numpy.dtype`: the type code only."""

    def __init__(self, code: object = None, *_: object) -> None:
        self.code = code.decode("latin1") if isinstance(code, bytes) else code

    def __setstate__(self, state: object) -> None:
        """Ignore byte order and flags, which uint8 does not have."""


class _PickledArray:
    """What a file says in place of an array: shape, type code and bytes, unchecked."""

    def __init__(self, *_: object) -> None:
        self.state: Any = None

    def __setstate__(self, state: object) -> None:
        self.state = state


def _encode_latin1(text: str, encoding: str) -> bytes:
    """Stand in for `_codecs.encode`, as Python 3 pickles bytes in protocol 2."""
    if encoding not in ("latin1", "latin-1"):
        message = f"expected the encoding latin1; got {encoding!r}"
        raise ValueError(message)
    return text.encode("latin1")


_STAND_INS: dict[tuple[str, str], object] = {
    ("numpy.core.multiarray", "_reconstruct"): _PickledArray,
    ("numpy._core.multiarray", "_reconstruct"): _PickledArray,
    ("numpy", "ndarray"): "numpy.ndarray",
    ("numpy", "dtype"): _PickledDtype,
    ("_codecs", "encode"): _encode_latin1,
}


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> object:
        if (module, name) not in _STAND_INS:
            message = f"one that needs code to load, {module}.{name}, which is not run"
            raise pickle.UnpicklingError(message)
        return _STAND_INS[module, name]


def read_array_pickle(path: Path) -> dict[object, object]:
    """Return the dictionary in a pickle, with NumPy arrays of uint8 and Python 2 strings as bytes.

    Raises:
        DataError: If the file is damaged, holds no dictionary, an array of another type, or names
            anything but NumPy arrays.
    """
    try:
        with path.open("rb") as file:
            content = _ArrayUnpickler(file, encoding="bytes").load()
            has_more = bool(file.read(1))
    except Exception as error:  # a damaged pickle can raise nearly anything
        message = (
            f"{path}: expected a pickle of uint8 arrays, lists and text; "
            f"got {str(error) or type(error).__name__}. "
            "Unpack the archive again."
        )
        raise DataError(message) from error
    if not isinstance(content, dict) or has_more:
        got = "bytes after it" if has_more else type(content).__name__
        message = (
            f"{path}: expected a pickle of one dictionary; got {got}. Unpack the archive again."
        )
        raise DataError(message)
    return {
        key: _build_array(value, path) if isinstance(value, _PickledArray) else value
        for key, value in content.items()
    }


def _build_array(pickled: _PickledArray, path: Path) -> NDArray[np.uint8]:
    match pickled.state:
        case (_, tuple(shape), _PickledDtype(code="u1"), is_fortran, bytes(content)):
            if _is_shape(shape) and math.prod(shape) == len(content):
                array = np.frombuffer(content, dtype=np.uint8)
                return array.reshape(shape, order="F" if is_fortran else "C")
    message = (
        f"{path}: expected an array of uint8 with as many bytes as its shape says. "
        "Unpack the archive again."
    )
    raise DataError(message)


def _is_shape(shape: tuple[object, ...]) -> bool:
    return all(type(length) is int and length > 0 for length in shape)
