import os
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parity.data.array_pickle import read_array_pickle
from parity.errors import DataError
from parity.testing.assertions import assert_identical

ARRAY = np.arange(6, dtype=np.uint8).reshape(2, 3)


class RunsCommand:
    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


class Calls:
    """Pickles as a call of any function on any arguments."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", [2, 3, 4])
@pytest.mark.parametrize("order", ["C", "F"])
def test_array_pickle_reads_what_numpy_writes_today(tmp_path, protocol, order):
    path = tmp_path / "batch"
    array = np.asarray(ARRAY, order=order)
    path.write_bytes(pickle.dumps({"data": array, "labels": [1, 2]}, protocol=protocol))

    content = read_array_pickle(path)

    assert_identical(content["data"], ARRAY)
    assert content["labels"] == [1, 2]


def test_array_pickle_never_runs_a_command(tmp_path):
    path, trace = tmp_path / "batch", tmp_path / "trace"
    path.write_bytes(pickle.dumps({"data": RunsCommand(f"touch {trace}")}))

    with pytest.raises(DataError, match=f"^{path}: .* needs code to load, posix.system"):
        read_array_pickle(path)

    assert not trace.exists()


@pytest.mark.parametrize(
    "function",
    [eval, getattr, __import__, np.load, np.fromfile, np.memmap, os.remove],
    ids=lambda function: function.__name__,
)
def test_array_pickle_refuses_any_other_name(tmp_path, function):
    path = tmp_path / "batch"
    path.write_bytes(pickle.dumps({"data": Calls(function, "1")}))

    with pytest.raises(DataError, match="needs code to load"):
        read_array_pickle(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "Ran out of input"),
        (b"no pickle", "expected a pickle of uint8 arrays"),
        (pickle.dumps({"data": ARRAY}, protocol=4)[:-20], "expected a pickle of uint8 arrays"),
        (pickle.dumps([1, 2]), "expected a pickle of one dictionary; got list"),
        (pickle.dumps({"a": 1}) + b"more", "got bytes after it"),
        (pickle.dumps({"data": ARRAY.astype(np.int64)}, protocol=4), "expected an array of uint8"),
        (pickle.dumps({"data": ARRAY.astype(np.int8)}, protocol=4), "expected an array of uint8"),
        (pickle.dumps({"data": Calls(np.ndarray, (2,))}), "not callable"),
        (
            pickle.dumps({"data": ARRAY}, protocol=4).replace(b"K\x02K\x03\x86", b"K\x02K\x04\x86"),
            "expected an array of uint8 with as many bytes as its shape says",
        ),
        (b"cnumpy\nndarray\n(I1000000000000\ntR.", "not callable"),
        (b"c_codecs\nencode\n(Vtext\nVrot13\ntR.", "expected the encoding latin1; got 'rot13'"),
    ],
    ids=[
        "empty", "text", "cut", "list", "trailing", "int64", "int8", "uninitialised", "shape",
        "allocation", "codec",
    ],
)  # fmt: skip
def test_array_pickle_refuses_anything_else(tmp_path, content, message):
    path = tmp_path / "batch"
    path.write_bytes(content)

    with pytest.raises(DataError, match=message):
        read_array_pickle(path)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    return tmp_path_factory.mktemp("pickles")


@given(st.binary(max_size=40), st.integers(0, 200))
def test_array_pickle_reads_or_refuses_whatever_is_damaged(scratch, noise, place):
    whole = pickle.dumps({"data": ARRAY, "labels": [1, 2]}, protocol=2)
    path = scratch / "batch"
    path.write_bytes(whole[:place] + noise + whole[place + len(noise) :])

    try:
        content = read_array_pickle(path)
    except DataError as error:
        content = str(error)

    assert isinstance(content, dict) or content.startswith(str(path))
