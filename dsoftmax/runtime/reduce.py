"""`reduce`: the one way in which rows become sums."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from dsoftmax.reduction import Reduction
from dsoftmax.runtime.executors import Executor
from dsoftmax.runtime.spans import Tree, task_level
from dsoftmax.runtime.worker import Keep, Task, Work, reduce_leaves
from dsoftmax.sampling import Leaf, whole_span
from dsoftmax.sources.base import Source

Sums = TypeVar("Sums")


@dataclass(frozen=True)
class Spent:
    """What a reduction cost.

    Attributes
    ----------
    work : rows, bytes and seconds of the workers, added up
    seconds : from start to end
    waiting_seconds : slot-seconds in which nothing was read or computed
    """

    work: Work
    seconds: float
    waiting_seconds: float

    def __add__(self, other: Spent) -> Spent:
        return Spent(
            self.work + other.work,
            self.seconds + other.seconds,
            self.waiting_seconds + other.waiting_seconds,
        )


NOTHING = Spent(Work(), 0.0, 0.0)


def reduce(
    executor: Executor,
    source: Source,
    reduction: Reduction[Sums],
    leaves: Sequence[Leaf],
    *,
    targets_only: bool = False,
    keep: str | None = None,
    release: bool = True,
    on_work: Callable[[Work], None] | None = None,
) -> tuple[Sums, Spent]:
    """Return the sum of a reduction over leaves, added up in the fixed tree.

    Parameters
    ----------
    executor : Executor
        Where the tasks run; it has no influence on the bits of the result.
    source : Source
    reduction : Reduction
    leaves : sequence of Leaf
        The rows of each leaf; leaves without rows have no part in the tree.
    targets_only : bool
        Read y and weights only.
    keep : str, optional
        Name under which workers remember decoded spans; tasks then go to the same workers.
    release : bool
        Whether these rows are not asked for again before their spans are decoded anew.
    on_work : callable, optional
        Called with the work of each task as it ends.

    Raises
    ------
    DataError, ChunkError
        What a task raised; the others are cancelled.
    """
    started = time.perf_counter()
    if keep is None:
        executor.refresh()
    leaves = [leaf for leaf in leaves if leaf]
    tree = Tree(len(leaves), reduction.combine)
    total = Work()
    held = None if keep is None else Keep(keep, executor.cache_bytes, release)
    tasks = _tasks(executor, source, leaves, targets_only, held)
    calls = [(task, reduction) for task in tasks]
    pinned = keep is not None and not source.X.futures  # those tasks go where their blocks are
    results = executor.run(
        reduction.name, reduce_leaves, calls, pinned=pinned, few=bool(source.futures)
    )
    for nodes, work in results:
        for (level, index), sums in nodes.items():
            tree.add(level, index, sums)
        total += work
        if on_work is not None:
            on_work(work)
    seconds = time.perf_counter() - started
    busy = total.read_seconds + total.kernel_seconds
    waiting = max(0.0, seconds * min(executor.slots, len(tasks)) - busy)
    return tree.total, Spent(total, seconds, waiting)


def full_pass(spans: Sequence[tuple[int, int]]) -> list[Leaf]:
    """Return the leaves of a pass over all rows."""
    return [whole_span(span) for span in spans]


def _tasks(
    executor: Executor, source: Source, leaves: list[Leaf], targets_only: bool, keep: Keep | None
) -> list[Task]:
    rows = max(sum(piece.rows for piece in leaf) for leaf in leaves)
    if source.X.futures:
        length = 1  # a task of several spans would bring blocks together from several workers
    elif keep is None:
        length = 1 << task_level(len(leaves), rows * source.row_bytes, executor.slots)
    else:
        # Not a power of two: such a task returns several nodes, which costs no bits.
        length = -(-len(leaves) // executor.slots)
    tasks = []
    for first, own in _runs(leaves, length):
        parts = _parts(source, own, targets_only)
        blocks = {key: future for part in parts.values() for key, future in part.futures.items()}
        tasks.append(Task(parts, blocks, targets_only, tuple(own), first, len(leaves), keep))
    return tasks


def _runs(leaves: list[Leaf], length: int) -> Iterator[tuple[int, list[Leaf]]]:
    for first in range(0, len(leaves), length):
        yield first, leaves[first : first + length]


def _parts(source: Source, leaves: list[Leaf], targets_only: bool) -> dict[int, Source]:
    spans = {(piece.start, piece.stop) for leaf in leaves for piece in leaf}
    return {
        start: source.part(start, stop, targets_only=targets_only) for start, stop in sorted(spans)
    }
