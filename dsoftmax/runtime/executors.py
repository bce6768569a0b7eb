"""Where tasks run: on the active Dask cluster, on the embedded one, or in this process.

All three run the same function on the same tasks; only `distributed.Client` reaches a
cluster. An executor is a context: leaving it cancels what is still running and drops
what workers remember of the run.
"""

from __future__ import annotations

import concurrent.futures
from collections.abc import Callable, Hashable, Iterator, Sequence
from itertools import islice
from types import TracebackType
from typing import Any, NamedTuple, Protocol, Self, TypeVar
from uuid import uuid4

from dask.system import CPU_COUNT

from dsoftmax.errors import DataError
from dsoftmax.runtime import blas, loading
from dsoftmax.runtime.groups import Merging
from dsoftmax.runtime.memory import cache_room
from dsoftmax.runtime.versions import require_same_versions
from dsoftmax.runtime.workers import (
    require_owner,
    require_portable,
    require_room,
    require_visible,
)
from dsoftmax.sources.base import Source

Result = TypeVar("Result")

_SMALL = 64 << 20  # decoded bytes up to which a lazy source is not worth a cluster


class TaskKilledError(Exception):
    """A task at one of some positions has killed so many workers that Dask has given it up."""

    def __init__(self, positions: Sequence[int], last: str) -> None:
        super().__init__(last)
        self.positions = positions


class Home(NamedTuple):
    """What brings tasks of the same rows to the same worker, time after time.

    Attributes
    ----------
    name : of the rows, and of what is remembered of them
    rows : how many they are
    """

    name: Hashable
    rows: int


class Executor(Protocol):
    """Runs one function on many tasks.

    Attributes
    ----------
    slots : how many tasks run at once
    processes : in how many processes they run
    memory_ceiling : bytes with which a process does not remember more, 0 for none
    dashboard : address of the Dask dashboard, if there is one
    client : of the cluster, or None in this process
    run_key : what workers remember is remembered under this name, until the end
    """

    run_key: str

    slots: int
    processes: int
    memory_ceiling: int
    dashboard: str | None
    client: Any

    def cache_room(self, source: Source, span_bytes: int, *, batch: bool) -> int:
        """Return the decoded bytes that a process may remember while it reduces such spans."""
        ...

    def refresh(self) -> None:
        """Look again at which workers there are."""
        ...

    def run(
        self, name: str, function: Callable[..., Result], tasks: Sequence[tuple[Any, ...]],
        *, shared: tuple[Any, ...] = (), homes: Sequence[Home] = (), few: bool = False,
        merging: Merging | None = None,
    ) -> Iterator[Result]:  # fmt: skip
        """Yield the results as they come, in any order.

        Parameters
        ----------
        name : what the dashboard shows
        function, tasks : what to call, and its first arguments for each task
        shared : its last arguments, of all tasks
        homes : of the tasks, if there is something on workers to come back to
        few : keep few tasks under way, since each brings blocks to its worker
        merging : how a cluster is to make few results of many, if they are large
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
    client = active_client()

    if source.futures:
        require_owner(source, client)
        return _on_cluster(client, source)
    if client is not None:
        require_portable(source)
        return _on_cluster(client, source)
    if stays_in_process(source):
        return ThreadExecutor()
    from dsoftmax.runtime.local import embedded_client

    return _on_cluster(embedded_client(), source)


def stays_in_process(source: Source) -> bool:
    """Whether this process reduces a source when there is no cluster, rather than start one."""
    small = source.n_samples * source.row_bytes <= _SMALL
    here = small or inside_a_task() or source.X.in_memory
    return here or not all(array.portable for array in source.arrays)


def _on_cluster(client: Any, source: Source) -> Executor:
    from dsoftmax.runtime.cluster import ClusterExecutor

    executor: Executor = ClusterExecutor(client)
    require_same_versions(client)
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


def active_client() -> Any:
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
        self.memory_ceiling = 0
        self.slots = 1 if inside_a_task() else CPU_COUNT
        self.dashboard: str | None = None
        self.client = None
        self._pool: concurrent.futures.ThreadPoolExecutor | None = None

    def cache_room(self, source: Source, span_bytes: int, *, batch: bool) -> int:
        """Return the decoded bytes that this process may remember."""
        return cache_room(0, 0, batch=batch)

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
        loading.forget(self.run_key)
        blas.give_back()

    def run(
        self, name: str, function: Callable[..., Result], tasks: Sequence[tuple[Any, ...]],
        *, shared: tuple[Any, ...] = (), homes: Sequence[Home] = (), few: bool = False,
        merging: Merging | None = None,
    ) -> Iterator[Result]:  # fmt: skip
        """Yield the results as they come, in any order."""
        if len(tasks) == 1 or self.slots == 1:
            for task in tasks:
                yield function(*task, *shared)
            return
        if self._pool is None:
            self._pool = concurrent.futures.ThreadPoolExecutor(self.slots, "dsoftmax")
        calls = ((*task, *shared) for task in tasks)
        under_way = {self._pool.submit(function, *call) for call in islice(calls, 2 * self.slots)}
        try:
            while under_way:
                done, under_way = concurrent.futures.wait(
                    under_way, return_when=concurrent.futures.FIRST_COMPLETED
                )
                under_way |= {
                    self._pool.submit(function, *call) for call in islice(calls, len(done))
                }
                while done:
                    yield done.pop().result()
        finally:
            for future in under_way:
                future.cancel()
