"""Where tasks run: on the active Dask cluster, on the embedded one, or in this process.

All three run the same function on the same tasks; only `distributed.Client` reaches a
cluster. An executor is a context: leaving it cancels what is still running and drops
what workers remember of the run.
"""

from __future__ import annotations

import concurrent.futures
import threading
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar
from uuid import uuid4

import dask
from dask.system import CPU_COUNT
from threadpoolctl import threadpool_limits

from dsoftmax.errors import DataError
from dsoftmax.runtime import worker
from dsoftmax.sources.base import Source

Result = TypeVar("Result")

_SMALL = 64 << 20  # decoded bytes up to which a lazy source is not worth a cluster
_CACHE_SHARE = 0.25  # of a worker's memory for the decoded spans of mini-batches
_CACHE_IN_PROCESS = 1 << 30


class Executor(Protocol):
    """Runs one function on many tasks.

    Attributes
    ----------
    slots : how many tasks run at once
    cache_bytes : decoded bytes that a process may remember
    dashboard : address of the Dask dashboard, if there is one
    """

    slots: int
    cache_bytes: int
    dashboard: str | None

    def refresh(self) -> None:
        """Look again at which workers there are."""
        ...

    def run(
        self, name: str, function: Callable[..., Result], tasks: Sequence[tuple[Any, ...]],
        *, pinned: bool = False,
    ) -> Iterator[Result]:  # fmt: skip
        """Yield the results as they come, in any order.

        Parameters
        ----------
        name : what the dashboard shows
        function, tasks : what to call, and its arguments for each task
        pinned : prefer the same worker for the same position each time
        """
        ...

    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...  # fmt: skip


def executor_for(source: Source) -> Executor:
    """Return where a source is best reduced: see the README, "Where it runs"."""
    in_memory = source.X.in_memory or not all(array.portable for array in source.arrays)
    client = _active_client()
    if client is not None and not source.X.in_memory:
        _require_portable(source)
        return ClusterExecutor(client)
    if in_memory or inside_a_task() or source.n_samples * source.row_bytes <= _SMALL:
        return ThreadExecutor()
    from dsoftmax.runtime.local import embedded_client

    return ClusterExecutor(embedded_client())


def _require_portable(source: Source) -> None:
    for array in source.arrays:
        if not array.portable:
            raise DataError(
                f"{array.name} is a store in this process's memory, which the workers of the "
                "active Dask client cannot read; store it in a folder or at a URL that they see"
            )


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
        self.slots = 1 if inside_a_task() else CPU_COUNT
        self.cache_bytes = _configured_cache(_CACHE_IN_PROCESS)
        self.dashboard: str | None = None
        self._pool: concurrent.futures.ThreadPoolExecutor | None = None

    def refresh(self) -> None:
        """Do nothing: the cores of this process stay."""

    def __enter__(self) -> Self:
        _SINGLE_BLAS_THREAD.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
        worker.forget()
        _SINGLE_BLAS_THREAD.__exit__()

    def run(
        self, name: str, function: Callable[..., Result], tasks: Sequence[tuple[Any, ...]],
        *, pinned: bool = False,
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
        self._run = uuid4().hex[:8]
        self._round = 0
        client.wait_for_workers(1)
        self.refresh()

    def refresh(self) -> None:
        """Look again at which workers there are."""
        workers = self._client.scheduler_info(-1)["workers"]
        limits = [w["memory_limit"] for w in workers.values() if w["memory_limit"]]
        default = int(_CACHE_SHARE * min(limits)) if limits else _CACHE_IN_PROCESS
        self.slots = max(1, sum(w["nthreads"] for w in workers.values()))
        self.cache_bytes = _configured_cache(default)
        self._workers = sorted(workers)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        if self._client.status == "running":
            self._client.run(worker.forget, on_error="ignore")

    def run(
        self, name: str, function: Callable[..., Result], tasks: Sequence[tuple[Any, ...]],
        *, pinned: bool = False,
    ) -> Iterator[Result]:  # fmt: skip
        """Yield the results as they come, in any order."""
        from distributed import as_completed

        self._round += 1
        futures = []
        for position, task in enumerate(tasks):
            pin = pinned and len(self._workers) > 0
            where = self._workers[position % len(self._workers)] if pin else None
            futures.append(self._client.submit(
                worker.with_one_blas_thread, function, *task,
                key=f"{name}-{self._run}-{self._round}-{position}",
                pure=False, workers=where, allow_other_workers=pin,
            ))  # fmt: skip
        try:
            for _, result in as_completed(futures, loop=self._client.loop, with_results=True):
                yield result
        finally:
            for future in futures:
                future.release()


def _configured_cache(default: int) -> int:
    return int(dask.config.get("dsoftmax.cache", default))


class _SharedBlasLimit:
    """One BLAS thread for as long as any fit of this process is under way.

    The limit belongs to the process: the first fit sets it and the last one lifts it, since
    a fit that ended while another ran would give that one its threads back.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._limit: Any = None

    def __enter__(self) -> None:
        with self._lock:
            if self._users == 0:
                self._limit = threadpool_limits(1)
            self._users += 1

    def __exit__(self) -> None:
        with self._lock:
            self._users -= 1
            if self._users == 0:
                self._limit.restore_original_limits()


_SINGLE_BLAS_THREAD = _SharedBlasLimit()
