"""Rows of a task, decoded: remembered, or read, or read ahead while others are reduced.

To read ahead pays where reads wait for their storage: then the next span is fetched and
decoded by a thread while this one is reduced. Where they do not, both would fight for the same
core, and the task reads when it needs to. Which it is, is learned from the reads before.
"""

from __future__ import annotations

import concurrent.futures
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

from dsoftmax.data.batches import Leaf, RowSlice, permutation
from dsoftmax.data.retry import retries_here
from dsoftmax.data.source import Source
from dsoftmax.data.zarr_array import forget_chunks
from dsoftmax.events import TimeSplit
from dsoftmax.objective.reduction import Chunk
from dsoftmax.runtime.cost import Cost
from dsoftmax.runtime.span_cache import CachePolicy, Key, LoadedSpan, SpanCache
from dsoftmax.storage.zarr_timing import decoded_here, decoding

_WORTH_IT = 0.2  # share of the time in which storage is waited for, from which to read ahead
_NEWEST = 0.2  # weight of the last read in that share


class Task(NamedTuple):
    """Consecutive leaves of a sum.

    Attributes
    ----------
    parts : where the rows of each span are, by the first row of the span
    blocks : Dask blocks among them, by key: futures until the task runs, then their values
    targets_only : whether y and weights are enough
    leaves : the rows of each leaf
    first, n_leaves : index of the first leaf, and how many the whole sum has
    keep : whether to remember decoded spans for the next task, or None
    ahead : what the next task of these rows will need besides
    """

    parts: dict[int, Source]
    blocks: dict[Any, Any]
    targets_only: bool
    leaves: tuple[Leaf, ...]
    first: int
    n_leaves: int
    keep: CachePolicy | None
    ahead: tuple[RowSlice, ...] = ()

    @property
    def rows(self) -> int:
        """How many rows it has."""
        return sum(row_slice.rows for leaf in self.leaves for row_slice in leaf)

    @property
    def row_slices(self) -> Sequence[RowSlice]:
        """What it reads, in order."""
        return [row_slice for leaf in self.leaves for row_slice in leaf]


class Loader:
    """Loads the pieces of a task, one after the other.

    As a context, it lets go of what it has begun to read, and of what is not to be remembered.
    """

    def __init__(self, task: Task) -> None:
        self._task = task
        self._next = dict(pairwise(task.row_slices))
        self._ahead: dict[RowSlice, concurrent.futures.Future[LoadedSpan]] = {}
        self._pool: concurrent.futures.ThreadPoolExecutor | None = None

    def __enter__(self) -> Loader:
        return self

    def __exit__(self, *error: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
        keep = self._task.keep
        if keep is None or keep.cyclic or keep.most == 0:
            forget_chunks(but_newest=True)  # mini-batches come back to others

    def load(self, row_slice: RowSlice) -> LoadedSpan:
        """Return the rows of a piece, and begin to read the next one if that pays."""
        ahead, started = self._ahead.pop(row_slice, None), time.perf_counter()
        loaded = _load(self._task, row_slice) if ahead is None else ahead.result()
        if ahead is not None:
            loaded = loaded.waited_for(time.perf_counter() - started)
        following = self._next.get(row_slice)
        if following is not None and self._pays(following):
            self._pool = self._pool or concurrent.futures.ThreadPoolExecutor(1, "dsoftmax-ahead")
            self._ahead[following] = self._pool.submit(_load, self._task, following)
        return loaded

    def _pays(self, row_slice: RowSlice) -> bool:
        task = self._task
        if task.targets_only or _storage.share <= _WORTH_IT:
            return False
        held = task.keep is not None and _key(row_slice, task.keep) in spans
        return task.parts[row_slice.start].X.may_wait and not held


class _Storage:
    """How much of their time the tasks of this process would wait for storage."""

    share = 0.0

    def note(self, loaded: LoadedSpan, kernel_seconds: float) -> None:
        own = loaded.fetch_seconds + loaded.cost.time.decode + kernel_seconds
        if loaded.cost.reads and own > 0:
            self.share += _NEWEST * (loaded.fetch_seconds / own - self.share)


_storage = _Storage()


def note(loaded: LoadedSpan, kernel_seconds: float) -> None:
    """Take note of how long rows took to load and to reduce: it tells whether to read ahead."""
    _storage.note(loaded, kernel_seconds)


def _load(task: Task, row_slice: RowSlice) -> LoadedSpan:
    """Return the rows of a piece."""
    keep = task.keep
    if keep is None or task.targets_only:
        span = _read(task, row_slice)
    else:
        span = spans.get(_key(row_slice, keep), keep, lambda: _read(task, row_slice))
        # Were the span of a mini-batch left to age when its last row is used, the next spans of
        # all lanes would push out one another.
        if (
            not keep.cyclic
            and keep.drop_after_use
            and row_slice.high == row_slice.stop - row_slice.start
        ):
            spans.drop(_key(row_slice, keep))
    return span._replace(chunk=span.chunk.rows(row_slice.low, row_slice.high))


def _key(row_slice: RowSlice, keep: CachePolicy) -> Key:
    return keep.run, row_slice.start, row_slice.stop, row_slice.shuffle


def _read(task: Task, row_slice: RowSlice) -> LoadedSpan:
    """Return the span of a piece, read, decoded and shuffled now."""
    started, decoded, retries = time.perf_counter(), decoded_here(), retries_here()
    source = task.parts[row_slice.start].with_blocks(task.blocks)
    if task.targets_only:
        span, cost = source.read_targets(row_slice.start, row_slice.stop), Cost()
    else:
        span = _read_shuffled(source, row_slice)
        cost = Cost(bytes=span.X.nbytes, reads=1)
    decode = decoded_here() - decoded
    read = time.perf_counter() - started - decode
    cost = replace(cost, retries=retries_here() - retries, time=TimeSplit(read, decode))
    return LoadedSpan(span, cost, read)


def _read_shuffled(source: Source, row_slice: RowSlice) -> Chunk:
    span = source.read(row_slice.start, row_slice.stop)
    if row_slice.shuffle is None:
        return span
    with decoding():
        return span.take(permutation(row_slice))


def read_ahead(task: Task) -> None:
    """Begin to read what the next task of these rows will need, while this process is idle."""
    if task.keep is None:
        return
    for row_slice in task.ahead:
        size = (row_slice.stop - row_slice.start) * task.parts[row_slice.start].row_bytes
        spans.begin(_key(row_slice, task.keep), task.keep, size, partial(_read, task, row_slice))


spans = SpanCache()


def forget(run: str) -> None:
    """Drop what this process remembers of a run: its end leaves no memory behind."""
    spans.forget(run)
    forget_chunks()
