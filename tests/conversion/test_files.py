"""A file appears whole or not at all."""

import subprocess
import sys

import pytest

from conversion.files import describe_content, partial_file
from parity.errors import ConversionError

# Files of the child process may not grow beyond 100 bytes: writing fails as on a full disk.
LIMITED = """
import resource, sys
from pathlib import Path
from conversion.files import partial_file
from parity.errors import ConversionError
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
try:
    with partial_file(Path(sys.argv[1]), b"x" * 1000):
        print("written")
except ConversionError as error:
    print(error)
"""


def test_partial_file_becomes_the_target(tmp_path):
    target = tmp_path / "x.pt"

    with partial_file(target, b"content") as partial:
        assert partial.suffix == ".pt"
        assert not target.exists()

    assert target.read_bytes() == b"content"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("interruption", [ValueError, KeyboardInterrupt])
def test_partial_file_leaves_the_old_target_when_interrupted(tmp_path, interruption):
    target = tmp_path / "x.pt"
    target.write_bytes(b"old")

    with pytest.raises(interruption), partial_file(target, b"new"):
        raise interruption

    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


def test_partial_file_leaves_nothing_when_the_system_refuses_to_write(tmp_path):
    target = tmp_path / "x.pt"

    outcome = subprocess.run(
        [sys.executable, "-c", LIMITED, target], capture_output=True, text=True, check=True
    )

    assert f"{target}: could not be written: File too large. Nothing was written." in outcome.stdout
    assert list(tmp_path.iterdir()) == []


def test_partial_file_names_a_folder_that_vanished(tmp_path):
    target = tmp_path / "gone" / "x.pt"

    with pytest.raises(ConversionError, match="could not be written"), partial_file(target, b""):
        raise AssertionError


def test_content_is_described_by_size_and_start(tmp_path):
    path = tmp_path / "x.pt"
    path.write_bytes(b"<!DOCTYPE html>")

    assert describe_content(path) == "got 15 bytes starting with b'<!DOCTYP'"
