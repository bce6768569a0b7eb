"""Which chunks a Zarr store holds, and what tells whether one of them has been replaced."""

from __future__ import annotations

import errno
import hashlib
import logging
import math
import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.core.sync import sync
from zarr.storage import FsspecStore, LocalStore, ObjectStore, ZipStore

from dsoftmax.storage.credentials import public_text
from dsoftmax.storage.digests import short_digest
from dsoftmax.storage.urls import error_text, local_root
from dsoftmax.typing import Array

_log = logging.getLogger("dsoftmax")
_METADATA = ("zarr.json", ".zarray")
_MOST_ABSENT = 1 << 20  # chunks: among more, one that is lost during a run is not noticed
# What drivers of fsspec call the tag of a content; and, where there is none, its time.
_TAGS = ("ETag", "etag", "e_tag", "md5Hash", "content_md5", "generation")
_TIMES = ("LastModified", "last_modified", "mtime", "updated", "created")
Shape = tuple[int, ...]


@dataclass(frozen=True)
class ChunkListing:
    """The chunks, or shards where there are shards, that a store held when it was listed.

    Attributes
    ----------
    grid : how many chunks there are along each axis
    numbers : (n_chunks_held,), sorted: indices into the flattened grid
    stamps : (n_chunks_held,), digests of size and ETag, or size and time, in the same order
    largest : bytes of the largest of them, 0 if the store does not tell
    taken : when, by `time.monotonic`
    """

    grid: tuple[int, ...]
    numbers: Array
    stamps: Array
    largest: int = field(default=0, compare=False)
    taken: float = field(default_factory=time.monotonic, compare=False)

    @property
    def count(self) -> int:
        """How many chunks the array has."""
        return math.prod(self.grid)

    @property
    def n_absent(self) -> int:
        """How many of them the store did not hold."""
        return self.count - len(self.numbers)

    @property
    def absent(self) -> Array | None:
        """Their numbers, sorted; None for too many to keep."""
        if self.n_absent > _MOST_ABSENT:
            return None
        first, stop = np.r_[0, self.numbers + 1], np.r_[self.numbers, self.count]
        gaps = np.flatnonzero(first < stop)
        runs = [np.arange(first[gap], stop[gap]) for gap in gaps]
        return np.concatenate(runs) if runs else np.empty(0, np.int64)

    @property
    def digest(self) -> str:
        """Digest of all of it."""
        return short_digest(self.numbers, self.stamps)

    def changes(self, after: ChunkListing) -> dict[str, Array]:
        """Return the chunks of which a later listing tells something else, by what it tells."""
        _, here, there = np.intersect1d(self.numbers, after.numbers, True, return_indices=True)
        found = {
            "replaced": self.numbers[here[self.stamps[here] != after.stamps[there]]],
            "removed": np.setdiff1d(self.numbers, after.numbers, True),
            "added": np.setdiff1d(after.numbers, self.numbers, True),
        }
        return {what: numbers for what, numbers in found.items() if len(numbers)}


def stored_shape(array: zarr.Array[Any]) -> tuple[int, ...]:
    """Return the shape of what is one object in the store: a shard, or a chunk."""
    shape: tuple[int, ...] = array.shards or array.chunks
    return shape


def require_store(array: zarr.Array[Any]) -> None:
    """Raise an error if the folder of an array is away, such as on a disk that was unmounted."""
    folder = _folder(array)
    if folder is not None and not any((folder / name).exists() for name in _METADATA):
        raise OSError(errno.ESTALE, f"the store is away: {folder} has no metadata")


def holds(array: zarr.Array[Any], key: str) -> bool:
    """Return whether the store of an array has a chunk now."""
    folder = _folder(array)
    return bool(
        sync((array.store_path / key).exists()) if folder is None else (folder / key).exists()
    )


def is_all_fill(array: zarr.Array[Any], values: Array) -> bool:
    """Return whether values are what Zarr returns for a chunk that is not there."""
    fill = array.fill_value
    fill = np.zeros((), values.dtype)[()] if fill is None else fill
    corners = (values[(slice(at, at + 1 or None),) * values.ndim] for at in (0, -1))
    for part in (*corners, values):  # most chunks differ in the first value
        if not (np.all(part == fill) or (fill != fill and np.all(part != part))):
            return False
    return True


def has_number(numbers: Array, shape: Shape, sizes: Shape, index: tuple[int, ...]) -> bool:
    """Return whether the chunk that holds a value has one of these sorted numbers.

    Parameters
    ----------
    numbers, shape, sizes : of chunks; of the array, and of a chunk
    index : of the value
    """
    if not len(numbers):
        return False
    where = [i // size for i, size in zip(index, sizes, strict=True)]
    number = np.ravel_multi_index(where, _grid(shape, sizes))
    at = np.searchsorted(numbers, number)
    return bool(at < len(numbers) and numbers[at] == number)


def numbers_in(numbers: Array, shape: Shape, sizes: Shape, start: int, stop: int) -> Array:
    """Return those of the sorted numbers of chunks whose rows overlap some rows."""
    in_a_row = math.prod(_grid(shape, sizes)[1:])
    within = np.array([start // sizes[0], -(-stop // sizes[0])]) * in_a_row
    low, high = np.searchsorted(numbers, within)
    return numbers[low:high]


def _folder(array: zarr.Array[Any]) -> Path | None:
    """Return where an array is on this machine, if it is in a folder."""
    return Path(array.store.root) / array.path if isinstance(array.store, LocalStore) else None


def grid_of(array: zarr.Array[Any]) -> tuple[int, ...]:
    """Return how many chunks, or shards, there are along each axis."""
    return _grid(array.shape, stored_shape(array))


def _grid(shape: Shape, sizes: Shape) -> tuple[int, ...]:
    return tuple(-(-length // size) for length, size in zip(shape, sizes, strict=True))


def list_chunks(array: zarr.Array[Any]) -> ChunkListing | None:
    """Return which chunks of an array its store holds; None if the store cannot tell."""
    try:
        return _listed(array, grid_of(array))
    except Exception as error:  # each store and driver has its own
        store = public_text(str(array.store_path))
        _log.debug("%s cannot be listed: %s", store, error_text(error))
        return None


def _listed(array: zarr.Array[Any], grid: tuple[int, ...]) -> ChunkListing | None:
    matches, has_metadata = _pattern(array, len(grid)).fullmatch, False
    indices: list[str] = []
    digests: list[bytes] = []
    largest = 0
    for key, stamp in _objects(array.store, array.path):
        if match := matches(key):
            indices.extend(match.groups())
            largest = max(largest, _size_in(stamp))
            digests.append(hashlib.blake2b(stamp.encode(), digest_size=8).digest())
        else:
            has_metadata |= key in _METADATA
    if not has_metadata:
        # A web server may answer a listing with nothing, and a virtual store with its own files.
        store = public_text(str(array.store_path))
        _log.debug("%s cannot be listed: the list lacks its metadata", store)
        return None
    index = np.fromiter(map(int, indices), np.int64, len(indices)).reshape(-1, len(grid))
    inside = (index < grid).all(axis=1)
    numbers = np.ravel_multi_index(tuple(index[inside].T), grid)
    stamps = np.frombuffer(b"".join(digests), "<u8")[inside]
    order = np.argsort(numbers, kind="stable")
    return ChunkListing(grid, numbers[order], stamps[order], largest)


def _size_in(stamp: str) -> int:
    """Return the size that a stamp of a single chunk begins with, or 0 if it is not known."""
    size = stamp.partition(" ")[0]
    return int(size) if size.isdecimal() else 0


def _pattern(array: zarr.Array[Any], ndim: int) -> re.Pattern[str]:
    """Return what matches the keys of chunks, with a group for each axis."""
    axes = [10**9 + axis for axis in range(ndim)]  # digits that are nowhere else in a key
    pattern = re.escape(array.metadata.encode_chunk_key(tuple(axes)))
    for axis in axes:
        pattern = pattern.replace(str(axis), r"(0|[1-9][0-9]{,17})")
    return re.compile(pattern)


def _objects(store: Any, path: str) -> Iterable[tuple[str, str]]:
    """Yield the keys below a path of a store, each with its size and ETag or time as text."""
    root = local_root(store)
    if root is not None and not isinstance(store, ZipStore):
        return _in_folder(os.path.join(root, path).rstrip("/"))
    if isinstance(store, FsspecStore):
        return _by_fsspec(store, path)
    if isinstance(store, ObjectStore):
        return _by_obstore(store, path)
    stamp = ""  # nothing but the names is known
    if isinstance(store, ZipStore):
        archive = os.stat(store.path)
        stamp = f"archive {archive.st_size} {archive.st_mtime_ns}"  # no size of a chunk
    prefix = f"{path}/" if path else ""
    # A zip file lists a member that was written anew once for each time.
    keys = dict.fromkeys(sync(_keys(store, prefix)))
    return [(key.removeprefix(prefix), stamp) for key in keys]


async def _keys(store: Any, prefix: str) -> list[str]:
    return [key async for key in store.list_prefix(prefix)]


def _in_folder(root: str) -> Iterator[tuple[str, str]]:
    waiting, start = [root], len(os.path.join(root, ""))
    followed: set[tuple[int, int]] = set()  # by device and number: links may go in circles
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                if entry.is_dir() and not entry.is_symlink():
                    waiting.append(entry.path)
                    continue
                stat = entry.stat()
                if entry.is_dir():
                    if (place := (stat.st_dev, stat.st_ino)) not in followed:
                        followed.add(place)
                        waiting.append(entry.path)
                else:
                    key = entry.path[start:].replace(os.sep, "/")
                    yield key, f"{stat.st_size} {stat.st_mtime_ns}"


def _by_fsspec(store: FsspecStore, path: str) -> Iterator[tuple[str, str]]:
    root = "/".join(filter(None, (store.path, path)))
    store.fs.invalidate_cache(root)  # which may be older than the chunks
    found = sync(store.fs._find(root, detail=True))
    for name, info in found.items():
        yield name.removeprefix(f"{root}/"), _stamp(info)


def _by_obstore(store: ObjectStore[Any], path: str) -> Iterator[tuple[str, str]]:
    import obstore

    prefix = f"{path}/" if path else ""
    for page in obstore.list(store.store, path or None):
        for info in page:
            yield info["path"].removeprefix(prefix), _stamp(info)


def _stamp(info: Mapping[str, Any]) -> str:
    known = (info[name] for name in (*_TAGS, *_TIMES) if info.get(name) is not None)
    return f"{info.get('size')} {next(known, '')}"
