"""Rows of a Dask array, computed by the task that reduces them.

A task carries the part of the array's graph that its rows need, and computes it in its own
thread, span by span: nothing runs ahead, spills, or waits for another task. Blocks that
a cluster holds (`client.persist`) are the exception: the task depends on them. X and y are
computed one after the other: what both are made of, a delayed loader say, runs for each.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import accumulate
from typing import Any, Self

import dask
import dask.array as da
import numpy as np
from dask.core import flatten, get_dependencies
from dask.highlevelgraph import HighLevelGraph
from dask.task_spec import DataNode, GraphNode, Task, TaskRef

from dsoftmax.data.cf_encoding import CFEncoding
from dsoftmax.data.dask_graph import (
    Graph,
    encoding_behind,
    holds_open_file,
    only_moves,
    optimised,
    zarr_behind,
)
from dsoftmax.data.grid import Grid, block_values, joined
from dsoftmax.data.label_arrays import from_objects
from dsoftmax.data.row_array import RowArray, RowArrayMixin
from dsoftmax.errors import DataError
from dsoftmax.typing import Array

_MOST_SHARED = 16  # tasks that all blocks may have in common


@dataclass(frozen=True, eq=False)
class DaskArray(RowArrayMixin):
    """A Dask array by its optimised graph, or the part of one that some rows need.

    It pickles as that graph: what a user's own functions and stores bring along, large
    arrays or credentials, is for the user to keep out of it.

    Attributes
    ----------
    name, shape, dtype : of the whole array
    boundaries : row boundaries of the blocks that it has
    keys : of the blocks of each row, one for each block of features
    graph : what computes them
    futures : blocks that a cluster holds, by key; they do not travel in the pickle
    collection : the array itself, in the process that made it
    encoding : what its numbers stand for, where it only reads a Zarr array that says so
    is_computed : whether more is done at each read than to fetch stored values
    portable : whether another process can compute it
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    boundaries: tuple[int, ...]
    keys: tuple[tuple[Any, ...], ...]
    graph: Graph = field(repr=False)  # it may hold stores with credentials
    futures: Mapping[Any, Any] = field(default_factory=dict, repr=False)
    collection: Any = field(default=None, repr=False)
    encoding: CFEncoding | None = None
    is_computed: bool = False
    portable: bool = True
    identity = ""
    may_be_masked = True

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"futures": {}, "collection": None}

    @property
    def cuts(self) -> tuple[tuple[int, ...], ...]:
        """Where the axes of the samples are cut into blocks, without those that are empty."""
        sizes = self.collection.chunks[: max(1, len(self.shape) - 1)]
        return tuple((0, *accumulate(size for size in axis if size)) for axis in sizes)

    def laid_out(self, grid: Grid) -> RowArray:
        """Return the rows in the order of a grid."""
        lazy = from_dask(self.name, _as_rows(self.collection, grid), decode=False)
        assert isinstance(lazy, DaskArray)
        return replace(
            lazy,
            collection=self.collection,
            encoding=self.encoding,
            is_computed=self.is_computed,
        )

    def read(self, start: int, stop: int) -> Array:
        """Return rows start to stop, computed here and now."""
        part = self.part(start, stop)
        computed = dask.get(part.graph, [list(keys) for keys in part.keys])
        blocks: list[Array] = [
            self._checked(blocks, high - low)
            for blocks, low, high in zip(
                computed, part.boundaries[:-1], part.boundaries[1:], strict=True
            )
        ]
        rows = joined(blocks)[start - part.boundaries[0] : stop - part.boundaries[0]]
        return from_objects(self.name, rows) if rows.dtype.kind == "O" else rows

    def part(self, start: int, stop: int) -> Self:
        """Return the blocks with these rows, and of the graph what they need."""
        first = bisect_right(self.boundaries, start) - 1
        last = max(first, bisect_left(self.boundaries, stop)) if start < stop else first
        keys = self.keys[first:last]
        graph, missing = _needed(self.graph, flatten([list(row) for row in keys]))
        futures = {key: self.futures[key] for key in missing if key in self.futures}
        return replace(
            self,
            boundaries=self.boundaries[first : last + 1],
            keys=keys,
            graph=graph,
            futures=futures,
            collection=None,
        )

    def with_blocks(self, blocks: Mapping[Any, Any]) -> Self:
        """Return the array with the values of its futures in its graph."""
        values = {key: DataNode(key, value) for key, value in blocks.items()}
        return replace(self, graph={**self.graph, **values})

    def _checked(self, blocks: list[Any], n_rows: int) -> Array:
        """Return the blocks of a row as one, if they are what the array's metadata say."""
        row = joined([block_values(self.name, block) for block in blocks], axis=1)
        expected = (n_rows, *self.shape[1:])
        if row.shape != expected:
            raise DataError(
                f"{self.name} has a block of shape {row.shape} where its chunks say {expected}; "
                f"call {self.name}.compute_chunk_sizes() first"
            )
        if self.dtype.kind not in "biuf":
            return row
        if not np.can_cast(row.dtype, self.dtype):
            raise DataError(
                f"{self.name} has a block of dtype {row.dtype} where its metadata say "
                f"{self.dtype}; call {self.name}.astype first"
            )
        return row.astype(self.dtype, copy=False)


def from_dask(role: str, values: Any, *, decode: bool = True) -> RowArray:
    """Return the source array of a Dask array, or of the Zarr array that it only reads.

    Raises
    ------
    DataError
        If it is another collection, has unknown chunk sizes, blocks that are not of NumPy, or
        blocks that all depend on the same tasks.
    """
    array = require_array(role, values)
    if math.isnan(sum(array.shape)):
        raise DataError(
            f"{role} is a Dask array with chunks of unknown size, of shape {array.shape}; call "
            f"{role}.compute_chunk_sizes() first"
        )
    if type(array._meta) not in (np.ndarray, np.ma.MaskedArray):
        raise DataError(
            f"{role} is a Dask array of {type(array._meta).__name__} blocks; expected "
            "numpy.ndarray: convert them first, with map_blocks"
        )
    source = zarr_behind(array, decode=decode)
    if source is not None:
        return source
    lazy = _lazy(role, array)
    _require_independent(lazy)
    return replace(lazy, encoding=encoding_behind(role, array, stacklevel=5)) if decode else lazy


def require_array(role: str, values: Any) -> Any:
    """Return a Dask array as it is; refuse Dask's other collections, and say what to call."""
    if isinstance(values, da.Array):
        return values
    remedy = "dask.array.from_delayed makes one"
    if hasattr(type(values), "to_dask_array"):  # a Delayed has any attribute
        remedy = f"call {role}.to_dask_array(lengths=True)"
    raise DataError(f"{role} is a Dask {type(values).__name__}; expected a Dask array: {remedy}")


def _lazy(role: str, array: Any) -> DaskArray:
    sizes = array.chunks[0] if array.ndim else ()
    rows = zip(sizes, array.__dask_keys__(), strict=False)
    keys = tuple(tuple(flatten([row])) for size, row in rows if size)
    graph = optimised(array)
    _, missing = _needed(graph, flatten([list(row) for row in keys]))
    return DaskArray(
        role,
        array.shape,
        array.dtype,
        (0, *accumulate(size for size in sizes if size)),
        keys,
        graph,
        _held(role, array, missing),
        array,
        is_computed=not (missing or only_moves(array)),
        portable=not holds_open_file(graph),
    )


def _held(role: str, array: Any, keys: set[Any]) -> dict[Any, Any]:
    """Return the futures that stand in an array's graph for these keys."""
    if not keys:
        return {}
    nodes = dict(array.__dask_graph__())
    futures = {key: nodes[key] for key in keys if hasattr(nodes.get(key), "client")}
    if len(futures) < len(keys):
        raise DataError(
            f"{role} is a Dask array with futures inside of its tasks; call {role}.persist() "
            "first, so that they are its blocks"
        )
    return futures


def _needed(graph: Graph, keys: Any) -> tuple[dict[Any, Any], set[Any]]:
    """Return the part of a graph that some keys depend on, and the keys that it lacks."""
    needed: dict[Any, Any] = {}
    missing = set()
    waiting = list(keys)
    while waiting:
        key = waiting.pop()
        if key in needed:
            continue
        if key not in graph:
            missing.add(key)
            continue
        needed[key] = node = graph[key]
        older = not isinstance(node, GraphNode)  # a tuple or plain data, which Dask still takes
        waiting.extend(get_dependencies(graph, key) if older else node.dependencies)
    return needed, missing


def _require_independent(array: DaskArray) -> None:
    """Refuse a graph whose blocks all share tasks, such as a mean: each span would rerun them."""
    if len(array.keys) < 2:
        return
    start, stop = array.boundaries[0], array.boundaries[-1]
    first, last = array.part(start, start + 1).graph, array.part(stop - 1, stop).graph
    shared = [key for key in first.keys() & last.keys() if isinstance(first[key], Task)]
    if len(shared) > _MOST_SHARED:
        raise DataError(
            f"all blocks of {array.name} depend on the same {len(shared)} Dask tasks (averages "
            "over all rows, a shuffle), which would run again for every block: compute what they "
            "have in common first (mean, scale = dask.compute(mean, scale)), or store "
            f"{array.name} with to_zarr and pass its path"
        )


def _as_rows(array: Any, grid: Grid) -> Any:
    """Return an array that has the axes of a grid with its rows in place of them."""
    axes, trailing = len(grid.cuts), array.shape[len(grid.cuts) :]
    array = array.rechunk((*grid.sizes, *trailing))
    name, last = f"rows-{array.name}", (0,) * len(trailing)
    graph = {}
    for number, where in enumerate(np.ndindex(*array.numblocks[:axes])):
        key, block = (name, number, *last), TaskRef((array.name, *where, *last))
        shape = tuple(axis.stop - axis.start for axis in grid.block(number))
        graph[key] = Task(key, _block_rows, block, (*shape, *trailing), axes)
    rows = tuple(int(size) for size in np.diff(grid.boundaries))
    chunks = (rows, *((length,) for length in trailing))
    layers = HighLevelGraph.from_collections(name, graph, dependencies=[array])
    return da.Array(layers, name, chunks, array.dtype, np.empty((0,) * len(chunks), array.dtype))


def _block_rows(block: Any, shape: tuple[int, ...], axes: int) -> Array:
    """Return a block as rows, if it is what the array's metadata say."""
    values = block_values("an array of samples on a grid", block)
    if values.shape != shape:
        raise DataError(
            f"a block has the shape {values.shape} where the chunks of its array say {shape}; "
            "call compute_chunk_sizes() on it first"
        )
    return values.reshape(-1, *shape[axes:])
