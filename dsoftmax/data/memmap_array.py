"""Rows of a memory-mapped file, opened anew by whoever reads them."""

from __future__ import annotations

import mmap
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar
from uuid import uuid4

import numpy as np

from dsoftmax.data.grid import Grid, Index, slabs
from dsoftmax.data.grid_rows import GridRows
from dsoftmax.data.row_array import NoStoreMixin
from dsoftmax.errors import DataError
from dsoftmax.typing import Array

_CHUNK_BYTES = 1 << 22


@dataclass(frozen=True)
class MemmapArray(NoStoreMixin):
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
    in_memory: bool = False
    portable: bool = True
    futures: ClassVar[Mapping[Any, Any]] = MappingProxyType({})

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

    def read(self, start: int, stop: int) -> Array:
        """Return rows start to stop: a view of the file."""
        return self.region((slice(start, stop),))

    def region(self, where: Index) -> Array:
        """Return a box: a view of the file."""
        return np.asarray(_mapped(self)[where])

    @staticmethod
    def chunk_of(index: tuple[int, ...]) -> str:
        """Return nothing: no chunk has a name."""
        return ""

    def require_visible(self) -> None:
        """Raise an error unless this process can open the file."""
        _mapped(self)

    def laid_out(self, grid: Grid) -> GridRows:
        """Return the rows in the order of a grid."""
        return GridRows(self, grid)

    def part(self, start: int, stop: int) -> MemmapArray:
        """Return the array itself: it travels as its path."""
        return self

    def with_blocks(self, blocks: Mapping[Any, Any]) -> MemmapArray:
        """Return the array itself."""
        return self


def from_memmap(values: np.memmap[Any, Any]) -> MemmapArray | None:
    """Return the source array of a memory map, or None for one that is not what its file holds.

    That are copies in memory, copies on write, and views that skip over parts of the file.
    """
    root: Any = values
    while isinstance(root.base, np.memmap):
        root = root.base
    if not isinstance(root.base, mmap.mmap) or root.filename is None or root.mode == "c":
        return None
    if not values.flags.c_contiguous or values.dtype.hasobject:
        return None
    if root.mode != "r":
        root.flush()  # other processes read the file
    path = Path(root.filename).resolve()
    offset = root.offset + values.ctypes.data - root.ctypes.data
    size = path.stat().st_size
    return MemmapArray(str(path), values.shape, values.dtype, offset, size, uuid4().hex)


@lru_cache(maxsize=16)
def _mapped(array: MemmapArray) -> Array:
    if (size := Path(array.name).stat().st_size) != array.size:
        raise DataError(
            f"{array.name} has changed since it was opened: it had {array.size:,} bytes and now "
            f"has {size:,}; do not write to a file while it is read, and start again"
        )
    return np.memmap(array.name, array.dtype, "r", array.offset, array.shape)
