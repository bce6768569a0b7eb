"""Which codecs of Zarr arrays are refused: those that run code from the data they decode."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

import zarr
from numcodecs.pickles import Pickle
from numcodecs.registry import codec_registry
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import StorePath

from dsoftmax.errors import DataError, quoted, shortened

# All that this package has ever written, and the other codecs of the specification of Zarr.
_OF_MODELS = frozenset(
    ("blosc", "bytes", "crc32c", "gzip", "sharding_indexed", "transpose", "vlen-utf8", "zstd")
)

_MOST_CUTS, _MOST_CHUNKS = 1 << 24, 1 << 32  # along an axis, and altogether


def require_safe(name: str, array: zarr.Array[Any]) -> None:
    """Raise DataError if a codec of an array runs code that is stored in its chunks.

    Zarr looks at the first codec of an array of format 2 only. An array of a shape or of chunks
    that cannot be is refused, too: to count its chunks would have no end.
    """
    _require_possible(name, array)
    unsafe = [codec for codec in codec_names(array.metadata.to_dict()) if _runs_code(codec)]
    if unsafe:
        raise DataError(
            f"{name} is encoded with {quoted(unsafe[0])}, which runs code from the file when a "
            "chunk is decoded, and is never read; write the array again with another codec, such "
            "as zstd"
        )


def require_attributes(name: str, node: zarr.Array[Any] | zarr.Group) -> None:
    """Raise DataError if the attributes of an array or a group are no object of JSON."""
    if not isinstance(node.metadata.attributes, dict):
        raise DataError(
            f"{name} has attributes that are {type(node.metadata.attributes).__name__}, not an "
            "object; its metadata are damaged: restore them"
        )


def _require_possible(name: str, array: zarr.Array[Any]) -> None:
    require_attributes(name, array)
    axes = list(zip(array.shape, array.chunks, strict=True))
    counts = [-(-length // max(size, 1)) for length, size in axes]
    fault = None
    if any(length < 0 or (length and size < 1) for length, size in axes):
        fault = "expected lengths of at least 0, and chunks of at least 1"
    elif max(counts, default=0) > _MOST_CUTS or math.prod(counts) > _MOST_CHUNKS:
        fault = "expected fewer chunks"
    elif math.prod(array.shape) * array.dtype.itemsize >= 1 << 63:
        fault = "expected fewer values"
    if fault:
        raise DataError(
            f"{name} has shape {shortened(array.shape)} in chunks of {shortened(array.chunks)}; "
            f"{fault}: its metadata are damaged, or it has to be written again in larger chunks"
        )


def codec_names(metadata: Any) -> Iterator[str]:
    """Yield the names of all codecs in the metadata of an array, those within shards too."""
    if isinstance(metadata, Mapping):
        for key, value in metadata.items():
            if key in ("codecs", "index_codecs", "filters", "compressor"):
                yield from _named(value)
    elif metadata is not None:
        raise DataError(f"the metadata of an array are {type(metadata).__name__}, not an object")


def _named(codecs: Any) -> Iterator[str]:
    for codec in codecs if isinstance(codecs, list | tuple) else [codecs]:
        if isinstance(codec, str):
            yield codec
        elif isinstance(codec, Mapping):
            yield str(codec.get("name", codec.get("id")))
            yield from codec_names(codec.get("configuration"))
            yield from codec_names(codec)


def _runs_code(name: str) -> bool:
    name = name.removeprefix("numcodecs.")
    known = codec_registry.get(name)
    return "pickle" in name.lower() or (isinstance(known, type) and issubclass(known, Pickle))


def arrays_of_model(group: zarr.Group) -> dict[str, zarr.Array[Any]]:
    """Return the arrays of a group that holds a model, whose metadata are read before they open.

    Raises
    ------
    DataError
        If one is not of format 3, or has a codec that models never have.
    """
    if group.metadata.zarr_format != 3:
        raise DataError(
            f"it is of Zarr format {group.metadata.zarr_format}; models are of format 3"
        )
    return {key: _array_of_model(group.store_path / key, key) for key in sync(_keys(group))}


async def _keys(group: zarr.Group) -> list[str]:
    found = [key async for key in group.store.list_dir(group.store_path.path)]
    return sorted(key for key in found if not key.startswith((".", "zarr.json")))


def _array_of_model(path: StorePath, key: str) -> zarr.Array[Any]:
    content = sync((path / "zarr.json").get(default_buffer_prototype()))
    if content is None:
        raise DataError(f"{key} is no array of Zarr format 3")
    unknown = sorted(set(codec_names(json.loads(content.to_bytes()))) - _OF_MODELS)
    if unknown:
        raise DataError(
            f"{key} is encoded with {quoted(unknown[0])}; arrays of a model are encoded with "
            f"{', '.join(sorted(_OF_MODELS))} only"
        )
    return zarr.open_array(path, mode="r", zarr_format=3)
