"""Folders, local or at a URL, in which each file is written completely or not at all."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import fsspec

from dsoftmax.errors import DataError, quoted, shortened
from dsoftmax.storage.credentials import public_errors, public_url
from dsoftmax.storage.regular_files import require_regular
from dsoftmax.storage.urls import error_text, locate, storage_options

_DSOFTMAX_FILE = re.compile(r"checkpoint-\d{8,}(\.|$)|dsoftmax-lease\.json")


class LocalFolder:
    """A folder on disk; every method raises OSError if the disk fails.

    Attributes
    ----------
    place : its path, as it was given
    """

    def __init__(self, path: Path) -> None:
        self.place = str(path)
        self._path = path.absolute()
        self._made: list[Path] = []

    def names(self) -> list[str]:
        """Return the names in it, none if there is no such folder."""
        try:
            return sorted(os.listdir(self._path))
        except FileNotFoundError:
            return []
        except NotADirectoryError:
            raise DataError(f"{self.place} is a file, or lies in one; give a folder") from None

    def read(self, name: str) -> bytes:
        """Return the content of a file; FileNotFoundError if there is none."""
        require_regular(self._path / name)
        return (self._path / name).read_bytes()

    def write(self, name: str, *parts: bytes | memoryview) -> None:
        """Create or replace a file atomically; it is durable when this returns."""
        with self._partial(name, *parts) as partial:
            os.replace(partial, self._path / name)
        _sync(self._path)

    def create(self, name: str, content: bytes) -> None:
        """Create a file exclusively; FileExistsError if there is one."""
        while not self._try_link(name, content):
            pass  # another process removed the partial file as the leftover of a killed one

    def remove(self, name: str) -> None:
        """Remove a file, if there is one."""
        (self._path / name).unlink(missing_ok=True)

    def leave(self) -> None:
        """Remove the folder, if it was made here and nothing is in it."""
        remove_empty(self._made)

    def _try_link(self, name: str, content: bytes) -> bool:
        try:
            with self._partial(name, content) as partial:
                self._link(partial, self._path / name, content)
        except FileNotFoundError:  # another process has removed the file, or the empty folder
            return False
        return True

    def _link(self, partial: Path, path: Path, content: bytes) -> None:
        try:
            os.link(partial, path)
        except FileNotFoundError:
            raise
        except FileExistsError:
            # A network disk may send a request twice: then the second one fails because
            # the first one has made the link.
            if not _is_linked(partial):
                raise
        except OSError:  # a disk without links: the content comes after the name
            _create(path, content)

    @contextmanager
    def _partial(self, name: str, *parts: bytes | memoryview) -> Iterator[Path]:
        """Write a file beside the one of this name, and remove it unless it was moved."""
        self._make()
        partial = self._path / f"{name}.partial-{uuid4().hex[:8]}"
        try:
            with open(partial, "xb") as file:
                for part in parts:
                    file.write(part)
                file.flush()
                os.fsync(file.fileno())
            yield partial
        finally:
            partial.unlink(missing_ok=True)

    def _make(self) -> None:
        if self._path.is_dir():
            return
        self._made = missing_folders(self._path)
        try:
            self._path.mkdir(parents=True, exist_ok=True)
        except FileExistsError as error:
            raise NotADirectoryError(errno.ENOTDIR, "not a folder", self.place) from error
        _sync(self._path.parent)


def missing_folders(path: Path) -> list[Path]:
    """Return the folders that making this one would make, the innermost first."""
    return [folder for folder in (path, *path.parents) if not folder.exists()]


def remove_empty(folders: Sequence[Path]) -> None:
    """Remove folders, the innermost first, until one is not empty."""
    with suppress(OSError):
        for folder in folders:
            folder.rmdir()


def _is_linked(partial: Path) -> bool:
    try:
        return partial.stat().st_nlink > 1
    except FileNotFoundError:  # another process removed it as a leftover
        return False


def _create(path: Path, content: bytes) -> None:
    with open(path, "xb", buffering=0) as file:
        try:
            file.write(content)
        except BaseException:
            path.unlink(missing_ok=True)
            raise


def _sync(folder: Path) -> None:
    """Make the names in a folder durable, where the system can."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except PermissionError:  # Windows opens no folder
        return
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # as some network disks say
            raise
    finally:
        os.close(handle)


class RemoteFolder:
    """A folder at a URL, with the methods of `LocalFolder`.

    Attributes
    ----------
    place : its URL, without credentials
    """

    @public_errors()
    def __init__(self, url: str) -> None:
        self.place = public_url(url)
        try:
            self._files, root = fsspec.core.url_to_fs(url, **storage_options(url) or {})
        except (ImportError, ValueError) as error:
            raise DataError(f"{self.place} cannot be opened: {shortened(error)}") from error
        self._root = root.rstrip("/")

    def names(self) -> list[str]:
        """Return the names in it, none if there is no such folder."""
        with _as_os_errors(self.place):
            self._files.invalidate_cache(self._root)
            try:
                paths = self._files.ls(self._root, detail=False)
            except FileNotFoundError:
                return []
        names = (path.rstrip("/").removeprefix(self._root).strip("/") for path in paths)
        return sorted(filter(None, names))

    def read(self, name: str) -> bytes:
        """Return the content of a file; FileNotFoundError if there is none."""
        with _as_os_errors(self.place):
            return bytes(self._files.cat_file(self._path(name)))

    def write(self, name: str, *parts: bytes | memoryview) -> None:
        """Create or replace a file atomically; it is durable when this returns."""
        with _as_os_errors(self.place):
            self._files.pipe_file(self._path(name), b"".join(parts))

    @public_errors()
    def create(self, name: str, content: bytes) -> None:
        """Create a file exclusively; FileExistsError if there is one.

        Only stores with conditional puts (S3, Google, Azure) make this atomic; on others it checks
        before and after.
        """
        path = self._path(name)
        with _as_os_errors(self.place):
            self._files.invalidate_cache(self._root)  # others remove files too
            if self._files.exists(path):
                raise FileExistsError(errno.EEXIST, "there already", public_url(path))
            failure = self._create(path, content)
        # A put that the driver sent twice fails because its first try succeeded, and not every
        # store reports a condition that failed. So the content that is there decides.
        try:
            stored = self.read(name)
        except FileNotFoundError as error:
            raise failure or error from None
        if stored != content:
            raise FileExistsError(errno.EEXIST, "there already", public_url(path))

    def _create(self, path: str, content: bytes) -> OSError | None:
        try:
            self._files.pipe_file(path, content, mode="create")
        except (NotImplementedError, TypeError, ValueError):  # it knows no such mode
            self._files.pipe_file(path, content)
        except OSError as error:
            return error
        return None

    def remove(self, name: str) -> None:
        """Remove a file, if there is one."""
        with _as_os_errors(self.place), suppress(FileNotFoundError):
            self._files.rm_file(self._path(name))

    def leave(self) -> None:
        """Do nothing: there are no empty folders."""

    def _path(self, name: str) -> Any:
        return f"{self._root}/{name}"


@contextmanager
def _as_os_errors(place: str) -> Iterator[None]:
    """Raise every error of a driver as an OSError: each has classes of its own."""
    with public_errors():
        try:
            yield
        except OSError:
            raise
        except Exception as error:
            raise OSError(f"{place}: {error_text(error)}") from error


Folder = LocalFolder | RemoteFolder


def open_folder(place: str | os.PathLike[str]) -> Folder:
    """Return the folder at a path or URL, whether or not there is one yet.

    Raises
    ------
    DataError
        If a URL asks for a filesystem that is unknown or not installed.
    """
    located = locate(place)
    return LocalFolder(located) if isinstance(located, Path) else RemoteFolder(located)


def dsoftmax_files(folder: Folder) -> list[str]:
    """Return the names of checkpoints and locks in a folder.

    Raises
    ------
    DataError
        If it only holds other things: nothing is ever written among them.
    """
    names = folder.names()
    files = [name for name in names if _DSOFTMAX_FILE.match(name)]
    if names and not files:
        raise DataError(
            f"{folder.place} holds {quoted(names[0])} and no checkpoint; give a new or "
            "empty folder, or one of checkpoints"
        )
    return files
