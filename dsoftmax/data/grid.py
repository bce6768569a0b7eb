"""Samples on a grid of more than one axis, such as the pixels of images, as rows.

The rows are ordered block by block, as the chunks of X lie, and within a block as NumPy's:
so any run of rows is a few whole blocks, and each chunk is decoded once, however the axes are
cut. y and the weights are read by the blocks of X.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from dsoftmax.errors import DataError
from dsoftmax.typing import Array, cached_property

Index = tuple[slice, ...]


@dataclass(frozen=True)
class Grid:
    """The axes of the samples, and where they are cut into blocks.

    Attributes
    ----------
    cuts : for each axis 0, ..., its length; a block lies between two of them
    """

    cuts: tuple[tuple[int, ...], ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Length of each axis."""
        return tuple(cut[-1] for cut in self.cuts)

    @property
    def sizes(self) -> tuple[tuple[int, ...], ...]:
        """Lengths of the blocks along each axis, as Dask's `chunks`."""
        return tuple(tuple(int(size) for size in np.diff(cut)) for cut in self.cuts)

    @property
    def boundaries(self) -> tuple[int, ...]:
        """Row boundaries of the blocks."""
        return tuple(self._edges.tolist())

    @cached_property
    def _edges(self) -> Array:
        rows = np.ones(1, np.int64)
        for cut in self.cuts:
            rows = np.multiply.outer(rows, np.diff(cut)).ravel()
        return np.concatenate([[0], np.cumsum(rows)])

    def __reduce__(self) -> tuple[type[Grid], tuple[Any, ...]]:
        return Grid, (self.cuts,)  # not the edges, of which there may be many

    def block(self, number: int) -> Index:
        """Return where a block lies."""
        counts = [len(cut) - 1 for cut in self.cuts]
        where = np.unravel_index(number, counts)
        return tuple(slice(cut[i], cut[i + 1]) for cut, i in zip(self.cuts, where, strict=True))

    def rows_of(self, block: tuple[int, ...]) -> tuple[int, int]:
        """Return the first row of the block at an index of blocks, and that after its last."""
        number = int(np.ravel_multi_index(block, [len(cut) - 1 for cut in self.cuts]))
        return int(self._edges[number]), int(self._edges[number + 1])

    def blocks(self, start: int, stop: int) -> Iterator[tuple[Index, int, int]]:
        """Yield the blocks that have rows from start to stop: where they lie, and their rows."""
        first, last = np.searchsorted(self._edges, [start + 1, stop])
        for number in range(int(first) - 1, int(last)):
            yield self.block(number), int(self._edges[number]), int(self._edges[number + 1])

    def regions(self, start: int, stop: int) -> Iterator[tuple[Index, int, int]]:
        """Yield boxes that hold the rows from start to stop, in order: as few as can be."""
        blocks = list(self.blocks(start, stop))
        if math.prod(len(cut) - 1 for cut in self.cuts[1:]) > 1:
            yield from blocks
        elif blocks:  # slabs along the first axis, of which neighbours are one box
            (first, *rest), last = blocks[0][0], blocks[-1][0][0]
            yield (slice(first.start, last.stop), *rest), blocks[0][1], blocks[-1][2]

    def flattened(self, values: Array) -> Array:
        """Return as rows the values of an array whose leading axes are the grid's."""
        trailing = values.shape[len(self.cuts) :]
        parts = [
            values[where].reshape(-1, *trailing)
            for where, _, _ in self.regions(0, math.prod(self.shape))
        ]
        return joined(parts)

    def index(self, row: int) -> tuple[int, ...]:
        """Return where on the grid a row is."""
        ((where, first, _),) = self.blocks(row, row + 1)
        return index_in(where, row - first)

    def place(self, row: int) -> str:
        """Return the index of a row as text, for messages."""
        return f"index {self.index(row)}"


def within(box: Index, other: Index) -> Index:
    """Return where the part of a box that is in another one lies, counted from the other's start.

    Examples
    --------
    >>> within((slice(2, 9),), (slice(5, 20),))
    (slice(0, 4, None),)
    """
    return tuple(
        slice(max(a.start, b.start) - b.start, min(a.stop, b.stop) - b.start)
        for a, b in zip(box, other, strict=True)
    )


def block_values(role: str, block: Any) -> Array:
    """Return a block as an array of NumPy, masked where it is."""
    if hasattr(block, "todense"):
        raise DataError(
            f"{role} is a Dask array whose metadata say numpy.ndarray, and it has blocks of the "
            f"type {type(block).__name__}; sparse data is not supported: make them dense first, "
            f"with {role}.map_blocks(lambda block: block.todense())"
        )
    return np.asanyarray(block) if np.ma.isMaskedArray(block) else np.asarray(block)


def joined(arrays: list[Array], axis: int = 0) -> Array:
    """Return arrays as one along an axis: a masked one if any of them is."""
    if len(arrays) == 1:
        return arrays[0]
    if any(isinstance(array, np.ma.MaskedArray) for array in arrays):
        return np.ma.concatenate(arrays, axis)  # type: ignore[no-untyped-call, no-any-return]
    return np.concatenate(arrays, axis)


def index_in(box: Index, row: int) -> tuple[int, ...]:
    """Return where on the grid a row of a box is."""
    within = np.unravel_index(row, [axis.stop - axis.start for axis in box])
    return tuple(axis.start + int(i) for axis, i in zip(box, within, strict=True))


def cuts_every(shape: tuple[int, ...], steps: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
    """Return the cuts of axes into blocks of equal lengths, of which the last may be shorter."""
    return tuple(
        (*range(0, length, step), length) for length, step in zip(shape, steps, strict=True)
    )


def slabs(shape: tuple[int, ...], itemsize: int, most_bytes: int) -> tuple[tuple[int, ...], ...]:
    """Return cuts along the first axis alone, into slabs of at most `most_bytes` if possible."""
    slab = max(1, math.prod(shape[1:]) * itemsize)
    lengths = (max(1, most_bytes // slab), *(max(1, length) for length in shape[1:]))
    return cuts_every(shape, lengths)
