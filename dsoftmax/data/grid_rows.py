"""Rows of an array of any shape: the last axis is the features, the others are flattened."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from dsoftmax.data.grid import Grid
from dsoftmax.data.row_array import Boxed
from dsoftmax.typing import Array

if TYPE_CHECKING:
    from dsoftmax.data.row_array import RowArray


@dataclass(frozen=True)
class GridRows:
    """The rows of an array whose leading axes are those of a grid."""

    boxed: Boxed
    grid: Grid
    in_memory: bool = False

    @property
    def name(self) -> str:
        """Name of the array."""
        return self.boxed.name

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows first."""
        return (math.prod(self.grid.shape), *self.boxed.shape[len(self.grid.cuts) :])

    @property
    def dtype(self) -> np.dtype[Any]:
        """Dtype of the array."""
        return self.boxed.dtype

    @property
    def boundaries(self) -> tuple[int, ...]:
        """Row boundaries of the blocks."""
        return self.grid.boundaries

    @property
    def may_wait(self) -> bool:
        """Whether reading the array may wait for storage."""
        return self.boxed.may_wait

    @property
    def portable(self) -> bool:
        """Whether the array can travel."""
        return self.boxed.portable

    @property
    def futures(self) -> Mapping[Any, Any]:
        """None: neither Zarr nor a memory map has any."""
        return self.boxed.futures

    @property
    def identity(self) -> str:
        """Digest of the array and the grid."""
        return f"{self.boxed.identity} {self.grid.cuts}"

    @property
    def cuts(self) -> tuple[tuple[int, ...], ...]:
        """Row boundaries of the blocks: the only axis that is left."""
        return (self.boundaries,)

    def read(self, start: int, stop: int) -> Array:
        """Return rows start to stop, decoded box by box."""
        trailing, parts = self.shape[1:], []
        for where, first, last in self.grid.regions(start, stop):
            rows = self.boxed.region(where).reshape(-1, *trailing)
            parts.append(rows[max(start - first, 0) : min(stop, last) - first])
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def culprit(self, start: int, stop: int) -> str | None:
        """Return the first chunk of these rows that cannot be read, or None."""
        found = (self.boxed.culprit(where) for where, _, _ in self.grid.regions(start, stop))
        return next(filter(None, found), None)

    def chunk_at(self, row: int, column: int = 0) -> str:
        """Return which chunk holds a value, for messages."""
        trailing = (column,) * (len(self.shape) - 1)
        return self.boxed.chunk_of((*self.grid.index(row), *trailing))

    def absent(self) -> int:
        """Return how many chunks are not in the store."""
        return self.boxed.absent()

    def require_visible(self) -> None:
        """Raise an error unless this process can open the array."""
        self.boxed.require_visible()

    def laid_out(self, grid: Grid) -> RowArray:
        """Return the array itself: it has been laid out."""
        return self

    def part(self, start: int, stop: int) -> GridRows:
        """Return the array itself: it travels as its address."""
        return self

    def with_blocks(self, blocks: Mapping[Any, Any]) -> GridRows:
        """Return the array itself."""
        return self
