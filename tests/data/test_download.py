import hashlib
import io
import socket
import tarfile

import pytest

from parity.data.download import RemoteFile, fetch_file, unpack_archive
from parity.errors import DataError

CONTENT = b"published"
MD5 = f"md5:{hashlib.md5(CONTENT).hexdigest()}"
SHA256 = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"


@pytest.fixture
def address(web):
    folder, address = web
    (folder / "file.bin").write_bytes(CONTENT)
    return f"{address}/file.bin"


def write_archive(path, members):
    with tarfile.open(path, "w:gz") as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


@pytest.mark.parametrize("checksum", [MD5, SHA256], ids=["md5", "sha256"])
def test_fetch_stores_a_file_whose_checksum_agrees(address, tmp_path, checksum):
    remote = RemoteFile(url=address, name="local.bin", checksum=checksum)

    path = fetch_file(remote, tmp_path / "cache")

    assert path == tmp_path / "cache" / "local.bin"
    assert path.read_bytes() == CONTENT


def test_fetch_refuses_a_wrong_checksum_and_leaves_nothing(address, tmp_path):
    wrong = f"md5:{hashlib.md5(b'other').hexdigest()}"
    remote = RemoteFile(url=address, name="local.bin", checksum=wrong)

    with pytest.raises(DataError, match=f"{address}: expected checksum {wrong}; .* `--data-dir"):
        fetch_file(remote, tmp_path / "cache")

    assert list((tmp_path / "cache").iterdir()) == []


def test_fetch_keeps_a_file_that_is_there_without_network(tmp_path):
    (tmp_path / "local.bin").write_bytes(CONTENT)
    remote = RemoteFile(url="http://127.0.0.1:1/file.bin", name="local.bin", checksum=MD5)

    assert fetch_file(remote, tmp_path).read_bytes() == CONTENT


def test_fetch_does_not_overwrite_a_file_with_another_checksum(address, tmp_path):
    (tmp_path / "local.bin").write_bytes(b"mine")
    remote = RemoteFile(url=address, name="local.bin", checksum=MD5)

    with pytest.raises(DataError, match=r"local.bin: expected checksum md5.* Move it away"):
        fetch_file(remote, tmp_path)

    assert (tmp_path / "local.bin").read_bytes() == b"mine"


def test_fetch_says_that_the_download_failed_without_network(tmp_path):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/file.bin"
    remote = RemoteFile(url=url, name="local.bin", checksum=MD5)

    with pytest.raises(DataError, match=f"{url}: download failed .* Without network, copy"):
        fetch_file(remote, tmp_path)


def test_fetch_says_that_the_download_failed_when_the_server_lacks_the_file(address, tmp_path):
    remote = RemoteFile(url=f"{address}.gone", name="local.bin", checksum=MD5)

    with pytest.raises(DataError, match=r"download failed .* 404"):
        fetch_file(remote, tmp_path)

    assert list(tmp_path.glob("local*")) == []


def test_unpack_puts_the_folder_beside_the_archive(tmp_path):
    archive = write_archive(tmp_path / "set.tar.gz", {"set/a": b"1", "set/b": b"2"})

    folder = unpack_archive(archive, "set")

    assert folder == tmp_path / "set"
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {"a": b"1", "b": b"2"}


@pytest.mark.parametrize(
    "members",
    [{"other/a": b"1"}, {"set/a": b"1", "../outside": b"2"}],
    ids=["other_folder", "outside"],
)
def test_unpack_refuses_another_content_and_leaves_nothing(tmp_path, members):
    (tmp_path / "inner").mkdir()
    archive = write_archive(tmp_path / "inner" / "set.tar.gz", members)

    with pytest.raises(DataError, match=r"set\.tar\.gz: expected an archive with the folder 'set'"):
        unpack_archive(archive, "set")

    assert [path.name for path in tmp_path.rglob("*")] == ["inner", "set.tar.gz"]


def test_unpack_refuses_a_truncated_archive_and_leaves_nothing(tmp_path):
    archive = write_archive(tmp_path / "set.tar.gz", {"set/a": bytes(range(256)) * 64})
    archive.write_bytes(archive.read_bytes()[:-60])

    with pytest.raises(DataError, match="Fetch it again"):
        unpack_archive(archive, "set")

    assert [path.name for path in tmp_path.rglob("*")] == ["set.tar.gz"]
