"""Opens Zarr stores at paths, in zip files and at URLs.

Credentials do not travel, unless in a URL: each process takes them from its own environment, or
from the Dask setting `dsoftmax.storage-options`, a mapping from protocols to what fsspec is passed.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import dask
import zarr.errors
from zarr.storage import FsspecStore, LocalStore, ObjectStore, ZipStore

from dsoftmax.errors import DataError, OutageError, quoted, shortened
from dsoftmax.storage import regular_files
from dsoftmax.storage.bounded_codecs import most_bytes
from dsoftmax.storage.codecs import require_attributes, require_safe
from dsoftmax.storage.credentials import public_errors, public_text, public_url
from dsoftmax.storage.digests import short_digest
from dsoftmax.storage.open_errors import not_a_zarr_array, what_to_do
from dsoftmax.storage.outages import TRANSIENT, fault_of
from dsoftmax.storage.zarr_timing import timed

Node = zarr.Array[Any] | zarr.Group
_SHORT_OF_A_SLASH = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/(?!/)")
_LONGEST_MESSAGE = 2_000  # characters


def locate(place: str | os.PathLike[str]) -> Path | str:
    """Return a local place as a path, and any other as the URL it is.

    Raises
    ------
    DataError
        If it is a path that no system can follow: with a NUL, too long, or a loop of links.
    """
    url = os.fspath(place).removeprefix("file://")
    if _SHORT_OF_A_SLASH.match(url):  # it would be a folder with this name
        raise DataError(
            f"{quoted(url)} has one slash where a URL has two: pass a string such as "
            "s3://bucket/name, not a pathlib.Path, which makes one of them; to mean a folder, "
            "begin with ./"
        )
    try:
        if "://" in url and "\0" not in url:
            return url
        path = Path(url).expanduser()
        os.stat(path)
    except (ValueError, RuntimeError) as error:  # a NUL, a surrogate, no home of such a user
        raise _no_path(url, error) from None
    except OSError as error:
        if error.errno in (errno.ENAMETOOLONG, errno.ELOOP):
            raise _no_path(url, error.strerror) from None
    return path


def _no_path(url: str, why: object) -> DataError:
    return DataError(f"{quoted(url)} is no path: {shortened(why)}; pass another one")


def absolute_url(place: str | os.PathLike[str]) -> str:
    """Return a URL as it is, and a path as an absolute one."""
    located = locate(place)
    return located if isinstance(located, str) else str(located.resolve())


def storage_options(url: str) -> dict[str, Any] | None:
    """Return the options with which this process opens a URL, or None.

    Raises
    ------
    DataError
        If the Dask setting is not a mapping.
    """
    protocol, separator, _ = url.partition("://")
    if not separator:
        return None
    options = dask.config.get("dsoftmax.storage-options", {})
    selected = options.get(protocol, {}) if isinstance(options, Mapping) else None
    if not isinstance(selected, Mapping):
        raise DataError(
            "the Dask setting dsoftmax.storage-options is not a mapping from protocols to options; "
            'expected one such as {"s3": {"endpoint_url": "https://..."}}'
        )
    return dict(selected) or None


@public_errors()
def open_node(url: str) -> Node:
    """Return the array or group at a URL or path, read-only.

    A path may lead into a zip file: data.zip/X.

    Raises
    ------
    DataError
        If there is nothing there, or nothing that can be opened.
    OutageError
        If its storage does not answer.
    """
    try:
        return open_raw(url)
    except DataError:
        raise
    except (FileNotFoundError, zarr.errors.NodeNotFoundError):
        raise DataError(not_a_zarr_array(url)) from None
    except Exception as error:
        kind = OutageError if fault_of(error) == TRANSIENT else DataError
        raise kind(
            f"{public_url(url)} cannot be opened: {error_text(error)}{what_to_do(url, error)}"
        ) from error


def open_raw(url: str) -> Node:
    """Return the array or group at a URL or path; other errors are those of Zarr and the driver.

    Raises
    ------
    DataError
        If it is an array whose codecs run code.
    """
    node = _open(url)
    require_attributes(public_url(url), node)
    if not isinstance(node, zarr.Array):
        return node
    require_safe(public_url(url), node)
    if isinstance(node.store, regular_files.LocalStore | regular_files.ZipStore):
        node.store.most_bytes = most_bytes(node)
    return timed(node)


def _open(url: str) -> Node:
    if "://" in url:
        if dask.config.get("dsoftmax.object-store", "fsspec") == "obstore":
            return zarr.open(_by_obstore(url), mode="r")
        return zarr.open(url, mode="r", storage_options=storage_options(url))
    archive = _archive(Path(url))
    if archive is None:
        return zarr.open(regular_files.LocalStore(url, read_only=True), mode="r")
    # `ZipStore` takes the path of the archive and that within it apart.
    inside = Path(url).relative_to(archive).as_posix()
    store = regular_files.ZipStore(archive, mode="r")
    return zarr.open(store, path="" if inside == "." else inside, mode="r")


@lru_cache(maxsize=64)
def reopen(url: str, identity: str, token: str, tick: int) -> zarr.Array[Any]:
    """Return the array at a URL, opened anew for each `token` and `tick`.

    `lru_cache` keeps it open in between, so that a read does not fetch the metadata again.

    Raises
    ------
    DataError
        If its digest is not `identity` any more.
    OSError
        If it is not there (any more): a network disk may come back, so reads are tried again.
    """
    try:
        node = open_raw(url)
    except (FileNotFoundError, zarr.errors.NodeNotFoundError) as error:
        raise OSError(errno.ESTALE, f"the store is away: there is no {public_url(url)}") from error
    if isinstance(node, zarr.Group) or digest_of(node) != identity:
        current = "a group" if isinstance(node, zarr.Group) else f"{node.shape} {node.dtype}"
        raise DataError(
            f"{public_url(url)} has changed since it was opened: it is now {current}; do not write "
            "to a store while it is read, and start again"
        )
    return node


def digest_of(array: zarr.Array[Any]) -> str:
    """Return a digest of the metadata of an array."""
    return short_digest(repr(array.metadata.to_dict()))


def _by_obstore(url: str) -> ObjectStore[Any]:
    from obstore.store import from_url

    return ObjectStore(from_url(url, **(storage_options(url) or {})), read_only=True)


def _archive(path: Path) -> Path | None:
    """Return the zip file that a path leads to or into."""
    parts = [part for part in (path, *path.parents) if part.suffix == ".zip"]
    return next((part for part in parts if part.is_file()), None)


def error_text(error: BaseException) -> str:
    """Return an error with its class: the message of a KeyError, say, is a name alone."""
    return f"{type(error).__name__}: {shortened(message_of(error))}"


def message_of(error: BaseException, longest: int = _LONGEST_MESSAGE) -> str:
    """Return the message of an error, without credentials, cut where it is very long.

    That of a group has the message of each.
    """
    try:
        text = str(error)
    except Exception as failure:  # of a class that a user or a driver has written
        text = f"its message cannot be shown ({type(failure).__name__})"
    if isinstance(error, BaseExceptionGroup):
        text = f"{text}: {'; '.join(map(error_text, error.exceptions))}"
    text = public_text(text)
    if len(text) > longest:
        text = f"{text[:longest]}... ({len(text):,} characters)"
    return text


def url_of(node: Node) -> str | None:
    """Return the path where another process finds an open array or group, or None."""
    root = local_root(node.store)
    return None if root is None else str((root / node.path).resolve())


def local_root(store: Any) -> Path | None:
    """Return where a store is on this machine; `dask.array.from_zarr` opens paths by fsspec."""
    if isinstance(store, LocalStore):
        return Path(store.root)
    if isinstance(store, ZipStore):
        return Path(store.path) if store.read_only else None
    if isinstance(store, FsspecStore):
        protocol, _, path = store.fs.unstrip_protocol(store.path).partition("://")
        return Path(path) if protocol == "file" else None
    return None


def travels(url: str | None) -> bool:
    """Whether another process can open a URL: not one of this process's memory."""
    return url is not None and not url.startswith("memory://")


def require_lasting(*places: str | None) -> None:
    """Raise DataError for a place in the memory of this process, which ends with it."""
    for place in filter(None, places):
        if not travels(place):
            raise DataError(
                f"{public_url(place)} is in the memory of this process, and gone when it ends; "
                "give a folder, or the URL of a store that stays"
            )


@public_errors()
def names_in(target: str) -> tuple[str, ...] | None:
    """Return the names of the arrays in a group, or None for what is an array itself.

    Raises
    ------
    DataError
        If there is neither.
    """
    url = absolute_url(target)
    node = open_node(url)
    try:
        return tuple(sorted(node.array_keys())) if isinstance(node, zarr.Group) else None
    except Exception as error:
        kind = OutageError if fault_of(error) == TRANSIENT else DataError
        raise kind(
            f"an array in {public_url(url)} cannot be opened: {error_text(error)}"
            f"{what_to_do(url, error)}"
        ) from error


def arrays_in(name: str, group: zarr.Group) -> str:
    """Return what to do about a group that was given for an array: it lists the arrays in it."""
    kind = str(group.attrs.get("encoding-type", ""))
    if kind in ("csr_matrix", "csc_matrix"):
        return (
            f"{name} is a Zarr group that holds a sparse AnnData matrix ({kind}), which is not "
            "supported yet: write it densely, chunk by chunk, and pass that array"
        )
    try:
        arrays = [f"{name}/{key} {array.shape}" for key, array in sorted(group.arrays())]
        groups = [f"{name}/{key} (a group)" for key in sorted(group.group_keys())]
        contents = ", ".join(arrays + groups) or "it holds none"
    except Exception as error:  # of one of them: its dtype or its codec is unknown, say
        contents = f"they cannot all be opened: {error_text(error)}{what_to_do(name, error)}"
    return f"{name} is a Zarr group, not an array; pass one of its arrays: {contents}"
