import gzip
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parity.data.idx import read_idx
from parity.errors import DataError
from parity.testing.assertions import assert_identical

LABELS = struct.pack(">II", 0x0801, 3) + bytes([1, 2, 3])


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    return tmp_path_factory.mktemp("idx")


@given(shape=st.lists(st.integers(1, 4), min_size=1, max_size=3), packed=st.booleans())
def test_idx_round_trip(scratch, shape, packed):
    array = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    content = struct.pack(f">I{len(shape)}I", 0x0800 | len(shape), *shape) + array.tobytes()
    path = scratch / ("array.gz" if packed else "array")
    path.write_bytes(gzip.compress(content) if packed else content)

    assert_identical(read_idx(path, ndim=len(shape)), array)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "expected a header of 8 bytes; got 0"),
        (LABELS[:6], "expected a header of 8 bytes; got 6"),
        (LABELS[:-1], r"expected 3 bytes after the header, for shape \(3,\); got 2"),
        (LABELS + b"\0", r"expected 3 bytes after the header, for shape \(3,\); got 4"),
        (b"\0\0\x09\x01" + LABELS[4:], "expected magic number 0x00000801 .* got 0x00000901"),
        (b"\0\0\x08\x03" + LABELS[4:], r"\(uint8, 1 dimensions\); got 0x00000803"),
        (gzip.compress(LABELS), "got 0x1f8b08"),
        (struct.pack(">II", 0x0801, 0), r"expected dimensions of at least 1; got \(0,\)"),
    ],
    ids=["empty", "header", "short", "long", "type", "dimensions", "gzipped", "no_values"],
)
def test_idx_refuses_a_damaged_file_and_names_it(tmp_path, content, message):
    path = tmp_path / "labels"
    path.write_bytes(content)

    with pytest.raises(DataError, match=f"^{path}: .*{message}"):
        read_idx(path, ndim=1)


@pytest.mark.parametrize(
    "content",
    [gzip.compress(LABELS)[:-9], gzip.compress(LABELS)[:12], LABELS, b"\x1f\x8b\x08" + bytes(20)],
    ids=["cut_stream", "cut_early", "not_gzip", "garbage"],
)
def test_idx_refuses_a_damaged_gzip_file_and_names_it(tmp_path, content):
    path = tmp_path / "labels.gz"
    path.write_bytes(content)

    with pytest.raises(DataError, match=f"^{path}: expected .* again"):
        read_idx(path, ndim=1)


def test_idx_refuses_a_gzip_file_whose_content_was_changed(tmp_path):
    content = bytearray(gzip.compress(LABELS, compresslevel=0))
    content[content.index(bytes([1, 2, 3]))] = 9
    path = tmp_path / "labels.gz"
    path.write_bytes(content)

    with pytest.raises(DataError, match="CRC check failed"):
        read_idx(path, ndim=1)
