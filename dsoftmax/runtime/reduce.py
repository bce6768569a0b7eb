"""`reduce`: the one way in which rows become sums."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, TypeVar

from dsoftmax.data.batches import Leaf, whole_span
from dsoftmax.data.retry import BadChunk
from dsoftmax.data.source import Source
from dsoftmax.errors import ChunkError, MemoryBoundError
from dsoftmax.events import TimeSplit
from dsoftmax.objective.reduction import Reduction
from dsoftmax.runtime.base import Affinity, Executor, TaskKilledError
from dsoftmax.runtime.cost import Cost, PartialSum, TaskResult
from dsoftmax.runtime.loader import Task
from dsoftmax.runtime.span_cache import CachePolicy
from dsoftmax.runtime.spans import Span, Tree, around, cut_groups, cut_tasks
from dsoftmax.runtime.transfer import MergePlan
from dsoftmax.runtime.worker import merged, reduce_leaves

Sums = TypeVar("Sums")
FAN_IN = 8  # large sums of so many tasks become one, on clusters of at least as many slots


class UnreadableError(ChunkError):
    """Some chunks cannot be read, in a source that allows for it; the rest was.

    Attributes
    ----------
    bad_chunks : tuple of Fault
    cost : Spent
    """

    def __init__(self, bad_chunks: tuple[BadChunk, ...], cost: Cost) -> None:
        super().__init__("; ".join(bad_chunk.reason for bad_chunk in bad_chunks))
        self.bad_chunks, self.cost = bad_chunks, cost


def reduce(
    executor: Executor,
    source: Source,
    reduction: Reduction[Sums],
    leaves: Sequence[Leaf],
    *,
    targets_only: bool = False,
    keep: str | None = None,
    batch: bool = False,
    drop_after_use: bool = True,
    evict_others: bool = False,
    following: Sequence[Leaf] = (),
    begun: PartialSum | None = None,
    watch: Callable[[TaskResult, PartialSum], None] | None = None,
) -> tuple[Sums, Cost]:
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
        Name under which workers remember decoded spans, as far as there is room; tasks then go
        where their spans are.
    batch : bool
        Whether the leaves are the lanes of a mini-batch, and not all the data.
    drop_after_use : bool
        Whether the rows of a mini-batch are not asked for again before they are decoded anew.
    evict_others : bool
        Whether what is remembered takes the place of nothing else.
    following : sequence of Leaf
        Of a mini-batch: what the same lanes give to the next one, which workers begin to read.
    begun : Begun, optional
        What an earlier call with the same reduction and leaves has told `watch`.
    watch : callable, optional
        Told of each task as it ends, or of several whose sums were merged, and of the sum so far.

    Raises
    ------
    DataError, ChunkError, OutageError
        What a task raised; the others are cancelled.
    UnreadableError
        If chunks cannot be read, of a source that allows for some.
    MemoryBoundError
        If a task has killed its workers again and again.
    """
    started = time.perf_counter()
    if not batch:
        executor.refresh()
    following = [later for leaf, later in zip(leaves, following, strict=False) if leaf]
    leaves = [leaf for leaf in leaves if leaf]
    tree = Tree(len(leaves), reduction.combine, {} if begun is None else dict(begun.nodes))
    before = Cost() if begun is None else begun.cost
    held = None if keep is None else _keep(executor, source, leaves, keep, batch)
    if held is not None:
        held = held._replace(drop_after_use=drop_after_use, evict_others=evict_others)
    runs = task_runs(source, leaves, executor.slots, batch=batch)
    parts = _without_done(runs, tree.missing())
    tasks = _tasks(source, leaves, following, parts, targets_only, held)
    slots = min(executor.slots, len(tasks))
    work = Cost()
    bad_chunks: list[BadChunk] = []
    merge_plan = _merging(executor, source, reduction, tasks)
    for task_result in _outcomes(executor, source, reduction, tasks, merge_plan):
        for (level, index), sums in task_result.nodes.items():
            tree.add(level, index, sums)
        work += task_result.cost
        bad_chunks += task_result.bad_chunks
        if watch is not None:
            watch(task_result, PartialSum(dict(tree.nodes), before + _spent(work, started, slots)))
    cost = before + _spent(work, started, slots)
    if bad_chunks:
        raise UnreadableError(tuple(sorted(bad_chunks)), cost)
    return tree.total, cost


def _spent(work: Cost, started: float, slots: int) -> Cost:
    """Return what tasks cost, with the time since the start and that in which slots waited."""
    seconds = time.perf_counter() - started
    waiting = TimeSplit(waiting=max(0.0, seconds * slots - work.time.total))
    return work + Cost(time=waiting, seconds=seconds)


def _outcomes(
    executor: Executor,
    source: Source,
    reduction: Reduction[Any],
    tasks: Sequence[Task],
    merge_plan: MergePlan | None,
) -> Iterator[TaskResult]:
    # Blocks that a cluster holds draw tasks to them, unless these have rows to come back to.
    affinities = [_home(task) for task in tasks if task.keep is not None or not source.futures]
    calls = [(task,) for task in tasks]
    try:
        yield from executor.run(
            reduction.name,
            reduce_leaves,
            calls,
            shared=(reduction,),
            affinities=affinities,
            few=bool(source.futures),
            merge_plan=merge_plan,
        )
    except TaskKilledError as error:
        rows = _rows([tasks[position] for position in error.positions])
        raise MemoryBoundError(
            f"rows {rows} of {source.X.name} have killed every worker that read "
            f"them ({error}), most likely for want of memory: give the workers more, or store "
            "smaller chunks"
        ) from error


def _rows(tasks: Iterable[Task]) -> str:
    """Return the spans from which tasks read, for a message."""
    spans = sorted(
        {(row_slice.start, row_slice.stop) for task in tasks for row_slice in task.row_slices}
    )
    runs: list[Span] = []
    for start, stop in spans:
        if runs and runs[-1][1] == start:
            runs[-1] = runs[-1][0], stop
        else:
            runs.append((start, stop))
    return ", ".join(f"{start} to {stop - 1}" for start, stop in runs)


def _merging(
    executor: Executor, source: Source, reduction: Reduction[Any], tasks: Sequence[Task]
) -> MergePlan | None:
    """Return how workers are to merge sums, should these turn out to be large.

    With few workers they come to this process about as soon as to another worker, and rows, which
    do not become fewer by it, in any case.
    """
    if executor.slots < FAN_IN or reduction.grows or source.futures or not tasks:
        return None
    runs = [(task.first, task.first + len(task.leaves)) for task in tasks]
    function = partial(merged, combine=reduction.combine, n_leaves=tasks[0].n_leaves)
    return MergePlan(function, cut_groups(runs, FAN_IN))


def _home(task: Task) -> Affinity:
    run = "" if task.keep is None else task.keep.run
    return Affinity((run, task.first), task.rows)


def full_pass(spans: Sequence[Span], excluded: Sequence[Span] = ()) -> list[Leaf]:
    """Return the leaves of a pass over all rows, but those of some chunks."""
    return [tuple(whole_span(part) for part in around(excluded, [span])) for span in spans]


def _keep(
    executor: Executor, source: Source, leaves: Sequence[Leaf], run: str, batch: bool
) -> CachePolicy | None:
    """Return how workers are to remember the spans of a reduction, or None if they are not."""
    if source.X.futures or not (batch or source.X.may_wait):
        return None  # they are in memory, or the user's to persist
    largest = max(row_slice.stop - row_slice.start for leaf in leaves for row_slice in leaf)
    most = executor.cache_room(source, largest * source.row_bytes, batch=batch)
    if most == 0 and not batch:
        return None
    return CachePolicy(run, most, executor.memory_ceiling, drop_after_use=True, cyclic=not batch)


def task_runs(source: Source, leaves: Sequence[Leaf], slots: int, *, batch: bool) -> list[Span]:
    """Return the runs of leaves that a task each adds up."""
    if source.X.futures:
        # A task of several spans would bring blocks together from several workers.
        return [(index, index + 1) for index in range(len(leaves))]
    if batch:
        length = -(-len(leaves) // slots)  # no subtrees: a task returns several nodes, at no cost
        return [(i, min(i + length, len(leaves))) for i in range(0, len(leaves), length)]
    rows = max((sum(row_slice.rows for row_slice in leaf) for leaf in leaves), default=0)
    return cut_tasks(len(leaves), rows * source.row_bytes, slots, in_memory=source.X.in_memory)


def _without_done(runs: Sequence[Span], missing: Sequence[int]) -> Iterator[Span]:
    """Yield the parts of runs that are still to be done."""
    undone = set(missing)
    for first, last in runs:
        start = first
        for index in range(first, last + 1):
            if index == last or index not in undone:
                if start < index:
                    yield start, index
                start = index + 1


def _tasks(
    source: Source,
    leaves: Sequence[Leaf],
    following: Sequence[Leaf],
    runs: Iterable[Span],
    targets_only: bool,
    keep: CachePolicy | None,
) -> list[Task]:
    tasks = []
    for first, last in runs:
        own = tuple(leaves[first:last])
        ahead = _new_spans(own, following[first:last]) if keep and source.X.may_wait else ()
        parts = _parts(source, (*own, ahead), targets_only)
        blocks = {key: future for part in parts.values() for key, future in part.futures.items()}
        tasks.append(Task(parts, blocks, targets_only, own, first, len(leaves), keep, ahead))
    return tasks


def _new_spans(leaves: Sequence[Leaf], following: Sequence[Leaf]) -> Leaf:
    """Return the pieces that follow on others, and are not of the same spans."""
    known = {(row_slice.start, row_slice.shuffle) for leaf in leaves for row_slice in leaf}
    later = (row_slice for leaf in following for row_slice in leaf)
    return tuple(
        row_slice for row_slice in later if (row_slice.start, row_slice.shuffle) not in known
    )


def _parts(source: Source, leaves: Sequence[Leaf], targets_only: bool) -> dict[int, Source]:
    spans = {(row_slice.start, row_slice.stop) for leaf in leaves for row_slice in leaf}
    return {
        start: source.part(start, stop, targets_only=targets_only) for start, stop in sorted(spans)
    }
