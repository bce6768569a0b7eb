"""`ingest`: copies rows of any source to a Zarr store, a few chunks at a time."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import zarr

from dsoftmax.data.ingest.npy import open_archive, open_array
from dsoftmax.data.ingest.row_stream import Names, Rechunker, RowStream
from dsoftmax.data.ingest.shuffle import shuffled
from dsoftmax.data.ingest.tables import open_csv, open_parquet
from dsoftmax.data.ingest.zarr_group import rows_of_group
from dsoftmax.errors import DataError, quoted
from dsoftmax.storage.credentials import public_errors, public_url
from dsoftmax.storage.urls import locate
from dsoftmax.storage.zarr_nodes import create_array, new_group, require_free
from dsoftmax.typing import Array

CHUNK_BYTES = {"X": 4 * 2**20, "y": 2**20}
_FILES: dict[str | None, Callable[[Path, Names, str | None], RowStream]] = {
    ".csv": open_csv,
    ".npz": open_archive,
    ".parquet": open_parquet,
    ".pq": open_parquet,
}
Progress = Callable[[int, int], None]


class _Chunk(NamedTuple):
    """Rows of the array `name`, from the row `start`."""

    name: str
    start: int
    rows: Array


@public_errors()
def ingest(
    source: str | os.PathLike[str],
    store: str | os.PathLike[str],
    *,
    x: Names = None,
    y: str | None = None,
    labels: str | os.PathLike[str] | None = None,
    shuffle: int | None = None,
    chunk_rows: int | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Path | str:
    """Write rows and labels to a Zarr group, holding a few chunks in memory.

    Parameters
    ----------
    source : path or URL
        A `.npz` archive, compressed or not; a `.npy` file that holds X; a `.csv` file with a
        header; a `.parquet` file, or a folder of such files; or a Zarr group, at a path or URL,
        whose numbers are copied as they are stored, with the attributes that decode them.
    store : path or URL
        Where the group (Zarr format 3) goes. A local one appears only when it is complete. At a
        URL it is written in place, and gets its attribute "dsoftmax" when it is complete.
    x, y : str, optional
        What holds X, of shape (n_samples, n_features), and y, of shape (n_samples,), in an archive
        or a group; by default X and y, or else X_train and y_train. Of a table, y is the column of
        labels and x a list of columns, or a string of names with commas between them; by default
        all but y. Their names become the attribute "feature_names" of X, and their values have the
        dtype that NumPy promotes them all to.
    labels : path, optional
        The `.npy` file that holds y, when `source` is a `.npy` file; without it only X is written.
    shuffle : int, optional
        A seed: write the rows in a uniformly random order. It is a function of the seed and the
        number of rows alone. All rows are meanwhile kept decoded, with 8 bytes more a row, on the
        disk of `store` or, if that is a URL, in the folder for temporary files.
    chunk_rows : int, optional
        Rows in a chunk of X. By default as many as make about 4 MiB.
    overwrite : bool, default=False
        Replace the Zarr store that is at `store`. Anything else there is never replaced.
    progress : callable, optional
        Called as ``progress(rows_done, rows_total)`` after each chunk of X.

    Returns
    -------
    Path or str
        Where the group is: a path, or the URL.

    Raises
    ------
    DataError
        If the source is damaged, pickled, in Fortran order, lacks values, or is of a wrong shape
        or dtype, if the destination is taken, or if there is no disk to shuffle on.
    ChunkError, OutageError
        If a chunk of a Zarr array cannot be read, for good or for now.
    DsoftmaxError
        If pyarrow, which reads CSV and Parquet, is not installed.
    FileNotFoundError
        If the source does not exist.

    Examples
    --------
    >>> import numpy as np
    >>> np.savez("letters.npz", X=np.eye(4), y=np.array(["a", "b", "a", "b"]))
    >>> print(ingest("letters.npz", "letters.zarr"))
    letters.zarr
    """
    destination = locate(store)
    if destination == locate(source):
        raise DataError(
            f"{public_url(source)} is both source and destination: choose another destination"
        )
    require_free(destination, overwrite)
    rows = _open_source(source, x, y, labels)
    sizes = {name: _rows_per_chunk(name, rows, chunk_rows) for name in rows.specs}
    if shuffle is not None:
        rows = shuffled(rows, shuffle, _scratch_folder(destination))
    with new_group(destination, overwrite) as group:
        arrays = {name: _create_array(group, name, rows, sizes[name]) for name in sizes}
        _write_behind(arrays, _chunks(rows, sizes), progress)
        name = Path(rows.name).name
        group.attrs["dsoftmax"] = {"source": name, "rows": rows.count, "shuffle": shuffle}
    return destination


def summarize(store: str | os.PathLike[str]) -> str:
    """Say in one line what an ingested store holds, and its bytes in memory and as stored."""
    arrays = dict(sorted(zarr.open_group(store, mode="r").arrays()))
    contents = [
        f"{name} {array.shape} {'string' if array.dtype.kind == 'T' else array.dtype}"
        for name, array in arrays.items()
    ]
    contents[0] += f" in {arrays['X'].nchunks} chunks"
    decoded = sum(array.nbytes for array in arrays.values()) / 1e6
    stored = sum(array.nbytes_stored() for array in arrays.values()) / 1e6
    return f"{public_url(store)}: {', '.join(contents)}; {decoded:.1f} MB -> {stored:.1f} MB"


def _open_source(
    source: str | os.PathLike[str], x: Names, y: str | None, labels: str | os.PathLike[str] | None
) -> RowStream:
    place = locate(source)
    kind = _kind(place)
    if (labels is not None and kind != ".npy") or (kind == ".npy" and (x, y) != (None, None)):
        raise DataError(
            f"got {public_url(source)} with x={quoted(x)}, y={quoted(y)}, labels={quoted(labels)}; "
            "expected x and y to name what the source holds or, with a .npy file of X, labels to "
            "be another of y"
        )
    if kind == ".npy":
        return open_array(Path(place), None if labels is None else Path(labels))
    if kind in _FILES:
        return _FILES[kind](Path(place), x, y)
    return rows_of_group(place, x, y)


def _kind(place: Path | str) -> str | None:
    if isinstance(place, str):
        return None
    if place.is_dir():
        return ".parquet" if any(place.glob("*.parquet")) else None
    return place.suffix.lower()


def _rows_per_chunk(name: str, rows: RowStream, chunk_rows: int | None) -> int:
    if chunk_rows is not None and chunk_rows < 1:
        raise DataError(f"got chunk_rows={chunk_rows}; expected 1 or more")
    if chunk_rows is None or name == "y":
        chunk_rows = CHUNK_BYTES[name] // rows.specs[name].row_bytes
    return max(1, min(chunk_rows, rows.count))


def _scratch_folder(destination: Path | str) -> Path:
    if isinstance(destination, str):
        return Path(tempfile.gettempdir())
    return next(folder for folder in destination.resolve().parents if folder.is_dir())


def _create_array(group: zarr.Group, name: str, rows: RowStream, chunk: int) -> zarr.Array[Any]:
    shape, dtype = rows.specs[name]
    attributes = dict(rows.attributes.get(name, {}))
    array = create_array(group, name, shape, dtype, (chunk, *shape[1:]), attributes)
    if name == "X" and rows.feature_names is not None:
        array.attrs["feature_names"] = list(rows.feature_names)
    return array


def _chunks(rows: RowStream, sizes: dict[str, int]) -> Iterator[_Chunk]:
    """Yield the chunks of all arrays, each when its last row has been read."""
    rechunkers = {name: Rechunker(size) for name, size in sizes.items()}
    starts = dict.fromkeys(sizes, 0)

    def numbered(name: str, pieces: Iterator[Array]) -> Iterator[_Chunk]:
        for piece in pieces:
            yield _Chunk(name, starts[name], piece)
            starts[name] += len(piece)

    for block in rows:
        for name, rechunker in rechunkers.items():
            yield from numbered(name, rechunker.push(block[name]))
    for name, rechunker in rechunkers.items():
        yield from numbered(name, rechunker.rest())


def _write_behind(
    arrays: dict[str, zarr.Array[Any]], chunks: Iterator[_Chunk], progress: Progress | None
) -> None:
    """Write each chunk while the next one is read; an error or Ctrl-C waits for that write."""

    def write(chunk: _Chunk) -> tuple[str, int]:
        stop = chunk.start + len(chunk.rows)
        arrays[chunk.name][chunk.start : stop] = chunk.rows
        return chunk.name, stop

    def finish(writing: Future[tuple[str, int]]) -> None:
        name, rows_done = writing.result()
        if progress is not None and name == "X":
            progress(rows_done, arrays["X"].shape[0])

    # One thread, at most one chunk behind: memory holds two chunks, however fast the source is.
    with ThreadPoolExecutor(max_workers=1) as writer:
        writing = writer.submit(write, next(chunks))
        for chunk in chunks:
            finish(writing)
            writing = writer.submit(write, chunk)
        finish(writing)
