"""Rows in NumPy's files, read a few at a time, without unpickling anything."""

from __future__ import annotations

import io
import math
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from lzma import LZMAError
from pathlib import Path
from tokenize import TokenError
from typing import IO, Any
from zipfile import BadZipFile, ZipFile

import numpy as np
from numpy.lib import format as npy

from dsoftmax.data.ingest.row_stream import (
    Block,
    Names,
    RowStream,
    block_rows,
    checked_specs,
    find_pair,
    native,
    no_pair_error,
    zip_blocks,
)
from dsoftmax.errors import DataError, DsoftmaxError
from dsoftmax.storage.regular_files import require_regular
from dsoftmax.storage.urls import error_text
from dsoftmax.typing import Array

# What damaged files make zipfile, zlib and NumPy raise; a header that nests is a MemoryError.
_DAMAGE = (
    BadZipFile,
    EOFError,
    LZMAError,
    MemoryError,
    OSError,
    OverflowError,
    RuntimeError,
    SyntaxError,
    TokenError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)
_HEADER_BYTES = 1 << 14  # NumPy reads none of more than 10,000


@dataclass(frozen=True)
class NpyArray:
    """An array in a `.npy` file or in a member of an archive, as its header describes it."""

    path: Path
    member: str | None
    shape: tuple[int, ...]
    fortran_order: bool
    dtype: np.dtype[Any]
    header_bytes: int
    file_bytes: int

    def __str__(self) -> str:
        place = f"{self.member} of {self.path}" if self.member else self.path
        return f"{place}, {self.shape} {self.dtype}"

    @property
    def data_bytes(self) -> int:
        """Bytes of the values."""
        return math.prod(self.shape) * self.dtype.itemsize


def open_archive(path: Path, x: Names, y: str | None) -> RowStream:
    """Open two members of a `.npz` archive, having read their headers.

    Parameters
    ----------
    path : Path
    x, y : str or None
        The members; by default X and y, or else X_train and y_train.

    Raises
    ------
    DataError
        If the archive is damaged, or holds no such members, or they cannot be used.
    """
    with _damage_refused(path), ZipFile(path) as archive:
        names = [name[:-4] for name in archive.namelist() if name.endswith(".npy")]
    pair = find_pair(names, x, y)
    if pair is None:
        headers = [_read_header(path, name) for name in names]
        raise no_pair_error(path, [f"{a.member} {a.shape} {a.dtype}" for a in headers], x, y)
    return _rows(path, dict(zip("Xy", [_read_header(path, name) for name in pair], strict=True)))


def open_array(path: Path, labels: Path | None) -> RowStream:
    """Open a `.npy` file of X and perhaps one of y, having read their headers.

    Raises
    ------
    DataError
        If a file is damaged or cannot be used.
    """
    files = {"X": path} if labels is None else {"X": path, "y": labels}
    return _rows(path, {name: _read_header(file, None) for name, file in files.items()})


def _rows(path: Path, arrays: dict[str, NpyArray]) -> RowStream:
    for name, array in arrays.items():
        for problem in _problems(array):
            raise DataError(f"{name} ({array}) {problem}")
    return RowStream(str(path), checked_specs(arrays), partial(_read_blocks, arrays))


def _problems(array: NpyArray) -> Iterator[str]:
    expected_bytes = array.header_bytes + array.data_bytes
    if array.dtype.hasobject:
        yield "is pickled, and pickles are never loaded; expected plain values: save it as such"
    if array.fortran_order and len(array.shape) == 2:
        yield "is in Fortran order, which has no rows to stream: save np.ascontiguousarray of it"
    if array.file_bytes != expected_bytes:
        yield f"has {array.file_bytes} bytes; expected {expected_bytes}: damaged, copy it again"


def _read_blocks(arrays: dict[str, NpyArray]) -> Iterator[Block]:
    rows = block_rows(arrays["X"].data_bytes // arrays["X"].shape[0])
    return zip_blocks({name: _read_pieces(array, rows) for name, array in arrays.items()})


def _read_pieces(array: NpyArray, rows: int) -> Iterator[Array]:
    n_rows, row_bytes = array.shape[0], array.data_bytes // array.shape[0]
    with _open_npy(array.path, array.member) as (stream, _):
        stream.read(array.header_bytes)
        for start in range(0, n_rows, rows):
            stop = min(start + rows, n_rows)
            data = stream.read((stop - start) * row_bytes)
            if len(data) < (stop - start) * row_bytes:
                raise EOFError(f"it ends before row {stop}")
            piece = np.frombuffer(data, array.dtype).reshape(-1, *array.shape[1:])
            piece = piece.astype(native(array.dtype), copy=False)
            if piece.dtype.kind == "U":
                _require_characters(piece.view(np.uint32))
            yield piece
        stream.read(1)  # zipfile compares a member's checksum only at its very end


def _require_characters(codes: Array) -> None:
    """Raise ValueError unless all code points of strings are of characters."""
    surrogates = (codes >= 0xD800) & (codes <= 0xDFFF)
    if codes.size and (codes.max() > 0x10FFFF or surrogates.any()):
        raise ValueError("a string holds a number that stands for no character")


def _read_header(path: Path, member: str | None) -> NpyArray:
    with _open_npy(path, member) as (stream, file_bytes):
        start = io.BytesIO(stream.read(_HEADER_BYTES))
        # Version 3.0 differs from 2.0 in the names of fields only, and fields are refused.
        version_1 = npy.read_magic(start) == (1, 0)
        read = npy.read_array_header_1_0 if version_1 else npy.read_array_header_2_0
        return NpyArray(path, member, *read(start), start.tell(), file_bytes)


@contextmanager
def _open_npy(path: Path, member: str | None) -> Iterator[tuple[IO[bytes], int]]:
    """Open a `.npy` file or member of an archive; yield it and its length in bytes."""
    with _damage_refused(path):
        if member is None:
            with path.open("rb") as stream:
                yield stream, path.stat().st_size
        else:
            with ZipFile(path) as archive, archive.open(f"{member}.npy") as stream:
                yield stream, archive.getinfo(f"{member}.npy").file_size


@contextmanager
def _damage_refused(path: Path) -> Iterator[None]:
    """Turn whatever a damaged file makes zipfile, zlib and NumPy raise into a `DataError`."""
    require_regular(path)
    try:
        yield
    except (FileNotFoundError, DsoftmaxError):
        raise
    except _DAMAGE as error:
        raise DataError(
            f"{path} cannot be read: {error_text(error)}; it is damaged or no NumPy file, save or "
            "copy it again"
        ) from error
