"""Rows of a NumPy array."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np

from dsoftmax.errors import DataError, DtypeError
from dsoftmax.reduction import Array
from dsoftmax.sources.grid import Grid, slabs
from dsoftmax.sources.rowarray import Unstored

_CHUNK_BYTES = 1 << 22
LABEL_KINDS = "biufSU"


@dataclass(frozen=True, eq=False)
class MemoryArray(Unstored):
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


def from_objects(role: str, array: Array) -> Array:
    """Return an object array as numbers (X, weights) or as labels of one type (y, cv)."""
    if role not in ("y", "cv"):
        try:
            return array.astype(np.float64)
        except (TypeError, ValueError) as error:
            kind = DtypeError if isinstance(error, TypeError) else DataError
            raise kind(f"{role} holds objects that are not numbers: {error}") from error
    if all(isinstance(label, str) for label in array.flat):
        return array.astype(str)
    kinds = sorted({type(label).__name__ for label in array.flat})
    if len(kinds) > 1:
        raise DataError(f"{role} mixes labels of the types {', '.join(kinds)}; expected one type")
    labels = np.array(array.tolist())
    if labels.dtype.kind not in LABEL_KINDS:
        raise DataError(
            f"{role} holds objects of the type {kinds[0]}; expected integers, booleans or strings"
        )
    return labels
