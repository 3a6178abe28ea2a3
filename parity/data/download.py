"""Fetching of published files into a folder, checked against their published checksums.

Nothing is fetched unless a caller asks for it. A file counts only once its checksum agrees.
"""

import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import pooch

from parity.errors import DataError


@dataclass(frozen=True, kw_only=True)
class RemoteFile:
    """A published file.

    Attributes:
        url: http or https address.
        name: File name to store it under.
        checksum: `md5:` or `sha256:` and the hexadecimal digest, as its publisher states it.
    """

    url: str
    name: str
    checksum: str


def cache_folder() -> Path:
    """Return the user's cache folder of this toolkit, such as `~/.cache/framework-parity`."""
    return Path(pooch.os_cache("framework-parity"))


def fetch_file(file: RemoteFile, folder: Path) -> Path:
    """Return the path of `file` in `folder`, fetching it unless it is there already.

    Raises:
        DataError: If it cannot be fetched, or has another checksum. A fetched file with another
            checksum is deleted; one that was there before is left as it is.
    """
    path = folder / file.name
    if path.is_file() and not pooch.hashes.hash_matches(path, file.checksum):
        message = (
            f"{path}: expected checksum {file.checksum}; it has another. "
            "Move it away to fetch the published file."
        )
        raise DataError(message)
    try:
        pooch.retrieve(url=file.url, known_hash=file.checksum, fname=file.name, path=folder)
    except ValueError as error:
        message = (
            f"{file.url}: expected checksum {file.checksum}; {error} "
            "Fetch the file another way and name its folder with `--data-dir FOLDER`."
        )
        raise DataError(message) from error
    except OSError as error:
        message = (
            f"{file.url}: download failed ({type(error).__name__}: {error}). "
            "Without network, copy the file from another machine and name its folder with "
            "`--data-dir FOLDER`."
        )
        raise DataError(message) from error
    return path


def unpack_archive(archive: Path, member: str) -> Path:
    """Unpack the folder `member` of an archive next to it, whole or not at all; return its path.

    Raises:
        DataError: If the archive is damaged, lacks the folder, or holds names that point outside.
    """
    target = archive.parent / member
    if target.exists():
        return target
    with tempfile.TemporaryDirectory(dir=archive.parent) as scratch:
        try:
            with tarfile.open(archive) as tar:
                _refuse_outsiders(tar)
                # Python before 3.11.4, Debian 12's among them, has no filters.
                options: dict[str, Any] = (
                    {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
                )
                tar.extractall(scratch, **options)
            (Path(scratch) / member).rename(target)
        except (tarfile.TarError, OSError, EOFError) as error:
            message = (
                f"{archive}: expected an archive with the folder {member!r}; {error}. "
                "Fetch it again."
            )
            raise DataError(message) from error
    return target


def _refuse_outsiders(tar: tarfile.TarFile) -> None:
    """Raise if a member is no plain file or folder below the archive's own."""
    for member in tar:
        name = PurePosixPath(member.name)
        is_plain = member.isfile() or member.isdir()
        if not is_plain or name.is_absolute() or ".." in name.parts:
            message = f"{member.name!r} is no file or folder inside the archive"
            raise tarfile.TarError(message)
