"""Ingestion: the arrays of a `.npz` or `.npy` file become a Zarr store, a few chunks at a time."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
import zarr

from dsoftmax.errors import DataError
from dsoftmax.npyfile import Block, NpyArray, damage_refused, read_blocks, read_header
from dsoftmax.stores import checksummed, locate, new_group

CHUNK_BYTES = {"X": 4 * 2**20, "y": 2**20}
SHAPES = {"X": "(n_samples, n_features)", "y": "(n_samples,)"}
NDIM = {"X": 2, "y": 1}
DTYPE_KINDS = {"X": "biuf", "y": "biufU"}
USUAL_MEMBERS = [("X", "y"), ("X_train", "y_train")]
Progress = Callable[[int, int], None]


def ingest(
    source: str | os.PathLike[str],
    store: str | os.PathLike[str],
    *,
    x: str | None = None,
    y: str | None = None,
    labels: str | os.PathLike[str] | None = None,
    chunk_rows: int | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Path | str:
    """Write the arrays of a NumPy file to a Zarr group, holding a few chunks in memory.

    Parameters
    ----------
    source : path
        A `.npz` archive, compressed or not, or a `.npy` file that holds X.
    store : path or URL
        Where the group (Zarr format 3) goes. A local one appears only when it is complete. At a
        URL it is written in place, and gets its attribute "dsoftmax" when it is complete.
    x, y : str, optional
        The members of the archive that hold X, of shape (n_samples, n_features), and y, of shape
        (n_samples,). By default X and y, or else X_train and y_train.
    labels : path, optional
        The `.npy` file that holds y, when `source` is a `.npy` file; without it only X is written.
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
        If the source is damaged, pickled, in Fortran order, or of a wrong shape or dtype, or if
        the destination is taken.
    FileNotFoundError
        If the source does not exist.

    Examples
    --------
    >>> import numpy as np
    >>> np.savez("letters.npz", X=np.eye(4), y=np.array(["a", "b", "a", "b"]))
    >>> print(ingest("letters.npz", "letters.zarr"))
    letters.zarr
    """
    arrays = _find_arrays(Path(source), x, y, labels)
    _check_arrays(arrays)
    rows = {name: _rows_per_chunk(name, array, chunk_rows) for name, array in arrays.items()}
    destination = locate(store)
    with new_group(destination, overwrite) as group:
        for name, array in arrays.items():
            target = _create_array(group, name, array, rows[name])
            blocks = read_blocks(array, rows[name])
            _write_behind(target, blocks, progress if name == "X" else None)
        group.attrs["dsoftmax"] = {"source": Path(source).name, "rows": arrays["X"].shape[0]}
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
    return f"{store}: {', '.join(contents)}; {decoded:.1f} MB -> {stored:.1f} MB"


def _find_arrays(
    source: Path, x: str | None, y: str | None, labels: str | os.PathLike[str] | None
) -> dict[str, NpyArray]:
    if source.suffix == ".npz" and labels is None:
        return _find_members(source, x, y)
    if source.suffix == ".npy" and x is None and y is None:
        files = {"X": source} if labels is None else {"X": source, "y": Path(labels)}
        return {name: read_header(path, None) for name, path in files.items()}
    raise DataError(
        f"got {source} with x={x!r}, y={y!r}, labels={labels!r}; expected a .npz archive, whose "
        "members x and y name, or a .npy file of X, with labels another .npy file"
    )


def _find_members(source: Path, x: str | None, y: str | None) -> dict[str, NpyArray]:
    with damage_refused(source), ZipFile(source) as archive:
        names = [name[:-4] for name in archive.namelist() if name.endswith(".npy")]
    for features, labels in USUAL_MEMBERS if x is None and y is None else [(x, y)]:
        if features in names and labels in names:
            return {"X": read_header(source, features), "y": read_header(source, labels)}
    headers = [read_header(source, name) for name in names]
    held = ", ".join(f"{a.member} {a.shape} {a.dtype}" for a in headers) or "no array"
    raise DataError(
        f"{source} holds {held}; got x={x!r}, y={y!r}, expected two of these: name both x and y "
        "(to write X alone, save it as a .npy file)"
    )


def _check_arrays(arrays: dict[str, NpyArray]) -> None:
    """Refuse from the headers alone what cannot be ingested, before any data is read."""
    for name, array in arrays.items():
        for problem in _problems(name, array):
            raise DataError(f"{name} ({array}) {problem}")
    if len({array.shape[0] for array in arrays.values()}) > 1:
        got = " and ".join(f"{name} ({array})" for name, array in arrays.items())
        raise DataError(f"got {got}; expected one label for each row: pair them up again")


def _problems(name: str, array: NpyArray) -> Iterator[str]:
    dtype, expected_bytes = array.dtype, array.header_bytes + array.data_bytes
    values = "real numbers or strings" if name == "y" else "real numbers"
    if dtype.hasobject:
        yield f"is pickled, and pickles are never loaded; expected {values}: save it as such"
    if dtype.kind not in DTYPE_KINDS[name] or (dtype.kind == "f" and dtype.itemsize > 8):
        yield f"has a dtype that cannot be used; expected {values}: convert it with astype"
    if len(array.shape) != NDIM[name]:
        yield f"has {len(array.shape)} dimensions; expected {SHAPES[name]}: reshape it to that"
    if array.data_bytes == 0:
        yield "is empty; expected at least one row and one column"
    if array.fortran_order and name == "X":
        yield "is in Fortran order, which has no rows to stream: save np.ascontiguousarray of it"
    if array.file_bytes != expected_bytes:
        yield f"has {array.file_bytes} bytes; expected {expected_bytes}: damaged, copy it again"


def _rows_per_chunk(name: str, array: NpyArray, chunk_rows: int | None) -> int:
    if chunk_rows is not None and chunk_rows < 1:
        raise DataError(f"got chunk_rows={chunk_rows}; expected 1 or more")
    if chunk_rows is None or name == "y":
        chunk_rows = CHUNK_BYTES[name] * array.shape[0] // array.data_bytes
    return max(1, min(chunk_rows, array.shape[0]))


def _create_array(group: zarr.Group, name: str, array: NpyArray, rows: int) -> zarr.Array[Any]:
    return group.create_array(
        name,
        shape=array.shape,
        # Zarr 3 has no specification of fixed-length strings, and warns of it.
        dtype="string" if array.dtype.kind == "U" else array.dtype.newbyteorder("="),
        chunks=(rows, *array.shape[1:]),
        compressors=checksummed(),
        # With every chunk written, one that is missing is damage, never zeros.
        config={"write_empty_chunks": True},
    )


def _write_behind(
    target: zarr.Array[Any], blocks: Iterator[Block], progress: Progress | None
) -> None:
    """Write each block while the next one is read; an error or Ctrl-C waits for that write."""

    def write(start: int, rows: np.ndarray[Any, Any]) -> int:
        target[start : start + len(rows)] = rows
        return start + len(rows)

    def finish(writing: Future[int]) -> None:
        rows_done = writing.result()
        if progress is not None:
            progress(rows_done, target.shape[0])

    with ThreadPoolExecutor(max_workers=1) as writer:
        writing = writer.submit(write, *next(blocks))
        for block in blocks:
            finish(writing)
            writing = writer.submit(write, *block)
        finish(writing)
