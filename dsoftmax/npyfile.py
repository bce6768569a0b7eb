"""Arrays in NumPy's files, read a few rows at a time, without unpickling anything."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tokenize import TokenError
from typing import IO, Any
from zipfile import BadZipFile, ZipFile

import numpy as np
from numpy.lib import format as npy

from dsoftmax.errors import DataError

_DAMAGE = (BadZipFile, EOFError, OSError, RuntimeError, TokenError, ValueError, zlib.error)

Block = tuple[int, np.ndarray[Any, Any]]  # the number of its first row, and the rows


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


@contextmanager
def damage_refused(path: Path) -> Iterator[None]:
    """Turn whatever a damaged file makes zipfile, zlib and NumPy raise into a `DataError`."""
    try:
        yield
    except FileNotFoundError:
        raise
    except _DAMAGE as error:
        raise DataError(
            f"{path} cannot be read: {error}; it is damaged or no NumPy file, save or copy it again"
        ) from error


@contextmanager
def _open_npy(path: Path, member: str | None) -> Iterator[tuple[IO[bytes], int]]:
    """Open a `.npy` file, or the one that is a member of an archive, and tell its length."""
    with damage_refused(path):
        if member is None:
            with path.open("rb") as stream:
                yield stream, path.stat().st_size
        else:
            with ZipFile(path) as archive, archive.open(f"{member}.npy") as stream:
                yield stream, archive.getinfo(f"{member}.npy").file_size


def read_header(path: Path, member: str | None) -> NpyArray:
    """Return what a header says of an array.

    Raises
    ------
    DataError
        If the file is damaged, or not one of NumPy's.
    """
    with _open_npy(path, member) as (stream, file_bytes):
        # Version 3.0 differs from 2.0 in the names of fields only, and fields are refused.
        version_1 = npy.read_magic(stream) == (1, 0)
        read = npy.read_array_header_1_0 if version_1 else npy.read_array_header_2_0
        return NpyArray(path, member, *read(stream), stream.tell(), file_bytes)


def read_blocks(array: NpyArray, chunk_rows: int) -> Iterator[Block]:
    """Yield the rows in order and in native byte order, a chunk at a time."""
    n_rows, row_bytes = array.shape[0], array.data_bytes // array.shape[0]
    with _open_npy(array.path, array.member) as (stream, _):
        stream.read(array.header_bytes)
        for start in range(0, n_rows, chunk_rows):
            stop = min(start + chunk_rows, n_rows)
            data = stream.read((stop - start) * row_bytes)
            if len(data) < (stop - start) * row_bytes:
                raise EOFError(f"it ends before row {stop}")
            rows = np.frombuffer(data, array.dtype).reshape(-1, *array.shape[1:])
            yield start, rows.astype(array.dtype.newbyteorder("="), copy=False)
        stream.read(1)  # zipfile compares a member's checksum only at its very end
