"""Rows of another Zarr group, of format 2 or 3, chunked in any way, read by whole chunks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import zarr.errors

from dsoftmax.data.ingest.row_stream import (
    Block,
    Names,
    RowStream,
    block_rows,
    find_pair,
    in_step,
    native,
    no_pair,
    recut,
    usable_forms,
)
from dsoftmax.errors import ChunkError, DataError
from dsoftmax.typing import Array

_MOST_BYTES = 32 * 2**20


@dataclass(frozen=True)
class _Member:
    """An array of the group."""

    place: str
    array: zarr.Array[Any]

    def __str__(self) -> str:
        return f"{self.place}, {self.shape} {self.dtype}"

    @property
    def shape(self) -> tuple[int, ...]:
        return self.array.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(self.array.dtype)


def rows_of_group(place: Path | str, x: Names, y: str | None) -> RowStream:
    """Open two arrays of a Zarr group, having read their metadata.

    Chunks are read whole and once, in the order of the rows; only if they are so tall that a row
    of them holds more than 32 MiB, they are decoded again for each 32 MiB. Memory has to hold
    that, and a few of the chunks.

    Parameters
    ----------
    place : path or URL
    x, y : str or None
        The arrays, or paths to them in the group; by default X and y, or else X_train and y_train.

    Raises
    ------
    DataError
        If there is no group, or no such arrays in it, or they cannot be used.
    FileNotFoundError
        If there is nothing at a path.
    """
    group = _open(place)
    found = [name for name in (x, y) if isinstance(name, str) and name in group]
    pair = find_pair([*found, *group.array_keys()], x, y)
    if pair is None:
        held = [f"{name} {array.shape} {array.dtype}" for name, array in sorted(group.arrays())]
        raise no_pair(place, held, x, y)
    arrays = {name: _member(place, group, key) for name, key in zip("Xy", pair, strict=True)}
    names = arrays["X"].array.attrs.get("feature_names")
    feature_names = tuple(map(str, names)) if isinstance(names, list) else None
    blocks = partial(_read_blocks, arrays)
    return RowStream(str(place), usable_forms(arrays), blocks, feature_names)


def _open(place: Path | str) -> zarr.Group:
    if isinstance(place, Path) and not place.exists():
        raise FileNotFoundError(f"{place} does not exist")
    try:
        return zarr.open_group(place, mode="r")
    except (zarr.errors.BaseZarrError, OSError, ValueError) as error:
        raise DataError(
            f"{place} is no group of Zarr arrays ({error}); expected one, or a file whose name "
            "ends in .npz, .npy, .csv or .parquet"
        ) from error


def _member(place: Path | str, group: zarr.Group, key: str) -> _Member:
    node = group[key]
    if not isinstance(node, zarr.Array):
        raise DataError(f"{place}/{key} is a Zarr group; expected an array: name one of its arrays")
    return _Member(f"{place}/{key}", node)


def _read_blocks(arrays: dict[str, _Member]) -> Iterator[Block]:
    rows = _rows_at_once(arrays["X"].array)
    return in_step({"X": _read_pieces(arrays["X"]), "y": recut(_read_pieces(arrays["y"]), rows)})


def _read_pieces(member: _Member) -> Iterator[Array]:
    rows, count = _rows_at_once(member.array), member.shape[0]
    for start in range(0, count, rows):
        stop = min(start + rows, count)
        try:
            row_slice = np.asarray(member.array[start:stop])
        except Exception as error:
            raise ChunkError(
                f"{member.place}: rows {start} to {stop - 1} cannot be read: "
                f"{type(error).__name__}: {error}"
            ) from error
        yield row_slice.astype(native(row_slice.dtype), copy=False)


def _rows_at_once(array: zarr.Array[Any]) -> int:
    """Return a number of whole chunks (of those in a shard), unless they are very tall."""
    row_bytes, chunk = array.nbytes // array.shape[0], int(array.chunks[0])
    whole_chunks = max(1, block_rows(row_bytes) // chunk) * chunk
    return min(whole_chunks, max(1, _MOST_BYTES // row_bytes))
