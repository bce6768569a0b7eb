"""Rows of a NumPy array."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np

from dsoftmax.data.grid import Grid, slabs
from dsoftmax.data.row_array import NoStoreMixin
from dsoftmax.typing import Array

_CHUNK_BYTES = 1 << 22


@dataclass(frozen=True, eq=False)
class MemoryArray(NoStoreMixin):
    """A NumPy array, or the part of one from row `offset` on.

    A chunk is about 4 MiB of rows, so that several threads share the work.

    Attributes
    ----------
    name : what messages call it
    values : the array; while it is no more than that, its axes may be more than rows and features
    offset : row of the whole array that comes first
    """

    name: str
    values: Array
    offset: int = 0
    in_memory: bool = True
    portable: bool = True
    futures: ClassVar[Mapping[Any, Any]] = MappingProxyType({})
    identity: ClassVar[str] = ""

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
        return MemoryArray(self.name, grid.arranged(self.values))

    def read(self, start: int, stop: int) -> Array:
        """Return a view of rows start to stop."""
        return self.values[start - self.offset : stop - self.offset]

    def part(self, start: int, stop: int) -> MemoryArray:
        """Return the array with these rows only, found at the same indices."""
        return MemoryArray(self.name, self.read(start, stop), start)

    def with_blocks(self, blocks: Mapping[Any, Any]) -> MemoryArray:
        """Return the array itself."""
        return self
