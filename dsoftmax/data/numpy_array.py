"""Rows of a NumPy array, in memory or in a memory-mapped file."""

from __future__ import annotations

import mmap
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Self
from uuid import uuid4

import numpy as np

from dsoftmax.data.cf_encoding import CFEncoding
from dsoftmax.data.grid import Grid, Index, slabs
from dsoftmax.data.row_array import BoxArrayMixin, RowArrayMixin
from dsoftmax.errors import DataError
from dsoftmax.typing import Array

_CHUNK_BYTES = 1 << 22  # of rows, so that several threads share the work


@dataclass(frozen=True, eq=False)
class MemoryArray(RowArrayMixin):
    """A NumPy array, or the part of one from row `offset` on.

    A chunk is about 4 MiB of rows, so that several threads share the work.

    Attributes
    ----------
    name : what messages call it
    values : the array; while it is no more than that, its axes may be more than rows and features
    offset : row of the whole array that comes first
    encoding : what its numbers stand for, or None for themselves
    """

    name: str
    values: Array
    offset: int = 0
    encoding: CFEncoding | None = None
    in_memory = True
    identity = ""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array."""
        return self.values.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Dtype of the array."""
        return self.values.dtype

    @property
    def boundaries(self) -> tuple[int, ...]:
        """Row boundaries about 4 MiB apart."""
        n_rows = len(self.values)
        row_bytes = self.values.nbytes // max(n_rows, 1)
        rows = max(1, _CHUNK_BYTES // max(row_bytes, 1))
        return (*range(0, n_rows, rows), n_rows)

    @property
    def cuts(self) -> tuple[tuple[int, ...], ...]:
        """Cuts along the first axis, about 4 MiB apart; the other axes of the samples are whole."""
        axes = max(1, len(self.shape) - 1)
        return slabs(self.shape, self.dtype.itemsize, _CHUNK_BYTES)[:axes]

    def laid_out(self, grid: Grid) -> MemoryArray:
        """Return the rows in the order of a grid."""
        return replace(self, values=grid.flattened(self.values))

    def read(self, start: int, stop: int) -> Array:
        """Return a view of rows start to stop."""
        return self.values[start - self.offset : stop - self.offset]

    def part(self, start: int, stop: int) -> Self:
        """Return the array with these rows only, found at the same indices."""
        return replace(self, values=self.read(start, stop), offset=start)


@dataclass(frozen=True)
class MemmapArray(BoxArrayMixin):
    """An array within a file, C order; it pickles as the path.

    Attributes
    ----------
    name : path, for messages
    shape, dtype : of the array
    offset : bytes of the file before it
    size : bytes of the file
    token : names this opening
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    offset: int
    size: int
    token: str

    @property
    def boundaries(self) -> tuple[int, ...]:
        """Row boundaries about 4 MiB apart."""
        return self.cuts[0]

    @property
    def cuts(self) -> tuple[tuple[int, ...], ...]:
        """Cuts along the first axis, about 4 MiB apart; the other axes of the samples are whole."""
        itemsize, axes = self.dtype.itemsize, max(1, len(self.shape) - 1)
        return slabs(self.shape, itemsize, _CHUNK_BYTES)[:axes]

    @property
    def identity(self) -> str:
        """What tells it from another array."""
        return f"{self.name} {self.offset} {self.size}"

    def region(self, where: Index) -> Array:
        """Return a box: a view of the file."""
        return np.asarray(_mapped(self)[where])

    def bad_chunk_in(self, where: Index) -> str | None:
        """Return None: there are no chunks."""
        return None

    def chunk_of(self, index: tuple[int, ...]) -> str:
        """Return nothing: there are no chunks."""
        return ""

    def require_visible(self) -> None:
        """Raise an error unless this process can open the file."""
        _mapped(self)


def from_memmap(values: np.memmap[Any, Any]) -> MemmapArray | None:
    """Return the source array of a memory map, or None for one that is not what its file holds.

    Copies in memory, copies on write, and views that skip parts of the file are such.
    """
    root: Any = values
    while isinstance(root.base, np.memmap):
        root = root.base
    if not isinstance(root.base, mmap.mmap) or root.filename is None or root.mode == "c":
        return None
    if not values.flags.c_contiguous or values.dtype.hasobject:
        return None
    if root.mode != "r":
        root.flush()  # so that other processes, which read the file, see what was written
    path = Path(root.filename).resolve()
    offset = root.offset + values.ctypes.data - root.ctypes.data
    size = path.stat().st_size
    return MemmapArray(str(path), values.shape, values.dtype, offset, size, uuid4().hex)


# A process maps a file once, not again for each span that it reads.
@lru_cache(maxsize=16)
def _mapped(array: MemmapArray) -> Array:
    if (size := Path(array.name).stat().st_size) != array.size:
        raise DataError(
            f"{array.name} has changed since it was opened: it had {array.size:,} bytes and now "
            f"has {size:,}; do not write to a file while it is read, and start again"
        )
    return np.memmap(array.name, array.dtype, "r", array.offset, array.shape)
