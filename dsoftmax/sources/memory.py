"""Rows of a NumPy array."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from dsoftmax.reduction import Array

_CHUNK_BYTES = 1 << 22


@dataclass(frozen=True, eq=False)
class MemoryArray:
    """A NumPy array, or the part of one from row `offset` on.

    A chunk is about 4 MiB of rows, so that several threads share the work.
    """

    name: str
    values: Array
    offset: int = 0
    in_memory: bool = True
    portable: bool = True

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array."""
        return self.values.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Dtype of the array."""
        return self.values.dtype

    @property
    def row_chunk(self) -> int:
        """Rows in about 4 MiB."""
        row_bytes = self.values.nbytes // max(len(self.values), 1)
        return max(1, _CHUNK_BYTES // max(row_bytes, 1))

    def read(self, start: int, stop: int) -> Array:
        """Return a view of rows start to stop."""
        return self.values[start - self.offset : stop - self.offset]

    def part(self, start: int, stop: int) -> MemoryArray:
        """Return the array with these rows only, found at the same indices."""
        return MemoryArray(self.name, self.read(start, stop), start)
