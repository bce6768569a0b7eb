"""The interface of the arrays that a source reads, and the rows of an array of any shape."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Protocol, Self

import numpy as np

from dsoftmax.data.cf_encoding import CFEncoding
from dsoftmax.data.grid import Grid, Index, joined
from dsoftmax.typing import Array


class RowArray(Protocol):
    """An array whose first axis is rows.

    Attributes
    ----------
    name : what messages call it
    shape, dtype : as NumPy's
    boundaries : 0, ..., n_rows; the rows between two of them are decoded together
    cuts : the same for each axis of the samples, where there is more than one
    portable : whether another process can read it
    in_memory : whether reading it costs nothing
    may_wait : whether reading it may wait for storage, and can be done by any thread
    futures : blocks of it that a cluster holds, by key; a task has to depend on them
    identity : digest of what is known of it beyond shape, dtype and boundaries
    encoding : what the numbers that are read stand for, or None for themselves
    may_be_masked : whether a masked array may be read
    is_computed : whether a user's functions compute it at each read
    stored : the arrays in Zarr stores that it reads, as `ZarrArray`
    """

    @property
    def name(self) -> str:
        """Name."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Dtype as stored."""

    @property
    def boundaries(self) -> tuple[int, ...]:
        """Row boundaries of the chunks."""

    @property
    def cuts(self) -> tuple[tuple[int, ...], ...]:
        """Boundaries of the chunks along the axes of the samples."""

    @property
    def portable(self) -> bool:
        """Whether another process can open it."""

    @property
    def in_memory(self) -> bool:
        """Whether its values are in memory."""

    @property
    def may_wait(self) -> bool:
        """Whether a read may wait for storage, so that reading ahead pays."""

    @property
    def futures(self) -> Mapping[Any, Any]:
        """Blocks on a cluster."""

    @property
    def identity(self) -> str:
        """Digest."""

    @property
    def encoding(self) -> CFEncoding | None:
        """What its numbers stand for."""

    @property
    def may_be_masked(self) -> bool:
        """Whether a masked array may be read."""

    @property
    def is_computed(self) -> bool:
        """Whether a user's functions compute it at each read."""

    @property
    def stored(self) -> tuple[Any, ...]:
        """The arrays of Zarr that it reads."""

    def read(self, start: int, stop: int) -> Array:
        """Return rows start to stop, as stored."""
        ...

    def bad_chunk(self, start: int, stop: int) -> str | None:
        """Return the first chunk among these rows that cannot be read, if there are chunks."""
        ...

    def chunk_at(self, row: int, column: int = 0) -> str:
        """Return which chunk holds a value, for messages: nothing, if chunks have no names."""
        ...

    def require_visible(self) -> None:
        """Raise an error unless this process can open it."""

    def laid_out(self, grid: Grid) -> RowArray:
        """Return the array of rows, of an array whose leading axes are those of the grid."""
        ...

    def part(self, start: int, stop: int) -> RowArray:
        """Return what a task needs that reads no other rows than these, at their indices."""
        ...

    def with_blocks(self, blocks: Mapping[Any, Any]) -> RowArray:
        """Return the array that has the values of its `futures` at hand."""
        ...


class BoxArray(RowArray, Protocol):
    """An array of which any box can be read: a slice along each of its leading axes."""

    def part(self, start: int, stop: int) -> BoxArray:
        """Return what a task needs that reads no other rows than these, at their indices."""
        ...

    def region(self, where: Index) -> Array:
        """Return a box of it."""
        ...

    def bad_chunk_in(self, where: Index) -> str | None:
        """Return the first chunk in a box that cannot be read, if there are chunks."""
        ...

    def chunk_of(self, index: tuple[int, ...]) -> str:
        """Return which chunk holds the value at an index, for messages."""
        ...


class RowArrayMixin:
    """Defaults: an array that another process can read, with no chunks in a store."""

    in_memory = False
    encoding: CFEncoding | None = None
    may_be_masked = False
    is_computed = False
    stored: tuple[Any, ...] = ()
    futures: Mapping[Any, Any] = MappingProxyType({})

    @property
    def may_wait(self) -> bool:
        """False."""
        return False

    @property
    def portable(self) -> bool:
        """True."""
        return True

    def bad_chunk(self, start: int, stop: int) -> str | None:
        """Return None."""
        return None

    def chunk_at(self, row: int, column: int = 0) -> str:
        """Return nothing."""
        return ""

    def require_visible(self) -> None:
        """Do nothing."""

    def part(self, start: int, stop: int) -> Self:
        """Return the array itself: it travels as its path or URL."""
        return self

    def with_blocks(self, blocks: Mapping[Any, Any]) -> Self:
        """Return the array itself: it has no blocks on a cluster."""
        return self


class BoxArrayMixin(RowArrayMixin):
    """Reads rows as boxes."""

    def read(self: BoxArray, start: int, stop: int) -> Array:
        """Return rows start to stop."""
        return self.region((slice(start, stop),))

    def bad_chunk(self: BoxArray, start: int, stop: int) -> str | None:
        """Return the first chunk among these rows that cannot be read, if there are chunks."""
        return self.bad_chunk_in((slice(start, stop),))

    def chunk_at(self: BoxArray, row: int, column: int = 0) -> str:
        """Return which chunk holds a value, for messages."""
        return self.chunk_of((row, column)[: len(self.shape)])

    def laid_out(self: BoxArray, grid: Grid) -> GridRows:
        """Return the rows in the order of a grid."""
        return GridRows(self, grid)


@dataclass(frozen=True)
class GridRows(RowArrayMixin):
    """The rows of an array whose leading axes are those of a grid, and whose last is features.

    Attributes
    ----------
    array : the array with all its axes
    grid : the axes that are flattened to rows
    """

    array: BoxArray
    grid: Grid

    @property
    def encoding(self) -> CFEncoding | None:  # type: ignore[override]
        """What the numbers of the array stand for."""
        return self.array.encoding

    @property
    def stored(self) -> tuple[Any, ...]:  # type: ignore[override]
        """Those of the array."""
        return self.array.stored

    @property
    def name(self) -> str:
        """Name of the array."""
        return self.array.name

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows first."""
        return (math.prod(self.grid.shape), *self.array.shape[len(self.grid.cuts) :])

    @property
    def dtype(self) -> np.dtype[Any]:
        """Dtype of the array."""
        return self.array.dtype

    @property
    def boundaries(self) -> tuple[int, ...]:
        """Row boundaries of the blocks."""
        return self.grid.boundaries

    @property
    def cuts(self) -> tuple[tuple[int, ...], ...]:
        """Row boundaries of the blocks: the only axis that is left."""
        return (self.boundaries,)

    @property
    def may_wait(self) -> bool:
        """Whether reading the array may wait for storage."""
        return self.array.may_wait

    @property
    def portable(self) -> bool:
        """Whether the array can travel."""
        return self.array.portable

    @property
    def identity(self) -> str:
        """Digest of the array and the grid."""
        return f"{self.array.identity} {self.grid.cuts}"

    def read(self, start: int, stop: int) -> Array:
        """Return rows start to stop, decoded box by box."""
        trailing, parts = self.shape[1:], []
        for where, first, last in self.grid.regions(start, stop):
            rows = self.array.region(where).reshape(-1, *trailing)
            parts.append(rows[max(start - first, 0) : min(stop, last) - first])
        return joined(parts)

    def bad_chunk(self, start: int, stop: int) -> str | None:
        """Return the first chunk of these rows that cannot be read, or None."""
        names = (self.array.bad_chunk_in(where) for where, _, _ in self.grid.regions(start, stop))
        return next(filter(None, names), None)

    def chunk_at(self, row: int, column: int = 0) -> str:
        """Return which chunk holds a value, for messages."""
        trailing = (column,) * (len(self.shape) - 1)
        return self.array.chunk_of((*self.grid.index(row), *trailing))

    def part(self, start: int, stop: int) -> Self:
        """Return the rows of the part of the array that has them."""
        boxes = [where[0] for where, _, _ in self.grid.regions(start, stop)]
        if not boxes:
            return self
        first, last = min(axis.start for axis in boxes), max(axis.stop for axis in boxes)
        part = self.array.part(first, last)
        return self if part is self.array else replace(self, array=part)

    def require_visible(self) -> None:
        """Raise an error unless this process can open the array."""
        self.array.require_visible()

    def laid_out(self, grid: Grid) -> RowArray:
        """Return the array itself: it has been laid out."""
        return self
