"""What runs on a worker: a task loads rows, reduces them, and returns sums.

A task holds nothing that matters: the spans that a worker caches can be decoded again, so that a
task may run on any worker, and again after its worker has died.

Reading ahead pays where reads wait for their storage: then a thread fetches and decodes the next
span while this one is reduced. Where they do not wait, both would compete for the same core, and
the task reads when it needs to. The reads before tell which it is.
"""

from __future__ import annotations

import concurrent.futures
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple, TypeVar

from dsoftmax.data.batches import Leaf, RowSlice, permutation
from dsoftmax.data.retry import BadChunk, retries_here
from dsoftmax.data.source import Source
from dsoftmax.data.zarr_array import forget_chunks
from dsoftmax.errors import ChunkError, DataError, MemoryBoundError
from dsoftmax.events import TimeSplit
from dsoftmax.objective.reduction import Reduction
from dsoftmax.runtime.cost import Cost, TaskResult
from dsoftmax.runtime.environment import (
    numerics,
    return_memory,
    use_one_blas_thread,
    worker_name,
)
from dsoftmax.runtime.span_cache import CachePolicy, Key, LoadedSpan, SpanCache
from dsoftmax.runtime.spans import Tree
from dsoftmax.runtime.task_errors import portably
from dsoftmax.storage.urls import error_text
from dsoftmax.storage.zarr_timing import decoded_here, decoding

Result = TypeVar("Result")

_WAITS_ENOUGH = 0.2  # fraction of the time in which storage is waited for, from which to read ahead
_NEWEST = 0.2  # weight of the last read in that fraction


class Task(NamedTuple):
    """Consecutive leaves of a sum.

    Attributes
    ----------
    parts : where the rows of each span are, by the first row of the span
    blocks : Dask blocks among them, by key: futures until the task runs, then their values
    targets_only : whether y and weights are enough
    leaves : the rows of each leaf
    first, n_leaves : index of the first leaf, and how many the whole sum has
    cache_policy : how to cache decoded spans for the next task, or None
    read_ahead : what the next task of these rows will read besides
    """

    parts: dict[int, Source]
    blocks: dict[Any, Any]
    targets_only: bool
    leaves: tuple[Leaf, ...]
    first: int
    n_leaves: int
    cache_policy: CachePolicy | None
    read_ahead: tuple[RowSlice, ...] = ()

    @property
    def row_slices(self) -> Sequence[RowSlice]:
        """What it reads, in order."""
        return [row_slice for leaf in self.leaves for row_slice in leaf]


def run_task(function: Callable[..., Result], *arguments: Any) -> Result:
    """Call the function of a task, in a process that is a worker, which logs its error."""
    use_one_blas_thread()
    try:
        return portably(function, *arguments)
    finally:
        return_memory(_drop_caches)


def _drop_caches() -> None:
    spans.forget("")
    forget_chunks()


def reduce_leaves(task: Task, reduction: Reduction[Any]) -> TaskResult:
    """Return the sums of the task's part of the tree."""
    tree: Tree[Any] = Tree(task.n_leaves, reduction.combine)
    total_cost = Cost()
    bad_chunks: list[BadChunk] = []
    with Loader(task) as loader:
        for index, leaf in enumerate(task.leaves, start=task.first):
            try:
                sums, cost = _reduce_leaf(task, loader, reduction, leaf)
            except ChunkError:
                unreadable = _bad_chunks(task, leaf)
                bad_chunks += unreadable
                if unreadable:
                    continue
                if all(part.max_bad_chunks == 0 for part in task.parts.values()):
                    raise
                # Each chunk can be read now: what was wrong has passed.
                sums, cost = _reduce_leaf(task, loader, reduction, leaf)
            tree.add(0, index, sums)
            total_cost += cost
    _begin_to_read_ahead(task)
    # A task tells how it rounds, since the workers of a cluster may come and go.
    return TaskResult(tree.nodes, total_cost, tuple(bad_chunks), {worker_name(): numerics()})


def merged(
    task_results: Sequence[TaskResult], combine: Callable[[Any, Any], Any], n_leaves: int
) -> TaskResult:
    """Return the results of several tasks as if they had been one, added up in the fixed tree."""
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
    sums, cost = _reduce_slice(task, loader, reduction, leaf[0])
    for row_slice in leaf[1:]:
        more_sums, more_cost = _reduce_slice(task, loader, reduction, row_slice)
        sums, cost = reduction.combine(sums, more_sums), cost + more_cost
    return sums, cost


def _reduce_slice(
    task: Task, loader: Loader, reduction: Reduction[Any], row_slice: RowSlice
) -> tuple[Any, Cost]:
    try:
        return _reduced(task, loader, reduction, row_slice)
    except MemoryError as error:
        raise MemoryBoundError(
            f"rows {row_slice.start} to {row_slice.stop - 1} of "
            f"{task.parts[row_slice.start].X.name} need more memory than there is "
            f"({error_text(error)}): give the workers more, or store smaller chunks"
        ) from error


def _reduced(
    task: Task, loader: Loader, reduction: Reduction[Any], row_slice: RowSlice
) -> tuple[Any, Cost]:
    loaded = loader.load(row_slice)
    started = time.perf_counter()
    try:
        sums = reduction.chunk(loaded.chunk)
    except DataError as error:
        raise _with_array_name(error, task.parts[row_slice.start]) from None
    kernel = time.perf_counter() - started
    _storage.learn(loaded, kernel)
    time_split = replace(loaded.cost.time, kernel=kernel)
    return sums, replace(loaded.cost, rows=len(loaded.chunk.X), time=time_split)


def _with_array_name(error: DataError, source: Source) -> DataError:
    """Return an error of a reduction, which knows X and y only, with the name of the array."""
    role, _, rest = str(error).partition(" ")
    array = {"X": source.X, "y": source.y}.get(role)
    return DataError(f"{role if array is None else array.name} {rest}")


def _bad_chunks(task: Task, leaf: Leaf) -> list[BadChunk]:
    """Return the chunks of a leaf that cannot be read, if the source may leave some out."""
    bad_chunks = []
    for row_slice in leaf:
        # Folds are known of whole spans only, and do not matter here.
        source = replace(task.parts[row_slice.start].with_blocks(task.blocks), folds=None)
        if source.max_bad_chunks == 0:
            return []
        inner = (row for row in source.chunks if row_slice.start < row < row_slice.stop)
        for start, stop in pairwise((row_slice.start, *inner, row_slice.stop)):
            try:
                source.read_targets(start, stop) if task.targets_only else source.read(start, stop)
            except ChunkError as error:
                bad_chunks.append(BadChunk(start, stop, str(error)))
    return bad_chunks


class Loader:
    """Loads the row slices of a task, one after the other.

    As a context, it drops at its end what it has begun to read, and what is not to be cached.
    """

    def __init__(self, task: Task) -> None:
        self._task = task
        self._next = dict(pairwise(task.row_slices))
        self._ahead: dict[RowSlice, concurrent.futures.Future[LoadedSpan]] = {}
        self._pool: concurrent.futures.ThreadPoolExecutor | None = None
        self._has_read = False

    def __enter__(self) -> Loader:
        return self

    def __exit__(self, *error: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
        policy = self._task.cache_policy
        in_order = policy is None or policy.cyclic or policy.max_bytes == 0
        if self._has_read and in_order:  # mini-batches come back to other chunks of labels
            forget_chunks(but_newest=True)

    def load(self, row_slice: RowSlice) -> LoadedSpan:
        """Return the rows of a slice, and begin to read the next one if that pays."""
        ahead, started = self._ahead.pop(row_slice, None), time.perf_counter()
        loaded = _load(self._task, row_slice) if ahead is None else ahead.result()
        if ahead is not None:
            loaded = loaded.waited_for(time.perf_counter() - started)
        self._has_read |= self._task.targets_only or loaded.cost.reads > 0
        following = self._next.get(row_slice)
        if following is not None and self._pays(following):
            self._pool = self._pool or concurrent.futures.ThreadPoolExecutor(1, "dsoftmax-ahead")
            self._ahead[following] = self._pool.submit(_load, self._task, following)
        return loaded

    def _pays(self, row_slice: RowSlice) -> bool:
        task, policy = self._task, self._task.cache_policy
        if task.targets_only or _storage.wait_fraction <= _WAITS_ENOUGH:
            return False
        cached = policy is not None and _key(row_slice, policy) in spans
        return task.parts[row_slice.start].X.may_wait and not cached


class _Storage:
    """Learns in which fraction of their time the tasks of this process would wait for storage."""

    wait_fraction = 0.0

    def learn(self, loaded: LoadedSpan, kernel_seconds: float) -> None:
        seconds = loaded.fetch_seconds + loaded.cost.time.decode + kernel_seconds
        if loaded.cost.reads and seconds > 0:
            newest = loaded.fetch_seconds / seconds
            self.wait_fraction += _NEWEST * (newest - self.wait_fraction)


_storage = _Storage()
spans = SpanCache()


def _load(task: Task, row_slice: RowSlice) -> LoadedSpan:
    """Return the rows of a slice, from the cache or from storage."""
    policy = task.cache_policy
    if policy is None or task.targets_only:
        span = _read(task, row_slice)
    else:
        key = _key(row_slice, policy)
        span = spans.get(key, policy, partial(_read, task, row_slice))
        is_last_use = policy.drop_after_use and row_slice.high == row_slice.stop - row_slice.start
        # Were the span of a mini-batch left to age after its last use, the next spans of all lanes
        # would evict one another.
        if is_last_use and not policy.cyclic:
            spans.drop(key)
    return span._replace(chunk=span.chunk.rows(row_slice.low, row_slice.high))


def _key(row_slice: RowSlice, policy: CachePolicy) -> Key:
    return policy.name, row_slice.start, row_slice.stop, row_slice.shuffle


def _read(task: Task, row_slice: RowSlice) -> LoadedSpan:
    """Return the whole span of a slice, read, decoded and shuffled now."""
    started, decoded, retries = time.perf_counter(), decoded_here(), retries_here()
    source = task.parts[row_slice.start].with_blocks(task.blocks)
    if task.targets_only:
        span, cost = source.read_targets(row_slice.start, row_slice.stop), Cost()
    else:
        span = source.read(row_slice.start, row_slice.stop)
        if row_slice.shuffle is not None:
            with decoding():
                span = span.take(permutation(row_slice))
        cost = Cost(bytes=span.X.nbytes, reads=1)
    decode = decoded_here() - decoded
    read = time.perf_counter() - started - decode
    cost = replace(cost, retries=retries_here() - retries, time=TimeSplit(read, decode))
    return LoadedSpan(span, cost, read)


def _begin_to_read_ahead(task: Task) -> None:
    """Have a thread read what the next task of these rows needs, while this process is idle."""
    policy = task.cache_policy
    if policy is None:
        return
    for row_slice in task.read_ahead:
        size = (row_slice.stop - row_slice.start) * task.parts[row_slice.start].row_bytes
        read = partial(_read, task, row_slice)
        spans.begin_to_read(_key(row_slice, policy), policy, size, read)


def forget(run_key: str) -> None:
    """Drop what this process has cached for a run: its end leaves no memory behind."""
    spans.forget(run_key)
    forget_chunks()
