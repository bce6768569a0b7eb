"""Decoding of chunks that stops where a chunk would come to more bytes than its array can hold.

A few kilobytes can be made that claim, or decode to, many gigabytes.

Source of the layout of a frame of Zstandard: RFC 8878, section 3.1.1.
"""

from __future__ import annotations

import asyncio
import bz2
import gzip
import io
import lzma
import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import zarr
from zarr.abc.codec import BytesBytesCodec
from zarr.codecs import ShardingCodec
from zarr.codecs._v2 import V2Codec

_LABEL_BYTES, _LABELS_BYTES = 1024, 1 << 26  # of a string on average, or of all of a chunk
_OVERHEAD = 1 << 20
_INNER_OVERHEAD = 128  # of a chunk in a shard: its place in the index, headers and checksums
_ZSTD, _ZSTD_BLOCK = b"\x28\xb5\x2f\xfd", 1 << 17


def most_bytes(array: zarr.Array[Any]) -> int:
    """Return how many bytes a chunk (or shard) of an array may have, encoded or half decoded.

    Filters may widen numbers, and codecs add a little of their own.
    """
    dtype = np.dtype(array.dtype)
    n_items = math.prod(array.shards or array.chunks)
    overhead = _OVERHEAD + _INNER_OVERHEAD * (n_items // math.prod(array.chunks))
    if dtype.kind in "OT":
        return max(n_items * _LABEL_BYTES, _LABELS_BYTES) + overhead
    return n_items * max(dtype.itemsize, 8) + overhead


def bounded(codec: Any, most: int) -> Any:
    """Return a codec of Zarr that raises ValueError for what decodes to more than `most` bytes."""
    if isinstance(codec, ShardingCodec):
        return replace(codec, codecs=tuple(bounded(inner, most) for inner in codec.codecs))
    if isinstance(codec, V2Codec):
        filters = tuple(_BoundedFilter(inner, most) for inner in codec.filters or ())
        compressor = codec.compressor and _BoundedFilter(codec.compressor, most)
        return V2Codec(filters or None, compressor)  # type: ignore[arg-type]
    return _BoundedCodec(codec, most) if isinstance(codec, BytesBytesCodec) else codec


@dataclass(frozen=True)
class _BoundedFilter:
    """A codec of numcodecs, as an array of format 2 has it."""

    codec: Any
    most: int

    def decode(self, content: Any) -> Any:
        stream = _STREAMS.get(self.codec.codec_id)
        if stream is not None:
            return stream(self.codec, content, self.most)
        _require_bounded(self.codec.codec_id, content, self.most)
        return self.codec.decode(content)


@dataclass(frozen=True)
class _BoundedCodec(BytesBytesCodec):
    """A codec of format 3."""

    codec: Any
    most: int

    async def _decode_single(self, chunk_bytes: Any, chunk_spec: Any) -> Any:
        name = str(self.codec.to_dict()["name"]).removeprefix("numcodecs.")
        content, stream = chunk_bytes.as_array_like(), _STREAMS.get(name)
        if stream is not None:
            inner = getattr(self.codec, "_codec", None)  # of numcodecs; Zarr's own is gzip alone
            decoded = await asyncio.to_thread(stream, inner, content, self.most)
            return chunk_spec.prototype.buffer.from_bytes(decoded)
        _require_bounded(name, content, self.most)
        return await self.codec._decode_single(chunk_bytes, chunk_spec)

    def compute_encoded_size(self, input_byte_length: int, chunk_spec: Any) -> int:
        size: int = self.codec.compute_encoded_size(input_byte_length, chunk_spec)
        return size


def _require_bounded(name: str, content: Any, most: int) -> None:
    """Raise ValueError if what compressed bytes say of themselves is too much."""
    view = memoryview(content).cast("B")
    if name == "zstd" and view[:4] == _ZSTD:
        _check(name, _zstd_bytes(view), most)
    elif name in _SIZE_AT:
        _check(name, int.from_bytes(view[_SIZE_AT[name] :][:4], "little"), most)


def _check(name: str, size: int, most: int) -> None:
    if size > most:
        raise ValueError(
            f"a chunk would be {size:,} bytes after {name}, and one of this array may have "
            f"{most:,}; write it again, strings in smaller chunks"
        )


def _zstd_bytes(view: memoryview) -> int:
    """Return the decoded bytes of frames, or an upper limit where the first does not tell."""
    total = 0
    while view[:4] == _ZSTD and len(view) > 6:
        flags, at = view[4], 5
        single = flags >> 5 & 1
        at += (not single) + (0, 1, 2, 4)[flags & 3]
        field = (single, 2, 4, 8)[flags >> 6]
        if field and not total:
            return int.from_bytes(view[at : at + field], "little") + (256 if field == 2 else 0)
        at, last = at + field, False
        while not last and at + 3 <= len(view):
            block = int.from_bytes(view[at : at + 3], "little")
            last, kind, size = bool(block & 1), block >> 1 & 3, block >> 3
            total += _ZSTD_BLOCK if kind == 2 else size
            at += 3 + (1 if kind == 1 else size)
        view = view[at + (4 if flags & 4 else 0) :]
    return total


def _read(name: str, file: Any, most: int) -> bytes:
    content: bytes = file.read(most + 1)
    _check(name, len(content), most)
    return content


def _zlib(codec: Any, content: Any, most: int) -> bytes:
    decompressor = zlib.decompressobj()
    decoded = decompressor.decompress(content, most + 1)
    _check("zlib", len(decoded), most)
    if not decompressor.eof:
        raise ValueError("the stream of zlib is cut off")
    return decoded


def _gzip(codec: Any, content: Any, most: int) -> bytes:
    return _read("gzip", gzip.GzipFile(fileobj=io.BytesIO(content)), most)


def _bz2(codec: Any, content: Any, most: int) -> bytes:
    return _read("bz2", bz2.BZ2File(io.BytesIO(content)), most)


def _lzma(codec: Any, content: Any, most: int) -> bytes:
    with lzma.LZMAFile(io.BytesIO(content), format=codec.format, filters=codec.filters) as file:
        return _read("lzma", file, most)


# Where four bytes tell the decoded size; and those codecs that only decoding tells of.
_SIZE_AT = {"blosc": 4, "lz4": 0}
_STREAMS: dict[str, Callable[[Any, Any, int], bytes]] = {
    "bz2": _bz2,
    "gzip": _gzip,
    "lzma": _lzma,
    "zlib": _zlib,
}
