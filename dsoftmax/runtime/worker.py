"""What runs on a worker: read, decode, reduce, and return sums.

A task opens nothing for long and keeps nothing that matters: the chunks it remembers for
the next mini-batch are a cache, and a worker that has lost them decodes them again.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple, TypeVar

import numpy as np
from threadpoolctl import threadpool_limits

from dsoftmax.errors import DataError
from dsoftmax.reduction import Array, Chunk, Reduction
from dsoftmax.runtime.cache import ByteCache
from dsoftmax.runtime.spans import Tree
from dsoftmax.sampling import Leaf, Piece, permutation
from dsoftmax.sources.base import Source

Result = TypeVar("Result")

_ORDER_BYTES = 1 << 26


@dataclass(frozen=True)
class Work:
    """What a task did.

    Attributes
    ----------
    rows, bytes : reduced, and decoded
    reads : spans decoded
    read_seconds, kernel_seconds : spent reading and decoding, and computing
    """

    rows: int = 0
    bytes: int = 0
    reads: int = 0
    read_seconds: float = 0.0
    kernel_seconds: float = 0.0

    def __add__(self, other: Work) -> Work:
        return Work(
            self.rows + other.rows,
            self.bytes + other.bytes,
            self.reads + other.reads,
            self.read_seconds + other.read_seconds,
            self.kernel_seconds + other.kernel_seconds,
        )


class Task(NamedTuple):
    """Consecutive leaves of a sum.

    Attributes
    ----------
    source : where the rows are
    targets_only : whether y and weights are enough
    leaves : the rows of each leaf
    first, n_leaves : index of the first leaf, and how many the whole sum has
    keep : (run, bytes): remember decoded spans under the run's name, within so many bytes
    """

    source: Source
    targets_only: bool
    leaves: tuple[Leaf, ...]
    first: int
    n_leaves: int
    keep: tuple[str, int] | None


Nodes = dict[tuple[int, int], Any]


def reduce_leaves(task: Task, reduction: Reduction[Any]) -> tuple[Nodes, Work]:
    """Return the finished nodes of the task's part of the tree, and the work done."""
    tree: Tree[Any] = Tree(task.n_leaves, reduction.combine)
    work = Work()
    for index, leaf in enumerate(task.leaves, start=task.first):
        sums = None
        for piece in leaf:
            part, done = _reduce_piece(task, reduction, piece)
            sums = part if sums is None else reduction.combine(sums, part)
            work += done
        tree.add(0, index, sums)
    return tree.nodes, work


def with_one_blas_thread(function: Callable[..., Result], *arguments: Any) -> Result:
    """Call a function in a process whose BLAS is first told to use one thread."""
    _limit_blas_for_good()
    return function(*arguments)


@cache
def _limit_blas_for_good() -> None:
    """Set BLAS to one thread, once a process: to change it inside tasks would be a race."""
    threadpool_limits(1)


def _reduce_piece(task: Task, reduction: Reduction[Any], piece: Piece) -> tuple[Any, Work]:
    started = time.perf_counter()
    chunk, read_bytes, reads = _load(task, piece)
    loaded = time.perf_counter()
    try:
        sums = reduction.chunk(chunk)
    except DataError as error:
        raise DataError(f"{task.source.X.name}: {error}") from None
    done = time.perf_counter()
    return sums, Work(len(chunk.X), read_bytes, reads, loaded - started, done - loaded)


def _load(task: Task, piece: Piece) -> tuple[Chunk, int, int]:
    """Return the rows of a piece, and how many bytes and spans were decoded for them."""
    if task.targets_only:
        y, weight = task.source.read_targets(piece.start, piece.stop)
        none = np.empty((piece.stop - piece.start, 0))
        return Chunk(none, y, weight, piece.start), 0, 0
    if task.keep is None:
        chunk, reads = task.source.read(piece.start, piece.stop), 1
    else:
        chunk, reads = _remembered(task, piece, *task.keep)
    decoded = reads * chunk.X.nbytes
    if piece.whole:
        return chunk, decoded, reads
    return chunk.take(_order(piece)[piece.low : piece.high]), decoded, reads


def _remembered(task: Task, piece: Piece, run: str, most: int) -> tuple[Chunk, int]:
    """Return the whole span of a piece, decoded now or kept since an earlier step."""
    chunk = _chunks.get((run, piece.start))
    if chunk is not None:
        return chunk, 0
    chunk = task.source.read(piece.start, piece.stop)
    if not task.source.X.in_memory:
        _chunks.put((run, piece.start), chunk, chunk.X.nbytes, most)
    return chunk, 1


def _order(piece: Piece) -> Array:
    """Return the shuffled order of a piece's span, which every step of the epoch asks for."""
    key = (piece.start, piece.stop, piece.shuffle)
    order = _orders.get(key)
    if order is None:
        order = permutation(piece)
        _orders.put(key, order, order.nbytes, _ORDER_BYTES)
    return order


_chunks: ByteCache[Chunk] = ByteCache()
_orders: ByteCache[Array] = ByteCache()


def forget() -> None:
    """Drop what this process remembers: a run that ends leaves no memory behind."""
    _chunks.clear()
    _orders.clear()
