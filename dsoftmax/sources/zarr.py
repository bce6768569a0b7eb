"""Rows of a Zarr array, reopened by whoever reads them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar
from uuid import uuid4

import numpy as np
import zarr
import zarr.errors
from zarr.storage import FsspecStore, LocalStore

from dsoftmax.cache import ByteCache
from dsoftmax.errors import ChunkError, DataError
from dsoftmax.reduction import Array

COMPLETE = "dsoftmax_complete"  # attribute of arrays of which every chunk was written
_DECODED_BYTES = 1 << 26


@dataclass(frozen=True)
class ZarrArray:
    """A Zarr array by its absolute URL; it pickles as that and its metadata.

    Attributes
    ----------
    name : URL or path, for messages
    url : where another process opens it, or None
    shape, dtype : of the array
    row_chunk : rows of a chunk, or of a shard where there are shards
    identity : digest of the metadata, by which a store that has changed is found out
    token : names this opening; what a process remembers of a store is remembered under it
    opened : the array itself where it has no URL (a store in memory), else None
    """

    name: str
    url: str | None
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    row_chunk: int
    identity: str
    token: str = field(compare=False)
    opened: Any = field(default=None, compare=False)
    in_memory: bool = False
    futures: ClassVar[Mapping[Any, Any]] = MappingProxyType({})

    @property
    def boundaries(self) -> tuple[int, ...]:
        """Row boundaries of the chunks or shards."""
        return (*range(0, self.shape[0], self.row_chunk), self.shape[0])

    @property
    def portable(self) -> bool:
        """Whether another process can open it."""
        return self.url is not None

    def read(self, start: int, stop: int) -> Array:
        """Return rows start to stop, decoded."""
        array = self._array()
        if len(self.shape) > 1 or stop - start >= self.row_chunk:
            return np.asarray(array[start:stop])
        # Labels are often in chunks of many times the rows of X: each is decoded once, not
        # once for each chunk of X.
        first, last = start // self.row_chunk, (stop - 1) // self.row_chunk
        parts = [self._chunk(array, number) for number in range(first, last + 1)]
        rows = parts[0] if len(parts) == 1 else np.concatenate(parts)
        offset = first * self.row_chunk
        return rows[start - offset : stop - offset]

    def _array(self) -> Any:
        return self.opened if self.url is None else _reopen(self.url, self.identity, self.token)

    def _chunk(self, array: Any, number: int) -> Array:
        key = (self.name, self.token, number)
        rows = _decoded.get(key)
        if rows is None:
            rows = np.asarray(array[number * self.row_chunk : (number + 1) * self.row_chunk])
            _decoded.put(key, rows, rows.nbytes, _DECODED_BYTES)
        return rows

    def part(self, start: int, stop: int) -> ZarrArray:
        """Return the array itself: it travels as its URL."""
        return self

    def with_blocks(self, blocks: Mapping[Any, Any]) -> ZarrArray:
        """Return the array itself."""
        return self


def open_zarr(target: str | Path) -> ZarrArray:
    """Return the array at a path or URL, having read its metadata only.

    Raises
    ------
    DataError
        If there is nothing, or a group, or no valid metadata at `target`.
    """
    url = absolute_url(str(target))
    try:
        node = zarr.open(url, mode="r")
    except (FileNotFoundError, zarr.errors.NodeNotFoundError):
        raise DataError(
            f"{url} does not exist or is not a Zarr array; expected the path or URL of an array, "
            "such as data.zarr/X"
        ) from None
    except Exception as error:
        raise DataError(f"{url} cannot be opened: {type(error).__name__}: {error}") from error
    if isinstance(node, zarr.Group):
        raise DataError(
            f"{url} is a Zarr group, not an array; pass one of its arrays: {_arrays_of(url, node)}"
        )
    _require_complete(url, node)
    return _described(url, url, node)


def _require_complete(url: str, array: zarr.Array[Any]) -> None:
    """Refuse an array that dsoftmax wrote in full and that has lost chunks: they read as zeros."""
    if COMPLETE not in array.attrs or array.nchunks_initialized >= array.nchunks:
        return
    missing = array.nchunks - array.nchunks_initialized
    raise ChunkError(
        f"{url} has lost {missing} of its {array.nchunks} chunks, which would be read as zeros; "
        "restore them, or write the array again"
    )


def from_zarr(array: zarr.Array[Any]) -> ZarrArray:
    """Return the source array of an open `zarr.Array`."""
    folder = _folder(array.store)
    if folder is not None:
        url = str((folder / array.path).resolve())
        return _described(url, url, array)
    return _described(f"{type(array.store).__name__}/{array.path}".rstrip("/"), None, array)


def _folder(store: Any) -> Path | None:
    """Return where a store is on this machine; `dask.array.from_zarr` opens paths by fsspec."""
    if isinstance(store, LocalStore):
        return Path(store.root)
    if isinstance(store, FsspecStore):
        protocol, _, path = store.fs.unstrip_protocol(store.path).partition("://")
        return Path(path) if protocol == "file" else None
    return None


def absolute_url(target: str) -> str:
    """Return a URL as it is, and a path as an absolute one."""
    if target.startswith("file://"):
        target = target.removeprefix("file://")
    return target if "://" in target else str(Path(target).expanduser().resolve())


def _described(name: str, url: str | None, array: zarr.Array[Any]) -> ZarrArray:
    rows = (array.shards or array.chunks)[0] if array.shape else 1
    dtype = np.dtype(array.dtype)
    identity, token = _digest(array), uuid4().hex
    return ZarrArray(name, url, array.shape, dtype, rows, identity, token, None if url else array)


def _digest(array: zarr.Array[Any]) -> str:
    return hashlib.sha256(repr(array.metadata.to_dict()).encode()).hexdigest()[:16]


def _arrays_of(url: str, group: zarr.Group) -> str:
    found = [f"{url}/{name} {array.shape}" for name, array in sorted(group.arrays())]
    return ", ".join(found) or "it holds none"


@lru_cache(maxsize=64)
def _reopen(url: str, identity: str, token: str) -> Any:
    array = zarr.open_array(url, mode="r")
    if _digest(array) != identity:
        raise DataError(
            f"{url} has changed since it was opened: it is now {array.shape} {array.dtype}; "
            "do not write to a store while it is read, and start again"
        )
    return array


_decoded: ByteCache[tuple[str, str, int], Array] = ByteCache()
