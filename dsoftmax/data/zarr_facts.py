"""Facts of a stored Zarr array: its format, chunks, codecs and bytes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import zarr

from dsoftmax.data.chunk_listing import grid_of, list_chunks
from dsoftmax.data.row_array import RowArray
from dsoftmax.data.zarr_array import ZarrArray

_DECODER_BYTES = 1 << 20  # of a chunk that is decoded: the codec's own buffers, and its thread
_WITH_CHECKSUM = {"crc32c", "crc32", "adler32", "fletcher32", "jenkins_lookup3", "gzip", "zlib"}


@dataclass(frozen=True)
class ZarrFacts:
    """Facts of a Zarr array.

    Attributes
    ----------
    zarr_format : 2 or 3
    shape : of the array, with all its axes
    chunks, shards : shapes; shards is None where there are none
    codecs : names, in the order in which they encode
    checksum : whether one of them notices a flipped bit
    n_objects, absent_objects : chunks, or shards where there are shards: how many there are, and
        how many of them the store does not have
    stored_bytes : what the store holds, or None if it cannot be listed
    """

    zarr_format: int
    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    shards: tuple[int, ...] | None
    codecs: tuple[str, ...]
    checksum: bool
    n_objects: int
    absent_objects: int
    stored_bytes: int | None


def zarr_facts(array: RowArray) -> ZarrFacts | None:
    """Return the facts of an array that is read from a Zarr store, or None."""
    if not array.stored:
        return None
    source = array.stored[0]  # of a column, the codes or values
    opened = source.array()
    metadata: dict[str, Any] = dict(opened.metadata.to_dict())
    codecs = list(_encoding(metadata))
    listing = list_chunks(opened) if source.listing is None else source.listing
    return ZarrFacts(
        int(metadata["zarr_format"]),
        opened.shape,
        opened.chunks,
        opened.shards,
        tuple(_name(codec) for codec in codecs),
        any(_checks(codec) for codec in codecs),
        math.prod(grid_of(opened)),
        0 if listing is None else listing.n_absent,
        _stored_bytes(opened),
    )


def _stored_bytes(array: Any) -> int | None:
    try:
        return int(array.nbytes_stored())
    except Exception:  # of any driver, where a store cannot be listed
        return None


def _encoding(metadata: Mapping[str, Any]) -> Iterable[Mapping[str, Any]]:
    """Yield the codecs of format 3, those within shards too, or the filters of format 2."""
    if metadata["zarr_format"] == 2:
        yield from metadata["filters"] or ()
        if metadata["compressor"] is not None:
            yield metadata["compressor"]
        return
    for codec in metadata["codecs"]:
        yield codec
        yield from codec.get("configuration", {}).get("codecs", ())


def _name(codec: Mapping[str, Any]) -> str:
    return str(codec.get("name", codec.get("id")))


def _checks(codec: Mapping[str, Any]) -> bool:
    options = codec.get("configuration", codec)
    return _name(codec).removeprefix("numcodecs.") in _WITH_CHECKSUM or bool(
        options.get("checksum", False)
    )


def bytes_in_flight(stored: ZarrArray, n_bytes: int, chunk_bytes: int | None = None) -> int:
    """Return the bytes of the chunks that a read of so many decoded bytes has in hand at most.

    Zarr fetches and decodes some chunks side by side, and then copies them to where they belong.

    Parameters
    ----------
    stored : ZarrArray
    n_bytes : that are read
    chunk_bytes : decoded, if it had other chunks than it has
    """
    array = stored.array()
    chunk = chunk_bytes or math.prod(array.chunks) * stored.dtype.itemsize
    most = int(zarr.config.get("async.concurrency"))
    n_chunks = min(max(1, -(-n_bytes // max(chunk, 1))), most)
    if array.shards is None:
        return n_chunks * (chunk + _compressed(stored, array, chunk) + _DECODER_BYTES)
    # A shard is fetched whole, decoded chunk by chunk to an array, and copied from there.
    whole = max(n_bytes, chunk)
    return whole + _compressed(stored, array, whole) + n_chunks * (chunk + _DECODER_BYTES)


def _compressed(stored: ZarrArray, array: zarr.Array[Any], n_bytes: int) -> int:
    """Return the bytes in the store of decoded ones, none where they are stored as they are."""
    if not (array.compressors or array.filters):
        return 0
    decoded = math.prod(stored.object_shape) * stored.dtype.itemsize
    listed = 0 if stored.listing is None else stored.listing.largest
    return n_bytes if listed == 0 else int(n_bytes * listed / max(decoded, 1))
