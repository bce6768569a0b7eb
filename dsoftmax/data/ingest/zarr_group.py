"""Rows of another Zarr group, of format 2 or 3, chunked in any way, read by whole chunks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import zarr

from dsoftmax.data.axes import axes_of, require_same_axes, stored_feature_names
from dsoftmax.data.cf_encoding import carried_attributes
from dsoftmax.data.ingest.row_stream import (
    Block,
    Names,
    RowStream,
    block_rows,
    checked_specs,
    find_pair,
    native,
    no_pair_error,
    rechunked,
    zip_blocks,
)
from dsoftmax.data.retry import RetryPolicy, fetch
from dsoftmax.data.source import Source
from dsoftmax.data.store_changes import require_unchanged, warn_of_absent_chunks
from dsoftmax.data.zarr_array import ZarrArray, described, forget_chunks
from dsoftmax.errors import DataError
from dsoftmax.storage.credentials import public_url
from dsoftmax.storage.urls import absolute_url, error_text, open_node
from dsoftmax.typing import Array

_MOST_BYTES = 32 * 2**20


def rows_of_group(place: Path | str, x: Names, y: str | None) -> RowStream:
    """Open two arrays of a Zarr group, having read their metadata.

    Chunks are read whole, in the order of the rows, and tried again as in a fit where the store
    does not answer. Only if they are so tall that a row of them holds more than 64 MiB, they are
    decoded again for each 32 MiB. Memory has to hold that, and a few of the chunks.

    Parameters
    ----------
    place : path or URL
    x, y : str or None
        The arrays, or paths to them in the group; by default X and y, or else X_train and y_train.

    Raises
    ------
    DataError
        If there is no group, or no such arrays in it, or they cannot be used; when they are read,
        if they change meanwhile.
    FileNotFoundError
        If there is nothing at a path.
    """
    group = _open(place)
    try:
        named = [name for name in (x, y) if isinstance(name, str) and name in group]
        held = {name: f"{name} {array.shape} {array.dtype}" for name, array in group.arrays()}
    except Exception as error:  # whatever damaged metadata make Zarr raise
        raise DataError(
            f"an array in {public_url(place)} cannot be opened: {error_text(error)}; restore it, "
            "or write it again"
        ) from error
    pair = find_pair([*named, *held], x, y)
    if pair is None:
        raise no_pair_error(public_url(place), [held[name] for name in sorted(held)], x, y)
    urls = {name: absolute_url(f"{place}/{key}") for name, key in zip("Xy", pair, strict=True)}
    arrays = {name: _as_stored(url) for name, url in urls.items()}
    attributes = {name: carried_attributes(array.array()) for name, array in arrays.items()}
    X, y_array = arrays["X"], arrays["y"]
    specs = checked_specs(arrays)
    require_same_axes(axes_of(None, X), axes_of(None, y_array))
    # One level is that of the decorator of `ingest`.
    warn_of_absent_chunks(Source(X, y_array, None, np.dtype(np.float64)), stacklevel=5)
    names = X.array().attrs.get("feature_names", stored_feature_names(X))
    feature_names = tuple(map(str, names)) if isinstance(names, list) else None
    blocks = partial(_read_blocks, arrays)
    return RowStream(public_url(place), specs, blocks, feature_names, attributes)


def _open(place: Path | str) -> zarr.Group:
    if isinstance(place, Path) and not place.exists():
        raise FileNotFoundError(f"{place} does not exist")
    reason: object = "it is an array"
    try:
        node = open_node(absolute_url(place))
        if isinstance(node, zarr.Group):
            return node
    except DataError as error:
        reason = error
    raise DataError(
        f"{public_url(place)} is no group of Zarr arrays ({reason}); expected one, or a file whose "
        "name ends in .npz, .npy, .csv or .parquet"
    )


def _as_stored(url: str) -> ZarrArray:
    """Return an array that is read as it is stored; attributes that cannot be followed are errors.

    They are copied, and followed by who reads the copy.
    """
    array = described(url, url, open_node(url))
    return replace(array, encoding=None, dtype=np.dtype(array.array().dtype))


def _read_blocks(arrays: dict[str, ZarrArray]) -> Iterator[Block]:
    rows = _rows_at_once(arrays["X"])
    try:
        yield from zip_blocks(
            {"X": _read_pieces(arrays["X"]), "y": rechunked(_read_pieces(arrays["y"]), rows)}
        )
        require_unchanged(Source(arrays["X"], arrays["y"], None, np.dtype(np.float64)))
    finally:  # the cache of chunks has no use once all rows are read
        forget_chunks()


def _read_pieces(array: ZarrArray) -> Iterator[Array]:
    rows, count, retry_policy = _rows_at_once(array), array.shape[0], RetryPolicy.configured()
    for start in range(0, count, rows):
        stop = min(start + rows, count)
        piece = fetch(
            array.name,
            partial(array.read, start, stop),
            start,
            stop,
            retry_policy,
            partial(array.bad_chunk, start, stop),
        )
        yield piece.astype(native(piece.dtype), copy=False)


def _rows_at_once(array: ZarrArray) -> int:
    """Return the rows of some whole chunks, unless they are very tall."""
    row_bytes, chunk = array.nbytes // array.shape[0], array.chunk_shape[0]
    whole_chunks = max(1, block_rows(row_bytes) // chunk) * chunk
    return min(whole_chunks, max(1, _MOST_BYTES // row_bytes))
