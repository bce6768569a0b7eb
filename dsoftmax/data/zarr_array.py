"""Rows of a Zarr array, reopened by whoever reads them."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any, Self
from uuid import uuid4

import numpy as np
import zarr

from dsoftmax.data.byte_cache import ByteCache
from dsoftmax.data.cf_encoding import CFEncoding, cf_encoding
from dsoftmax.data.chunk_listing import (
    ChunkListing,
    has_number,
    holds,
    is_all_fill,
    list_chunks,
    numbers_in,
    require_store,
    stored_shape,
)
from dsoftmax.data.grid import Index, cuts_every, within
from dsoftmax.data.row_array import BoxArrayMixin
from dsoftmax.errors import ChunkError, DataError
from dsoftmax.storage.codecs import require_safe
from dsoftmax.storage.credentials import public_errors, public_url
from dsoftmax.storage.urls import arrays_in, digest_of, reopen, travels, url_of
from dsoftmax.storage.zarr_nodes import COMPLETE
from dsoftmax.storage.zarr_timing import decoding
from dsoftmax.typing import Array

_SHARD_BYTES = 1 << 26  # decoded, of the rows of a shard that are read at once
_NONE = np.empty(0, np.int64)
_LOOK_SECONDS = 10.0  # how long a process believes that the metadata are as they were


@dataclass(frozen=True)
class ZarrArray(BoxArrayMixin):
    """A Zarr array by its absolute URL; it pickles as that and its metadata.

    Attributes
    ----------
    name : URL or path without credentials, for messages
    url : where another process opens it, with the credentials that it may have; or None
    shape, dtype : of the array
    object_shape, chunk_shape : of what is one object in the store, a shard or a chunk; of what is
        decoded at once, a chunk, or a shard that is not too large
    identity : digest of the metadata, by which a store that has changed is found out
    token : names this opening; what a process remembers of a store is remembered under it
    opened : the array itself where it has no URL (a store in memory), else None
    complete : whether all chunks are there but those that are absent, so that another was lost
    encoding : what its attributes say of the stored numbers, or None if nothing
    absent : numbers of the chunks that the store did not hold when it was opened, or of those that
        a task may meet
    listing : what it held then, in the process that opened it, if it can tell
    """

    name: str
    url: str | None = field(repr=False)
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    object_shape: tuple[int, ...]
    chunk_shape: tuple[int, ...]
    identity: str
    token: str = field(compare=False)
    opened: Any = field(default=None, compare=False, repr=False)
    complete: bool = False
    encoding: CFEncoding | None = None
    absent: Array = field(default_factory=lambda: _NONE, compare=False)
    listing: ChunkListing | None = field(default=None, compare=False, repr=False)
    may_wait = True

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"listing": None}

    def __str__(self) -> str:
        return f"{self.name}, {self.shape} {self.dtype}"

    @property
    def stored(self) -> tuple[ZarrArray, ...]:  # type: ignore[override]
        """The array itself."""
        return (self,)

    @property
    def nbytes(self) -> int:
        """Bytes of the array, decoded."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def boundaries(self) -> tuple[int, ...]:
        """Row boundaries of the chunks or shards."""
        return cuts_every(self.shape[:1], self.chunk_shape[:1])[0]

    @property
    def cuts(self) -> tuple[tuple[int, ...], ...]:
        """Where the axes of the samples are cut into chunks."""
        return cuts_every(self.shape[:-1], self.chunk_shape[:-1])

    @property
    def portable(self) -> bool:
        """Whether another process can open it."""
        return travels(self.url)

    def region(self, where: Index) -> Array:
        """Return a box of the array, decoded."""
        box = self._box(where)
        if all(self._reads_directly(axis, part) for axis, part in enumerate(box)):
            return self._decoded(box)
        # Labels are often in chunks of many times the rows of X. The cache has each decoded once,
        # not once for each chunk of X.
        out: Array | None = None
        for bounds in self._chunks_in(box):
            chunk = self._cached_chunk(bounds)
            if out is None:
                out = np.empty(tuple(axis.stop - axis.start for axis in box), chunk.dtype)
            with decoding():
                out[within(bounds, box)] = chunk[within(box, bounds)]
        assert out is not None
        return out

    def _decoded(self, box: Index) -> Array:
        array = self.array()  # opened before the clock of decoding starts
        with decoding():
            values = np.asarray(array[box])
        self._require_there(array, box, values)
        return values

    def bad_chunk_in(self, where: Index) -> str | None:
        """Return the first chunk in a box that cannot be read."""
        for bounds in self._chunks_in(self._box(where)):
            try:
                self.array()[bounds]
            except DataError:
                return None
            except Exception:
                key = self._chunk_key(_corner(bounds))
                return f"chunk {key} (rows {bounds[0].start} to {bounds[0].stop - 1})"
        return None

    def chunk_of(self, index: tuple[int, ...]) -> str:
        """Return which chunk holds the value at an index, for messages."""
        return f" (chunk {self._chunk_key(index)})"

    def array(self) -> zarr.Array[Any]:
        """Return the array, opened here."""
        if self.url is None:
            opened: zarr.Array[Any] = self.opened
            return opened
        return reopen(self.url, self.identity, self.token, int(time.monotonic() // _LOOK_SECONDS))

    def part(self, start: int, stop: int) -> Self:
        """Return the array that knows of absent chunks in these rows only."""
        if not len(self.absent):
            return self
        found = numbers_in(self.absent, self.shape, self.object_shape, start, stop)
        return replace(self, absent=found)

    def require_visible(self) -> None:
        """Raise an error unless this process can open the array."""
        self.array()

    def _require_there(self, array: zarr.Array[Any], box: Index, values: Array) -> None:
        """Raise an error if chunks were read as zeros since the store, or one of them, is gone."""
        require_store(array)
        there: set[str] = set()  # keys: many chunks may be in a shard
        for bounds in self._chunks_in(box) if self.complete else ():
            # To look for every chunk would be a request more for each.
            if not is_all_fill(array, values[within(bounds, box)]):
                continue
            corner, part = _corner(bounds), within(box, bounds)
            key = self._chunk_key(corner)
            # That another part of the chunk was there at its time tells nothing of this one.
            known = (self.token, (*corner, *(i for axis in part for i in (axis.start, axis.stop))))
            if known in _found or has_number(self.absent, self.shape, self.object_shape, corner):
                continue
            if key not in there and not holds(array, key):
                forget_chunks()
                if self.url is not None:  # an error of its own, if it is another array by now
                    reopen.__wrapped__(self.url, self.identity, self.token, 0)
                raise FileNotFoundError(f"chunk {key} is not in the store")
            there.add(key)
            _found.put(known, True, 1, _MOST_FOUND, lambda other: other[0] == self.token)

    def _box(self, where: Index) -> Index:
        return (*where, *(slice(0, length) for length in self.shape[len(where) :]))

    def _reads_directly(self, axis: int, part: slice) -> bool:
        """Whether a read does not need the cache: of whole chunks, or of more rows than one has."""
        chunk, length = self.chunk_shape[axis], self.shape[axis]
        aligned = part.start % chunk == 0 and (part.stop % chunk == 0 or part.stop == length)
        return bool(aligned or part.stop - part.start >= chunk)

    def _chunks_in(self, box: Index) -> Iterator[Index]:
        """Yield the boxes of the chunks that overlap a box."""
        axes = []
        for axis, size, length in zip(box, self.chunk_shape, self.shape, strict=True):
            starts = range(axis.start // size * size, axis.stop, size)
            axes.append([slice(start, min(start + size, length)) for start in starts])
        return product(*axes)

    def _cached_chunk(self, bounds: Index) -> Array:
        """Return a chunk, decoded unless this process has it in its cache."""
        key = (self.name, self.token, _corner(bounds))
        chunk = _chunk_cache.get(key)
        if chunk is None:
            chunk = self._decoded(bounds)
            _chunk_cache.put(key, chunk, chunk.nbytes, _CHUNK_CACHE_BYTES)
        return chunk

    def _chunk_key(self, index: tuple[int, ...]) -> str:
        """Return the key in the store of the chunk or shard that holds a value."""
        number = tuple(i // size for i, size in zip(index, self.object_shape, strict=True))
        return self.array().metadata.encode_chunk_key(number)


def from_zarr(
    role: str, node: Any, *, require_complete: bool = True, decode: bool = True
) -> ZarrArray:
    """Return what `described` does, of an open `zarr.Array`; a DataError if it is no array."""
    if isinstance(node, zarr.Group):
        raise DataError(arrays_in(url_of(node) or node.path or role, node))
    if not isinstance(node, zarr.Array):
        raise DataError(f"{role} is a zarr {type(node).__name__}; expected a zarr.Array")
    url = url_of(node)
    name = url or f"{type(node.store).__name__}/{node.path}".rstrip("/")
    return described(name, url, node, require_complete=require_complete, decode=decode)


@public_errors()
def described(
    name: str, url: str | None, array: Any, *, require_complete: bool = True, decode: bool = True
) -> ZarrArray:
    """Return the source array of a Zarr array. No values are read, but its chunks are listed.

    Parameters
    ----------
    name, url : as of ZarrArray
    array : zarr.Array
    require_complete : whether to refuse an array that has lost chunks now, or only their rows
        when they are read
    decode : whether to read what its attributes say of the stored numbers (see `CFEncoding`)

    Raises
    ------
    DataError
        If it is a group.
    ChunkError
        If dsoftmax wrote it in full and it has lost chunks, which Zarr reads as zeros.
    """
    name = public_url(name)
    if isinstance(array, zarr.Group):
        raise DataError(arrays_in(name, array))
    require_safe(name, array)
    written_whole, listing = COMPLETE in array.attrs, list_chunks(array)
    n_absent = 0 if listing is None else listing.n_absent
    if written_whole and n_absent and require_complete:
        assert listing is not None, "it counts them"
        raise ChunkError(
            f"{name} has lost {n_absent} of its {listing.count} chunks, which would be read as "
            "zeros; restore them, or write the array again"
        )
    encoding = cf_encoding(name, array) if decode else None
    absent = None if listing is None else listing.absent
    return ZarrArray(
        name,
        url,
        array.shape,
        np.dtype(array.dtype) if encoding is None else encoding.dtype,
        stored_shape(array),
        _read_shape(array),
        digest_of(array),
        uuid4().hex,
        None if url else array,
        written_whole or absent is not None,
        encoding,
        _NONE if written_whole or absent is None else absent,
        listing,
    )


def _read_shape(array: zarr.Array[Any]) -> tuple[int, ...]:
    """Return the shape of a shard, or of the chunks in it if its rows are too large at once."""
    if array.shards is None:
        return array.chunks
    # A shard that is read in parts has its index fetched each time, so small ones are read whole.
    rows = math.prod(array.shape[1:]) * array.shards[0] * np.dtype(array.dtype).itemsize
    return array.shards if rows <= _SHARD_BYTES else array.chunks


def _corner(box: Index) -> tuple[int, ...]:
    return tuple(axis.start for axis in box)


# Decoded chunks by name and token of the array, and the index of their first value.
_chunk_cache: ByteCache[tuple[str, str, tuple[int, ...]], Array] = ByteCache()
_CHUNK_CACHE_BYTES = 1 << 26
# Parts of chunks that were the fill value when the store had the chunk: to lose it later changes no
# number. By token, and the corner of the chunk and bounds in it.
_found: ByteCache[tuple[str, tuple[int, ...]], bool] = ByteCache()
_MOST_FOUND = 1 << 16


def forget_chunks(*, but_newest: bool = False) -> None:
    """Empty the cache of chunks, or drop all but the last used chunk of each array.

    A reader that goes through an array in order needs no more than that one.
    """
    _found.drop_if(lambda key: not but_newest)
    newest = {key[:2]: key for key in _chunk_cache} if but_newest else {}
    stays = set(newest.values())
    _chunk_cache.drop_if(lambda key: key not in stays)
