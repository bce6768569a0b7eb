"""Where tasks run: on the active Dask cluster, on the embedded one, or in this process.

All three run the same function on the same tasks; only `distributed.Client` reaches a
cluster. An executor is a context: leaving it cancels what is still running and drops
what workers remember of the run.
"""

from __future__ import annotations

import concurrent.futures
import queue
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar
from uuid import uuid4

import dask
from dask.system import CPU_COUNT
from dask.utils import parse_timedelta

from dsoftmax.errors import DataError, DsoftmaxError
from dsoftmax.runtime import blas, worker
from dsoftmax.runtime.workers import (
    require_owner,
    require_portable,
    require_room,
    require_visible,
)
from dsoftmax.sources.base import Source

Result = TypeVar("Result")

_SMALL = 64 << 20  # decoded bytes up to which a lazy source is not worth a cluster
_CACHE_SHARE = 0.25  # of a worker's memory for the decoded spans of mini-batches
_CACHE_IN_PROCESS = 1 << 30
_SEVERAL = 8  # tasks a slot: enough to keep it busy, and few enough to hold points and sums
_WATCH_SECONDS = 5
_FEW = 2  # tasks a slot: one that runs, and one whose blocks arrive meanwhile


class Executor(Protocol):
    """Runs one function on many tasks.

    Attributes
    ----------
    slots : how many tasks run at once
    processes : in how many processes they run
    cache_bytes : decoded bytes that a process may remember
    dashboard : address of the Dask dashboard, if there is one
    run_key : what workers remember is remembered under this name, until the end
    """

    run_key: str

    slots: int
    processes: int
    cache_bytes: int
    dashboard: str | None

    def refresh(self) -> None:
        """Look again at which workers there are."""
        ...

    def run(
        self, name: str, function: Callable[..., Result], tasks: Sequence[tuple[Any, ...]],
        *, pinned: bool = False, few: bool = False,
    ) -> Iterator[Result]:  # fmt: skip
        """Yield the results as they come, in any order.

        Parameters
        ----------
        name : what the dashboard shows
        function, tasks : what to call, and its arguments for each task
        pinned : prefer the same worker for the same position each time
        few : keep few tasks under way, since each brings blocks to its worker
        """
        ...

    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...  # fmt: skip


def executor_for(source: Source) -> Executor:
    """Return where a source is best reduced: see the README, "Where it runs"."""
    if source.X.in_memory:
        return ThreadExecutor()
    client = _active_client()
    if source.futures:
        require_owner(source, client)
        return _on_cluster(client, source)
    if client is not None:
        require_portable(source)
        return _on_cluster(client, source)
    small = source.n_samples * source.row_bytes <= _SMALL
    if small or inside_a_task() or not all(array.portable for array in source.arrays):
        return ThreadExecutor()
    from dsoftmax.runtime.local import embedded_client

    return _on_cluster(embedded_client(), source)


def _on_cluster(client: Any, source: Source) -> ClusterExecutor:
    executor = ClusterExecutor(client)
    require_room(client, source)
    require_visible(client, source)
    return executor


def inside_a_task() -> bool:
    """Whether this code runs in a task on a Dask worker."""
    from distributed import get_worker

    try:
        get_worker()
    except ValueError:
        return False
    return True


def _active_client() -> Any:
    """Return the user's synchronous client, or None without one or inside a task."""
    from distributed import Client

    if inside_a_task():
        return None
    try:
        client = Client.current()
    except ValueError:
        return None
    if client.asynchronous:
        raise DataError(
            "the active Dask client is asynchronous; fit and predict block, so connect a "
            "synchronous one: Client(address)"
        )
    return client


class ThreadExecutor:
    """Threads of this process: one a core, one inside a Dask task, none for a single task."""

    def __init__(self) -> None:
        self.run_key = uuid4().hex
        self.processes = 1
        self.slots = 1 if inside_a_task() else CPU_COUNT
        self.cache_bytes = _configured_cache(_CACHE_IN_PROCESS)
        self.dashboard: str | None = None
        self._pool: concurrent.futures.ThreadPoolExecutor | None = None

    def refresh(self) -> None:
        """Do nothing: the cores of this process stay."""

    def __enter__(self) -> Self:
        blas.borrow()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
        worker.forget(self.run_key)
        blas.give_back()

    def run(
        self, name: str, function: Callable[..., Result], tasks: Sequence[tuple[Any, ...]],
        *, pinned: bool = False, few: bool = False,
    ) -> Iterator[Result]:  # fmt: skip
        """Yield the results as they come, in any order."""
        if len(tasks) == 1 or self.slots == 1:
            for task in tasks:
                yield function(*task)
            return
        if self._pool is None:
            self._pool = concurrent.futures.ThreadPoolExecutor(self.slots, "dsoftmax")
        futures = [self._pool.submit(function, *task) for task in tasks]
        try:
            for future in concurrent.futures.as_completed(futures):
                yield future.result()
        finally:
            for future in futures:
                future.cancel()


class ClusterExecutor:
    """The workers of a `distributed.Client`."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self.dashboard: str | None = client.dashboard_link or None
        self.run_key = uuid4().hex
        self._round = 0
        self._address = client.scheduler.address
        _wait_for_a_worker(client)
        self.refresh()

    def refresh(self) -> None:
        """Look again at which workers there are."""
        workers = self._client.scheduler_info(-1)["workers"]
        limits = [w["memory_limit"] for w in workers.values() if w["memory_limit"]]
        default = int(_CACHE_SHARE * min(limits)) if limits else _CACHE_IN_PROCESS
        self.slots = max(1, sum(w["nthreads"] for w in workers.values()))
        self.cache_bytes = _configured_cache(default)
        self._workers = sorted(workers)
        self.processes = max(1, len(workers))

    def __enter__(self) -> Self:
        blas.borrow()  # the solver computes here
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        blas.give_back()
        if self._client.status == "running":
            self._client.run(worker.forget, self.run_key, on_error="ignore")

    def run(
        self, name: str, function: Callable[..., Result], tasks: Sequence[tuple[Any, ...]],
        *, pinned: bool = False, few: bool = False,
    ) -> Iterator[Result]:  # fmt: skip
        """Yield the results as they come, in any order."""
        self._round += 1
        prefix = f"{name}-{self.run_key[:8]}-{self._round}"
        calls = iter(enumerate(tasks))
        done: queue.SimpleQueue[Any] = queue.SimpleQueue()
        most = (_FEW if few else _SEVERAL) * self.slots
        under_way = {self._submit(prefix, function, *call, pinned) for call in islice(calls, most)}
        for future in under_way:
            future.add_done_callback(done.put)
        try:
            while under_way:
                future = self._next(done)
                result = self._result(future)
                under_way.discard(future)
                future.release()  # or sums would pile up on the workers until the end
                for call in islice(calls, 1):
                    following = self._submit(prefix, function, *call, pinned)
                    under_way.add(following)
                    following.add_done_callback(done.put)
                yield result
        finally:
            for future in under_way:
                future.release()

    def _next(self, done: queue.SimpleQueue[Any]) -> Any:
        """Return the next future that is done, as long as anyone is there to do it."""
        while True:
            try:
                return done.get(timeout=_WATCH_SECONDS)
            except queue.Empty:
                self._require_life()

    def _result(self, future: Any) -> Any:
        try:
            return future.result()
        except concurrent.futures.CancelledError as error:
            raise DsoftmaxError(
                f"the Dask scheduler at {self._address} is gone, and the task {future.key} with "
                "it; start it again and run this once more"
            ) from error

    def _require_life(self) -> None:
        """Raise DsoftmaxError if no worker is left, and none comes."""
        cluster = self._client.cluster
        if getattr(cluster, "alive", True) is False:
            raise DsoftmaxError(
                "the local cluster has died, its scheduler or all of its workers; they may have "
                "run out of memory: give the workers more, or store smaller chunks"
            )
        if self._client.status == "running" and not self._client.scheduler_info(-1)["workers"]:
            _wait_for_a_worker(self._client)

    def _submit(
        self, prefix: str, function: Callable[..., Any], position: int, task: tuple[Any, ...],
        pinned: bool,
    ) -> Any:  # fmt: skip
        """Submit a task; futures in its dicts, lists and tuples arrive there as their values."""
        pin = pinned and len(self._workers) > 0
        where = self._workers[position % len(self._workers)] if pin else None
        return self._client.submit(
            worker.with_one_blas_thread, function, *task, key=f"{prefix}-{position}",
            pure=False, workers=where, allow_other_workers=pin,
        )  # fmt: skip


def _wait_for_a_worker(client: Any) -> None:
    seconds = parse_timedelta(dask.config.get("dsoftmax.worker-timeout", "5 minutes"))
    try:
        client.wait_for_workers(1, timeout=seconds)
    except TimeoutError:
        raise DsoftmaxError(
            f"the Dask cluster at {client.scheduler.address} has had no worker for {seconds:.0f} "
            "seconds; start some, or wait longer with the Dask setting dsoftmax.worker-timeout"
        ) from None


def _configured_cache(default: int) -> int:
    return int(dask.config.get("dsoftmax.cache", default))
