"""Rows of a NumPy array."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np

from dsoftmax.errors import DataError
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

    def read(self, start: int, stop: int) -> Array:
        """Return a view of rows start to stop."""
        return self.values[start - self.offset : stop - self.offset]

    def part(self, start: int, stop: int) -> MemoryArray:
        """Return the array with these rows only, found at the same indices."""
        return MemoryArray(self.name, self.read(start, stop), start)

    def with_blocks(self, blocks: Mapping[Any, Any]) -> MemoryArray:
        """Return the array itself."""
        return self


def from_objects(role: str, array: Array) -> Array:
    """Return an object array as numbers (X, weights) or as labels of one type (y)."""
    if role != "y":
        try:
            return array.astype(np.float64)
        except (TypeError, ValueError) as error:
            raise DataError(f"{role} holds objects that are not numbers: {error}") from error
    if all(isinstance(label, str) for label in array.flat):
        return array.astype(str)
    kinds = sorted({type(label).__name__ for label in array.flat})
    if len(kinds) > 1:
        raise DataError(f"y mixes labels of the types {', '.join(kinds)}; expected one type")
    return np.array(array.tolist())
