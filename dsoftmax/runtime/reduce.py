"""`reduce` and `Pass`: the one way in which rows become sums."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from functools import partial
from typing import Any, TypeVar

from dsoftmax.data.batches import Leaf, whole_span
from dsoftmax.data.retry import BadChunk
from dsoftmax.data.source import Source
from dsoftmax.errors import CheckpointError, ChunkError, shortened
from dsoftmax.objective.reduction import Reduction
from dsoftmax.runtime.base import Affinity, Executor
from dsoftmax.runtime.cost import Cost, PartialSum, TaskResult
from dsoftmax.runtime.failures import named_failures
from dsoftmax.runtime.memory import Location, cache_room_for, ceiling
from dsoftmax.runtime.span_cache import CachePolicy
from dsoftmax.runtime.spans import Span, Tree, cut_groups, cut_tasks, missing_parts, spans_without
from dsoftmax.runtime.transfer import MergePlan
from dsoftmax.runtime.worker import Task, merged, reduce_leaves

Sums = TypeVar("Sums")
OnTaskDone = Callable[[TaskResult, PartialSum], None]
FAN_IN = 8  # large sums of so many tasks become one, on clusters of at least as many slots


class UnreadableError(ChunkError):
    """Some chunks cannot be read, in a source that allows for it; the rest was.

    Attributes
    ----------
    bad_chunks : tuple of BadChunk
    cost : Cost
    """

    def __init__(self, bad_chunks: tuple[BadChunk, ...], cost: Cost) -> None:
        super().__init__("; ".join(bad_chunk.reason for bad_chunk in bad_chunks))
        self.bad_chunks, self.cost = bad_chunks, cost


@dataclass
class Pass:
    """Reads the same leaves as often as it is asked to; its tasks are planned once.

    Attributes
    ----------
    executor : where the tasks run; it has no influence on the bits of a result
    source : Source
    leaves : the rows of each leaf; leaves without rows have no part in the tree
    targets_only : whether to read y and weights only
    cache_name : name under which workers cache decoded spans, as far as there is room; tasks
        then go where their spans are. None to cache nothing
    batch : whether the leaves are the lanes of a mini-batch, and not all the data
    drop_after_use : whether the rows of a mini-batch are not asked for again before they are
        decoded anew
    evict_others : whether cached spans may take the place of those of other passes
    following : of a mini-batch: the next one of the same lanes, which workers begin to read
    """

    executor: Executor
    source: Source
    leaves: Sequence[Leaf]
    _: KW_ONLY
    targets_only: bool = False
    cache_name: str | None = None
    batch: bool = False
    drop_after_use: bool = True
    evict_others: bool = True
    following: Sequence[Leaf] = ()

    def __post_init__(self) -> None:
        following = zip(self.leaves, self.following, strict=False)
        self.following = [later for leaf, later in following if leaf]
        self.leaves = [leaf for leaf in self.leaves if leaf]
        self._has_futures = self.executor.client is not None and bool(self.source.futures)
        self._tasks: list[Task] = []
        self._planned_for: Location | None = None

    def reduce(
        self,
        reduction: Reduction[Sums],
        *,
        resume_from: PartialSum | None = None,
        on_task_done: OnTaskDone | None = None,
    ) -> tuple[Sums, Cost]:
        """Return the sum of a reduction over the leaves, added up in the fixed tree.

        Parameters
        ----------
        reduction : Reduction
        resume_from : PartialSum, optional
            What an earlier call with the same reduction and leaves has passed to `on_task_done`.
        on_task_done : callable, optional
            Called with the result of each task, or of several that workers have merged, and with
            the sum so far.

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
        if not self.batch:  # between two mini-batches there is no time to ask the scheduler
            self.executor.refresh()
        before = Cost() if resume_from is None else resume_from.cost
        nodes = {} if resume_from is None else _resumed(resume_from, len(self.leaves))
        tree = Tree(len(self.leaves), reduction.combine, nodes)
        # What is left of a resumed pass is read once, so its tasks are not kept.
        tasks = self._planned() if resume_from is None else self._plan(tree.missing())
        slots = min(self.executor.slots, len(tasks))
        work = cost = before
        bad_chunks: list[BadChunk] = []
        for task_result in self._run(reduction, tasks):
            _add(tree, task_result, is_resumed=resume_from is not None)
            bad_chunks += task_result.bad_chunks
            work += task_result.cost
            cost = _with_waiting(work, before, time.perf_counter() - started, slots)
            if on_task_done is not None:
                # A copy of the nodes, since the next results change those of the tree.
                on_task_done(task_result, PartialSum(dict(tree.nodes), cost))
        if bad_chunks:
            raise UnreadableError(tuple(sorted(bad_chunks)), cost)
        return tree.total, cost

    def _planned(self) -> list[Task]:
        """Return the tasks of all leaves, planned anew if there are other workers than before."""
        if self._planned_for != self.executor.location:
            self._tasks = self._plan(range(len(self.leaves)))
            self._planned_for = self.executor.location
        return self._tasks

    def _plan(self, missing: Collection[int]) -> list[Task]:
        """Return the tasks of the leaves that are missing."""
        runs = task_runs(self.source, self.leaves, self.executor.slots, batch=self.batch)
        policy = self._cache_policy()
        return [
            self._task(first, last, policy) for first, last in missing_parts(runs, set(missing))
        ]

    def _task(self, first: int, last: int, policy: CachePolicy | None) -> Task:
        source, leaves = self.source, tuple(self.leaves[first:last])
        read_ahead: Leaf = ()
        if policy is not None and source.X.may_wait:
            read_ahead = _new_spans(leaves, self.following[first:last])
        row_slices = (row_slice for leaf in (*leaves, read_ahead) for row_slice in leaf)
        parts = {each.start: self._part(each.start, each.stop) for each in row_slices}
        blocks: dict[Any, Any] = {}
        if self._has_futures:
            blocks = {key: block for part in parts.values() for key, block in part.futures.items()}
        n_leaves = len(self.leaves)
        return Task(parts, blocks, self.targets_only, leaves, first, n_leaves, policy, read_ahead)

    def _part(self, start: int, stop: int) -> Source:
        """Return what a task needs of the source to read a span."""
        if self.executor.client is None:
            return self.source  # within this process nothing travels that could be too large
        return self.source.part(start, stop, targets_only=self.targets_only)

    def _cache_policy(self) -> CachePolicy | None:
        """Return how workers are to cache the spans, or None if they are not."""
        source, location = self.source, self.executor.location
        if self.cache_name is None:
            return None
        if source.X.futures or not (self.batch or source.X.may_wait):
            return None  # in memory already; and what a Dask graph computes, the user may persist
        largest = max(
            row_slice.stop - row_slice.start for leaf in self.leaves for row_slice in leaf
        )
        room = cache_room_for(source, location, largest, batch=self.batch)
        if room == 0 and not self.batch:
            return None
        return CachePolicy(
            self.cache_name,
            room,
            ceiling(location.memory_limit),
            drop_after_use=self.drop_after_use,
            cyclic=not self.batch,
            evict_others=self.evict_others,
        )

    def _run(self, reduction: Reduction[Any], tasks: Sequence[Task]) -> Iterator[TaskResult]:
        executor, affinities = self.executor, list[Affinity]()
        if executor.client is not None:
            # Tasks of blocks that a cluster holds go where these are, unless their rows are cached.
            affinities = [
                _affinity(task)
                for task in tasks
                if task.cache_policy is not None or not self._has_futures
            ]
        rows_of_tasks = [[(part.start, part.stop) for part in task.row_slices] for task in tasks]
        with named_failures(self.source, rows_of_tasks):
            yield from executor.run(
                reduction.name,
                reduce_leaves,
                [(task,) for task in tasks],
                shared=(reduction,),
                affinities=affinities,
                low_concurrency=self._has_futures,
                merge_plan=self._merge_plan(reduction, tasks),
            )

    def _merge_plan(self, reduction: Reduction[Any], tasks: Sequence[Task]) -> MergePlan | None:
        """Return how workers are to merge sums, should these turn out to be large.

        A few workers send them to this process about as fast as to another worker. Rows do not
        become fewer when they are merged.
        """
        if self.executor.slots < FAN_IN or reduction.grows or self._has_futures or not tasks:
            return None
        runs = [(task.first, task.first + len(task.leaves)) for task in tasks]
        function = partial(merged, combine=reduction.combine, n_leaves=len(self.leaves))
        return MergePlan(function, cut_groups(runs, FAN_IN))


def reduce(
    executor: Executor,
    source: Source,
    reduction: Reduction[Sums],
    leaves: Sequence[Leaf],
    *,
    targets_only: bool = False,
) -> tuple[Sums, Cost]:
    """Return the sum of a reduction over leaves that are read once, and what it cost."""
    return Pass(executor, source, leaves, targets_only=targets_only).reduce(reduction)


def _with_waiting(work: Cost, before: Cost, seconds: float, slots: int) -> Cost:
    """Return what tasks cost since `before`, with these seconds and those in which slots waited."""
    busy = work.time.total - before.time.total  # both have what slots waited before, if resumed
    waiting = before.time.waiting + max(0.0, seconds * slots - busy)
    time_split = replace(work.time, waiting=waiting)
    return replace(work, time=time_split, seconds=before.seconds + seconds)


def _affinity(task: Task) -> Affinity:
    name = "" if task.cache_policy is None else task.cache_policy.name
    return Affinity((name, task.first), sum(row_slice.rows for row_slice in task.row_slices))


def full_pass(spans: Sequence[Span], excluded: Sequence[Span] = ()) -> list[Leaf]:
    """Return the leaves of a pass over all rows, but those of some chunks."""
    return [tuple(whole_span(part) for part in spans_without(excluded, [span])) for span in spans]


def _resumed(partial_sum: PartialSum, n_leaves: int) -> dict[tuple[int, int], Any]:
    """Return the finished nodes of a sum; a CheckpointError if they are not of its tree."""
    for level, index in partial_sum.nodes:
        if not (0 <= level <= n_leaves.bit_length() and 0 <= index << level < n_leaves):
            raise CheckpointError(
                f"the checkpoint holds the node {level, index} of a sum over {n_leaves} parts; "
                "there is none such: remove it"
            )
    return dict(partial_sum.nodes)


def _add(tree: Tree[Any], task_result: TaskResult, *, is_resumed: bool) -> None:
    """Add what a task returned; a CheckpointError if that and the resumed sum are no summands."""
    try:
        for (level, index), sums in task_result.nodes.items():
            tree.add(level, index, sums)
    except (AttributeError, TypeError, ValueError) as error:
        if not is_resumed:
            raise
        raise CheckpointError(
            f"the sum in the checkpoint is none that this run computes ({shortened(error)}); "
            "remove it"
        ) from error


def task_runs(source: Source, leaves: Sequence[Leaf], slots: int, *, batch: bool) -> list[Span]:
    """Return the runs of leaves that a task each adds up."""
    if source.X.futures:
        # One span a task: that of several would bring blocks together from several workers.
        return [(index, index + 1) for index in range(len(leaves))]
    if batch:
        length = -(-len(leaves) // slots)  # no subtrees: a task returns several nodes, at no cost
        return [(i, min(i + length, len(leaves))) for i in range(0, len(leaves), length)]
    rows = max((sum(row_slice.rows for row_slice in leaf) for leaf in leaves), default=0)
    return cut_tasks(len(leaves), rows * source.row_bytes, slots, in_memory=source.X.in_memory)


def _new_spans(leaves: Sequence[Leaf], following: Sequence[Leaf]) -> Leaf:
    """Return the slices of the leaves that follow whose spans these leaves do not read."""
    read = {(row_slice.start, row_slice.shuffle) for leaf in leaves for row_slice in leaf}
    return tuple(
        row_slice
        for leaf in following
        for row_slice in leaf
        if (row_slice.start, row_slice.shuffle) not in read
    )
