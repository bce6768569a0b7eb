"""Tasks on the workers of a `distributed.Client`."""

from __future__ import annotations

import concurrent.futures
import heapq
import queue
import time
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from functools import partial
from itertools import count, repeat
from types import TracebackType
from typing import Any, Self
from uuid import uuid4

import dask
from dask.utils import parse_timedelta

from dsoftmax.data.source import Source
from dsoftmax.errors import OutageError
from dsoftmax.runtime import environment, loader
from dsoftmax.runtime.base import Affinity, Result
from dsoftmax.runtime.memory import cache_room, ceiling, sums_bytes, working_set
from dsoftmax.runtime.task_window import NOT_YET, Backlog, Window, release
from dsoftmax.runtime.transfer import LARGE, MergePlan, TaskCall, array_bytes, shipped

_SEVERAL = 8  # tasks a slot: enough to keep it busy, and few enough to hold points and sums
_FEW = 2  # tasks a slot: one that runs, and one whose blocks arrive meanwhile
_SHARE = 4  # of its own tasks a worker is given one in so many at once, if that is more than few
_WATCH_SECONDS = 5
_POLL_SECONDS = 0.1
_SEND_SECONDS = 0.002


class ClusterExecutor:
    """The workers of a `distributed.Client`."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self.dashboard: str | None = client.dashboard_link or None
        self.run_key = uuid4().hex
        self._round = 0
        self._filled = 0.0  # the look at the workers after which all of them were given tasks
        self._assigned: dict[Hashable, str] = {}
        self._large: set[str] = set()  # what had a large result the last time
        self._fetched: list[Any] = []  # results of the last tasks, which go when others are sent
        self._address = client.scheduler.address
        self.refresh()

    def refresh(self) -> None:
        """Look again at which workers there are; wait for one if there are none."""
        self._looked = time.monotonic()
        self._require_alive()
        workers = self._workers_now() or self._awaited()
        self._limits = [w["memory_limit"] for w in workers.values() if w["memory_limit"]]
        self._workers = {name: workers[name]["nthreads"] for name in sorted(workers)}
        self.slots = max(1, sum(self._workers.values()))
        self.processes = max(1, len(workers))
        self.memory_ceiling = ceiling(min(self._limits, default=0))

    def cache_room(self, source: Source, span_bytes: int, *, batch: bool) -> int:
        """Return the decoded bytes that each worker may remember."""
        in_use = working_set(span_bytes, sums_bytes(source), max(self._workers.values(), default=1))
        return cache_room(min(self._limits, default=0), in_use, batch=batch)

    def _workers_now(self) -> dict[str, Any]:
        try:
            found: dict[str, Any] = self.client.scheduler_info(-1)["workers"]
        except (OSError, TimeoutError) as error:
            raise self._gone(str(error)) from error
        return found

    def _require_alive(self) -> None:
        if self.client.status == "closed":
            raise OutageError(
                f"the client of the Dask cluster at {self._address} has been closed; leave it open "
                "until all is done"
            )
        if getattr(self.client.cluster, "alive", True) is False:
            raise OutageError(
                "the local cluster has died, its scheduler or all of its workers; they may have "
                "run out of memory: give the workers more, or store smaller chunks"
            )

    def _awaited(self) -> dict[str, Any]:
        """Return the workers that come within the time for which they are waited for.

        Raises
        ------
        OutageError
            If none comes.
        """
        # Not by `wait_for_workers`: that of a LocalCluster never hears of restarted workers.
        seconds = parse_timedelta(dask.config.get("dsoftmax.worker-timeout", "5 minutes"))
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self._require_alive()
            if workers := self._workers_now():
                return workers
            time.sleep(_POLL_SECONDS)
        raise OutageError(
            f"the Dask cluster at {self._address} has had no worker for {seconds:.0f} seconds; "
            "start some, or wait longer with the Dask setting dsoftmax.worker-timeout"
        )

    def _gone(self, what: str) -> OutageError:
        return OutageError(
            f"the Dask scheduler at {self._address} is gone ({what}); start it again and run this "
            "once more"
        )

    def __enter__(self) -> Self:
        environment.borrow()  # the solver computes here
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        environment.give_back()
        release(self._fetched)
        if self.client.status == "running":
            self.client.run(loader.forget, self.run_key, on_error="ignore")

    def run(
        self,
        name: str,
        function: Callable[..., Result],
        tasks: Sequence[tuple[Any, ...]],
        *,
        shared: tuple[Any, ...] = (),
        affinities: Sequence[Affinity] = (),
        few: bool = False,
        merge_plan: MergePlan | None = None,
    ) -> Iterator[Result]:
        """Yield the results as they come, in any order."""
        self._require_alive()
        self._round, self._filled = self._round + 1, 0.0
        prefix = f"{name}-{self.run_key[:8]}-{self._round}"
        self._hasten()
        workers = self._at_home(affinities) or repeat(None)
        last = tuple(shipped(self.client, value, f"shared-{prefix}") for value in shared)
        calls = zip(count(), ((*task, *last) for task in tasks), workers, strict=False)
        backlog = Backlog(TaskCall(*call) for call in calls)
        window = Window(self.client, function, prefix, merge_plan, self._fetched)
        window.merges = name in self._large
        fill = self._fill_at_home if affinities and self._workers else partial(self._fill, few=few)
        try:
            fill(window, backlog)
            while len(window) > 0:
                result = self._next(window)
                if merge_plan is not None and result is not NOT_YET:
                    self._note_size(name, result)
                    window.merges |= name in self._large  # to the end: what is kept waits for it
                fill(window, backlog)
                if result is not NOT_YET:
                    yield result
        finally:
            window.close()
            if len(tasks) > self.slots:  # not a mini-batch, on which the next follows at once
                release(self._fetched)

    def _note_size(self, name: str, result: Any) -> None:
        """Take note whether results of a kind are large, and so better merged on workers."""
        if array_bytes(result) >= LARGE:
            self._large.add(name)
        else:
            self._large.discard(name)

    def _hasten(self) -> None:
        """Have the client send tasks as soon as the scheduler does: by default it saves them up."""
        if self.client.scheduler_comm is not None:  # else it is looking for its scheduler
            self.client.scheduler_comm.interval = _SEND_SECONDS

    def _at_home(self, affinities: Sequence[Affinity]) -> list[str]:
        """Return the workers that tasks are meant for."""
        if not self._workers:
            return []
        found = assigned(affinities, self._workers, self._assigned)
        self._assigned.update(found)
        return [found[affinity.name] for affinity in affinities]

    def _fill(self, window: Window, backlog: Backlog, *, few: bool) -> None:
        """Leave it to the scheduler who does what."""
        most = (_FEW if few else _SEVERAL) * self.slots
        if few or len(window) <= most // 2:
            window.submit(backlog.next_for(None, most - len(window)))

    def _fill_at_home(self, window: Window, backlog: Backlog) -> None:
        """Give workers their own tasks, and the idle ones those that others have left.

        Many at once as long as there are many, since a message costs more than a task.
        """
        if not backlog:
            return
        names, calls = self._with_room(window), list[TaskCall]()
        held = Counter({name: window.held(name) for name in names})
        for name in names:
            threads = self._workers[name]
            if held[name] < _FEW * threads:
                share = backlog.left_for(name) // (_SHARE * threads)
                most = max(_FEW, min(share, _SEVERAL)) * threads
                own = backlog.next_for(name, most - held[name])
                held[name] += len(own)
                calls += own
        for name in names:
            while held[name] < self._workers[name] and (call := backlog.last_of_most(name)):
                held[name] += 1
                calls.append(call)
        window.submit(calls)

    def _with_room(self, window: Window) -> list[str]:
        """Return who may have room: whose task has ended, or all when there may be others."""
        looked_before, self._filled = self._filled, self._looked
        if looked_before == self._looked and window.freed in self._workers:
            return [window.freed]
        return list(self._workers)

    def _next(self, window: Window) -> Any:
        """Return the next result, as long as anyone is there to work for it."""
        while True:
            if time.monotonic() - self._looked > _WATCH_SECONDS:
                window.raise_if_given_up()  # or a worker would be waited for that may never come
                self._look_around()
                window.unpin_from_all_but(self._workers)
            try:
                return window.next_result(_WATCH_SECONDS)
            except queue.Empty:
                continue
            except concurrent.futures.CancelledError as error:
                self._require_alive()
                raise self._gone(f"or was restarted, and the task {error} with it") from error

    def _look_around(self) -> None:
        """Find out who has joined, to help with the pass, and whether anyone is left."""
        self._looked = time.monotonic()
        self._require_alive()
        if self.client.status == "running":  # else it is looking for its scheduler
            self.refresh()


def assigned(
    affinities: Sequence[Affinity], workers: Mapping[str, int], before: Mapping[Hashable, str]
) -> dict[Hashable, str]:
    """Return a worker for each home, so that all have about the same number of rows a thread.

    A home stays with its worker, unless that has gone or others have come: then it gives up what
    is more than its share. The others go to whoever has least, the largest first.

    Parameters
    ----------
    affinities : sequence of Home
    workers : how many threads each has
    before : what was returned the last time

    Examples
    --------
    >>> first = assigned([Home(0, 8), Home(8, 4), Home(12, 4)], {"a": 1, "b": 1}, {})
    >>> first
    {0: 'a', 8: 'b', 12: 'b'}
    >>> assigned([Home(0, 8), Home(8, 4), Home(12, 4)], {"b": 1, "c": 1}, first)
    {8: 'b', 12: 'b', 0: 'c'}
    """
    share = sum(affinity.rows for affinity in affinities) / sum(workers.values())
    found: dict[Hashable, str] = {}
    rows: Counter[str] = Counter()
    largest_first = sorted(affinities, key=lambda affinity: -affinity.rows)
    for affinity in largest_first:
        worker = before.get(affinity.name, "")
        if rows[worker] < share * workers.get(worker, 0):
            found[affinity.name] = worker
            rows[worker] += affinity.rows
    least = [(rows[worker] / threads, worker) for worker, threads in workers.items()]
    heapq.heapify(least)
    for affinity in largest_first:
        if affinity.name not in found:
            filled, worker = least[0]
            found[affinity.name] = worker
            heapq.heapreplace(least, (filled + affinity.rows / workers[worker], worker))
    return found
