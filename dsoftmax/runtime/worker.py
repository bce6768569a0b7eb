"""What runs on a worker: read, decode, reduce, and return sums.

A task opens nothing for long and keeps nothing that matters: the chunks it remembers for
the next mini-batch are a cache, and a worker that has lost them decodes them again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any, TypeVar

from dsoftmax.data.batches import Leaf, RowSlice
from dsoftmax.data.retry import BadChunk
from dsoftmax.data.source import Source
from dsoftmax.errors import ChunkError, DataError
from dsoftmax.events import TimeSplit
from dsoftmax.objective.reduction import Chunk, Reduction
from dsoftmax.runtime import environment
from dsoftmax.runtime.cost import Cost, TaskResult
from dsoftmax.runtime.environment import numerics, worker_name
from dsoftmax.runtime.loader import Loader, Task, note, read_ahead
from dsoftmax.runtime.spans import Tree

Result = TypeVar("Result")


def reduce_leaves(task: Task, reduction: Reduction[Any]) -> TaskResult:
    """Return the sums of the task's part of the tree."""
    tree: Tree[Any] = Tree(task.n_leaves, reduction.combine)
    cost = Cost()
    bad_chunks: list[BadChunk] = []
    with Loader(task) as loader:
        for index, leaf in enumerate(task.leaves, start=task.first):
            try:
                sums, done = _reduce_leaf(task, loader, reduction, leaf)
            except ChunkError:
                found = _faults(task, leaf)
                bad_chunks += found
                if found:
                    continue
                if all(part.max_bad_chunks == 0 for part in task.parts.values()):
                    raise
                # What was wrong with it has passed.
                sums, done = _reduce_leaf(task, loader, reduction, leaf)
            tree.add(0, index, sums)
            cost += done
    read_ahead(task)
    return TaskResult(tree.nodes, cost, tuple(bad_chunks), {worker_name(): numerics()})


def merged(
    task_results: Sequence[TaskResult], combine: Callable[[Any, Any], Any], n_leaves: int
) -> TaskResult:
    """Return what several tasks have found as if they had been one, added up in the fixed tree."""
    tree: Tree[Any] = Tree(n_leaves, combine)
    for task_result in task_results:
        for (level, index), sums in task_result.nodes.items():
            tree.add(level, index, sums)
    return TaskResult(
        tree.nodes,
        sum((task_result.cost for task_result in task_results), Cost()),
        tuple(bad_chunk for task_result in task_results for bad_chunk in task_result.bad_chunks),
        {who: kind for task_result in task_results for who, kind in task_result.numerics.items()},
    )


def _reduce_leaf(
    task: Task, loader: Loader, reduction: Reduction[Any], leaf: Leaf
) -> tuple[Any, Cost]:
    sums, cost = None, Cost()
    for row_slice in leaf:
        part, done = _reduce_piece(task, loader, reduction, row_slice)
        sums = part if sums is None else reduction.combine(sums, part)
        cost += done
    return sums, cost


def _faults(task: Task, leaf: Leaf) -> list[BadChunk]:
    """Return the chunks of a leaf that cannot be read, if it is allowed to leave some out."""
    found = []
    for row_slice in leaf:
        # Which rows are in which fold is known of whole spans only, and does not matter here.
        source = replace(task.parts[row_slice.start].with_blocks(task.blocks), folds=None)
        if source.max_bad_chunks == 0:
            return []
        inner = (row for row in source.chunks if row_slice.start < row < row_slice.stop)
        for start, stop in pairwise((row_slice.start, *inner, row_slice.stop)):
            try:
                source.read_targets(start, stop) if task.targets_only else source.read(start, stop)
            except ChunkError as error:
                found.append(BadChunk(start, stop, str(error)))
    return found


def with_one_blas_thread(function: Callable[..., Result], *arguments: Any) -> Result:
    """Call a function in a process that is a worker."""
    environment.keep()
    return function(*arguments)


def _reduce_piece(
    task: Task, loader: Loader, reduction: Reduction[Any], row_slice: RowSlice
) -> tuple[Any, Cost]:
    loaded = loader.load(row_slice)
    started = time.perf_counter()
    sums = _named(task.parts[row_slice.start], reduction.chunk, loaded.chunk)
    kernel = time.perf_counter() - started
    note(loaded, kernel)
    rows = Cost(rows=len(loaded.chunk.X), time=TimeSplit(kernel=kernel))
    return sums, loaded.cost + rows


def _named(source: Source, function: Callable[[Chunk], Result], chunk: Chunk) -> Result:
    """Call a function, and have its error call X and y by their names."""
    try:
        return function(chunk)
    except DataError as error:
        role, _, rest = str(error).partition(" ")
        array = {"X": source.X, "y": source.y}.get(role)
        raise DataError(f"{role if array is None else array.name} {rest}") from None
