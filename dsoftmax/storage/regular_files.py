"""Reads of regular files only, of a size that they can have: never of a pipe or a device."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Any

from zarr import storage

from dsoftmax.errors import DataError

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
}
_METADATA = {"zarr.json", ".zarray", ".zattrs", ".zgroup", ".zmetadata"}
_MOST_METADATA = 1 << 26


def require_regular(path: Path, most: int | None = None) -> None:
    """Raise DataError if there is something at a path that is no regular file, or is too large.

    To open a pipe waits for its other end, and a device may have no end.
    """
    try:
        _check(path, most)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}; pass another file") from error


def _check(path: Path, most: int | None) -> None:
    """Raise OSError if there is something at a path that is no regular file, or too large."""
    try:
        found = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return
    if not stat.S_ISREG(found.st_mode):
        what = _KINDS.get(stat.S_IFMT(found.st_mode), "a special file")
        raise OSError(errno.EINVAL, f"it is {what}, not a regular file", str(path))
    _check_size(str(path), found.st_size, most)


def _check_size(name: str, size: int, most: int | None) -> None:
    if most is not None and size > most:
        raise OSError(
            errno.EFBIG, f"it has {size:,} bytes, where at most {most:,} are expected", name
        )


# Pipelines such as that of zarrs tell which stores they can read by the names of their classes.
class LocalStore(storage.LocalStore):
    """A folder of Zarr nodes, read-only, of which only regular files are read.

    Attributes
    ----------
    most_bytes : of a chunk, once its array is known
    """

    most_bytes: int | None = None

    async def get(self, key: str, prototype: Any = None, byte_range: Any = None) -> Any:
        """Return the bytes at a key, or None."""
        name = key.rpartition("/")[2]
        _check(self.root / key, _MOST_METADATA if name in _METADATA else self.most_bytes)
        return await super().get(key, prototype, byte_range)


class ZipStore(storage.ZipStore):
    """A zip file of Zarr nodes, read-only, of which no member is inflated beyond its bound.

    Attributes
    ----------
    most_bytes : of a chunk, once its array is known
    """

    most_bytes: int | None = None

    def _get(self, key: str, prototype: Any, byte_range: Any = None) -> Any:
        if not self._is_open:
            self._sync_open()
        member = self._zf.NameToInfo.get(key)
        if member is not None:
            name = key.rpartition("/")[2]
            most = _MOST_METADATA if name in _METADATA else self.most_bytes
            _check_size(key, member.file_size, most)
        return super()._get(key, prototype, byte_range)
