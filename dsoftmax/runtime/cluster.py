"""Tasks on the workers of a `distributed.Client`."""

from __future__ import annotations

import concurrent.futures
import heapq
import math
import queue
import time
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from functools import partial
from itertools import count, repeat
from typing import Any, Self
from uuid import uuid4

import dask
from dask.utils import parse_timedelta

from dsoftmax.errors import OutageError
from dsoftmax.runtime.base import Affinity, Result
from dsoftmax.runtime.clients import require_own
from dsoftmax.runtime.environment import limit_blas_threads, restore_blas_threads
from dsoftmax.runtime.memory import Location
from dsoftmax.runtime.task_window import NOT_YET, Backlog, SubmittedTasks, release
from dsoftmax.runtime.transfer import LARGE, MergePlan, TaskCall, array_bytes, shipped
from dsoftmax.runtime.worker import forget

_MOST_TASKS = 8  # a slot: enough to keep it busy, and few enough to hold points and sums
_LEAST_TASKS = 2  # a slot: one that runs, and one whose blocks arrive meanwhile
_FRACTION = 4  # a worker is given one in so many of its waiting tasks at once, within these bounds
_WATCH_SECONDS = 5  # between two looks at which workers there are
_POLL_SECONDS = 0.1
_SEND_SECONDS = 0.002


class ClusterExecutor:
    """The workers of a `distributed.Client`."""

    def __init__(self, client: Any) -> None:
        require_own(client)
        self.client = client
        has_dashboard = getattr(client.cluster, "has_dashboard", True)
        self.dashboard: str | None = (client.dashboard_link or "") if has_dashboard else ""
        self.run_key = uuid4().hex
        self._n_runs = 0
        # When the workers were last looked at before all of them were offered tasks.
        self._offered_to_all = 0.0
        self._assigned: dict[Hashable, str] = {}
        self._large: set[str] = set()  # names of the functions whose last results were large
        self._fetched: list[Any] = []  # futures to release when more tasks are submitted
        self._address = client.scheduler.address
        self.refresh()

    def refresh(self) -> None:
        """Look again at which workers there are; wait for one if there are none."""
        self._looked = time.monotonic()
        workers = self._wait_for_workers()
        self._workers = {name: workers[name]["nthreads"] for name in sorted(workers)}
        self.slots = sum(self._workers.values())
        tightest, limit = _tightest(workers)
        self.location = Location(
            f"the cluster at {self._address}, as it is now",
            processes=len(workers),
            slots=self.slots,
            threads=workers[tightest]["nthreads"],
            memory_limit=limit,
            who=f"the worker {tightest}",
        )

    def _wait_for_workers(self) -> dict[str, Any]:
        """Return what the scheduler knows of its workers, as soon as there is one.

        Raises
        ------
        OutageError
            If none comes in time, or the cluster is gone.
        """
        # Not by Dask's `wait_for_workers`: that of a LocalCluster never hears of restarted workers.
        seconds = parse_timedelta(dask.config.get("dsoftmax.worker-timeout", "5 minutes"))
        deadline = time.monotonic() + seconds
        while True:
            self._require_alive()
            try:
                workers: dict[str, Any] = self.client.scheduler_info(-1)["workers"]
            except (OSError, TimeoutError) as error:
                raise self._gone(str(error)) from error
            if workers:
                return workers
            if time.monotonic() > deadline:
                raise OutageError(
                    f"the Dask cluster at {self._address} has had no worker for {seconds:.0f} "
                    "seconds; start some, or wait longer with the Dask setting "
                    "dsoftmax.worker-timeout"
                )
            time.sleep(_POLL_SECONDS)

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

    def _gone(self, what: str) -> OutageError:
        return OutageError(
            f"the Dask scheduler at {self._address} is gone ({what}); start it again and run this "
            "once more"
        )

    def __enter__(self) -> Self:
        limit_blas_threads()  # the solver computes here
        return self

    def __exit__(self, *error: object) -> None:
        restore_blas_threads()
        release(self._fetched)
        if self.client.status == "running":
            self.client.run(forget, self.run_key, on_error="ignore")

    def run(
        self,
        name: str,
        function: Callable[..., Result],
        tasks: Sequence[tuple[Any, ...]],
        *,
        shared: tuple[Any, ...] = (),
        affinities: Sequence[Affinity] = (),
        low_concurrency: bool = False,
        merge_plan: MergePlan | None = None,
    ) -> Iterator[Result]:
        """Yield the results as they come, in any order."""
        self._require_alive()
        self._n_runs, self._offered_to_all = self._n_runs + 1, 0.0
        prefix = f"{name}-{self.run_key[:8]}-{self._n_runs}"
        self._send_at_once()
        workers = self._assign(affinities) if affinities else repeat(None)
        last = tuple(shipped(self.client, value, f"shared-{prefix}") for value in shared)
        calls = zip(count(), ((*task, *last) for task in tasks), workers, strict=False)
        backlog = Backlog(TaskCall(*call) for call in calls)
        window = SubmittedTasks(self.client, function, prefix, merge_plan, self._fetched)
        window.merges = name in self._large
        fill: Callable[[SubmittedTasks, Backlog], None] = self._fill_assigned
        if not affinities:
            fill = partial(self._fill, low_concurrency=low_concurrency)
        try:
            fill(window, backlog)
            while len(window) > 0:
                result = self._next(window)
                if merge_plan is not None and result is not NOT_YET:
                    self._note_size(name, result)
                    # Once on it stays on: the results that workers keep wait to be merged.
                    window.merges |= name in self._large
                fill(window, backlog)
                if result is not NOT_YET:
                    yield result
        finally:
            window.close()
            if len(tasks) > self.slots:  # not a mini-batch, on which the next follows at once
                release(self._fetched)

    def _note_size(self, name: str, result: Any) -> None:
        """Remember whether results of a function are large, and so better merged on workers."""
        if array_bytes(result) >= LARGE:
            self._large.add(name)
        else:
            self._large.discard(name)

    def _send_at_once(self) -> None:
        """Have the client send tasks as soon as the scheduler does: by default it saves them up."""
        if self.client.scheduler_comm is not None:  # else it is reconnecting to its scheduler
            self.client.scheduler_comm.interval = _SEND_SECONDS

    def _assign(self, affinities: Sequence[Affinity]) -> list[str]:
        """Return the worker of each affinity, and remember it for the next run."""
        workers = assigned(affinities, self._workers, self._assigned)
        self._assigned.update(workers)
        return [workers[affinity.name] for affinity in affinities]

    def _fill(self, window: SubmittedTasks, backlog: Backlog, *, low_concurrency: bool) -> None:
        """Submit tasks, and let the scheduler choose their workers."""
        most = (_LEAST_TASKS if low_concurrency else _MOST_TASKS) * self.slots
        if low_concurrency or len(window) <= most // 2:
            window.submit(backlog.next_for(None, most - len(window)))

    def _fill_assigned(self, window: SubmittedTasks, backlog: Backlog) -> None:
        """Give workers their own tasks, and the idle ones those that others have left.

        Many at once as long as there are many, since a message costs more than a task.
        """
        if not backlog:
            return
        names, calls = self._with_room(window), list[TaskCall]()
        n_running = Counter({name: window.n_running(name) for name in names})
        for name in names:
            threads = self._workers[name]
            if n_running[name] < _LEAST_TASKS * threads:
                fraction = backlog.n_waiting(name) // (_FRACTION * threads)
                most = max(_LEAST_TASKS, min(fraction, _MOST_TASKS)) * threads
                own = backlog.next_for(name, most - n_running[name])
                n_running[name] += len(own)
                calls += own
        for name in names:
            while n_running[name] < self._workers[name] and (call := backlog.steal_for(name)):
                n_running[name] += 1
                calls.append(call)
        window.submit(calls)

    def _with_room(self, window: SubmittedTasks) -> list[str]:
        """Return the workers that may have room: that of the last result, or all when others may.

        All are looked at again after each look at the cluster, which may have new workers.
        """
        looked_before, self._offered_to_all = self._offered_to_all, self._looked
        if looked_before == self._looked and window.freed in self._workers:
            return [window.freed]
        return list(self._workers)

    def _next(self, window: SubmittedTasks) -> Any:
        """Return the next result, however long it takes, while there are workers."""
        while True:
            if time.monotonic() - self._looked > _WATCH_SECONDS:
                window.raise_if_given_up()  # before a worker is waited for that may never come
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
        """Find workers that have joined, to help with the pass, and raise if none is left."""
        self._looked = time.monotonic()
        self._require_alive()
        if self.client.status == "running":  # else it is reconnecting to its scheduler
            self.refresh()


def _tightest(workers: Mapping[str, Any]) -> tuple[str, int]:
    """Return the worker that has least memory a thread, and its limit, 0 for none."""
    name = min(
        sorted(workers),
        key=lambda each: (
            (workers[each]["memory_limit"] or math.inf) / workers[each]["nthreads"],
            -workers[each]["nthreads"],
        ),
    )
    return name, workers[name]["memory_limit"] or 0


def assigned(
    affinities: Sequence[Affinity], workers: Mapping[str, int], before: Mapping[Hashable, str]
) -> dict[Hashable, str]:
    """Return the worker of each affinity, so that all have about the same number of rows a thread.

    An affinity stays with its worker, unless that has gone or others have come: then a worker
    gives up what is more than its share. These go to whoever has least, the largest first.

    Parameters
    ----------
    affinities : sequence of Affinity
    workers : how many threads each has
    before : what was returned the last time

    Examples
    --------
    >>> affinities = [Affinity(0, 8), Affinity(8, 4), Affinity(12, 4)]
    >>> first = assigned(affinities, {"a": 1, "b": 1}, {})
    >>> first
    {0: 'a', 8: 'b', 12: 'b'}
    >>> assigned(affinities, {"b": 1, "c": 1}, first)
    {8: 'b', 12: 'b', 0: 'c'}
    """
    share = sum(affinity.rows for affinity in affinities) / sum(workers.values())
    chosen: dict[Hashable, str] = {}
    rows: Counter[str] = Counter()
    largest_first = sorted(affinities, key=lambda affinity: -affinity.rows)
    for affinity in largest_first:
        worker = before.get(affinity.name, "")
        if rows[worker] < share * workers.get(worker, 0):
            chosen[affinity.name] = worker
            rows[worker] += affinity.rows
    least = [(rows[worker] / threads, worker) for worker, threads in workers.items()]
    heapq.heapify(least)
    for affinity in largest_first:
        if affinity.name not in chosen:
            load, worker = least[0]
            chosen[affinity.name] = worker
            heapq.heapreplace(least, (load + affinity.rows / workers[worker], worker))
    return chosen
