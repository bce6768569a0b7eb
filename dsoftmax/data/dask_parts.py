"""The parts of a source that the blocks of a lazy Dask array need."""

from __future__ import annotations

from dask.layers import ArrayBlockwiseDep

from dsoftmax.data.grid import Grid
from dsoftmax.data.source import Source


class SourceParts(ArrayBlockwiseDep):  # type: ignore[misc]
    """For each block of the samples: a source for its rows, the rows, and the shape of the block.

    Dask asks for a part when it makes the task that takes it, so a task does not carry what only
    others need, such as the numbers of all absent chunks.
    """

    def __init__(self, source: Source) -> None:
        self._source, self._grid = source, source.grid or Grid((source.chunks,))
        super().__init__(self._grid.sizes)

    def __getitem__(self, idx: tuple[int, ...]) -> tuple[Source, tuple[int, int], tuple[int, ...]]:
        """Return the part of the block at an index."""
        start, stop = self._grid.rows_of(idx)
        shape = tuple(sizes[i] for sizes, i in zip(self.chunks, idx, strict=True))
        return self._source.part(start, stop), (start, stop), shape
