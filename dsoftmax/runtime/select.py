"""Where tasks run: on the active Dask cluster, on the embedded one, or in this process.

All three run the same function on the same tasks; only `distributed.Client` reaches a
cluster. An executor is a context: leaving it cancels what is still running and drops
what workers remember of the run.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import psutil
from dask.system import CPU_COUNT

from dsoftmax.data.source import Source
from dsoftmax.errors import DataError
from dsoftmax.runtime.base import Executor, inside_a_task
from dsoftmax.runtime.cluster import ClusterExecutor
from dsoftmax.runtime.environment import require_same_versions
from dsoftmax.runtime.memory import (
    PROCESS_BYTES,
    require_fit,
    require_owner,
    require_portable,
    require_room,
    require_visible,
)
from dsoftmax.runtime.threads import ThreadExecutor

_SMALL = 64 << 20  # decoded bytes up to which a lazy source is not worth a cluster


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
    from dsoftmax.runtime.local_cluster import embedded_client

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


@dataclass(frozen=True)
class Location:
    """Processes that compute.

    Attributes
    ----------
    name : for a sentence
    processes : how many there are
    slots : how many tasks run at once
    threads : the most that one process has
    memory_limit : the least that one process has, in bytes; 0 for no limit
    process_bytes : that each takes before it reads anything
    """

    name: str
    processes: int
    slots: int
    threads: int
    memory_limit: int
    process_bytes: int = PROCESS_BYTES


def location_for(source: Source, client: Any = None) -> Location:
    """Return where a source would be reduced, on a client's cluster or where a fit would go.

    Raises
    ------
    DataError, MemoryBoundError
        If the data are out of its workers' reach, or a chunk does not fit their memory.
    OutageError
        If the cluster has no worker, and none comes in the time for which a fit would wait.
    """
    client = client or active_client()
    if source.futures:
        require_owner(source, client)
    if client is not None and not source.X.in_memory:
        require_portable(source)
        site = _cluster(client)
        require_same_versions(client)
        require_room(client, source)
        require_visible(client, source)
        return site
    if stays_in_process(source):
        now = int(psutil.Process().memory_info().rss)
        return Location("threads of this process", 1, CPU_COUNT, CPU_COUNT, 0, now)
    from dsoftmax.runtime.local_cluster import default_memory_limit

    limit = default_memory_limit(CPU_COUNT)
    require_fit(source, limit, 1, "a worker of the local cluster")
    return Location("a local cluster", CPU_COUNT, CPU_COUNT, 1, limit)


def _cluster(client: Any) -> Location:
    """Return the workers that there are now, or the first to come if there is none."""
    executor = ClusterExecutor(client)
    workers = client.scheduler_info(-1)["workers"].values()
    limits = [worker["memory_limit"] for worker in workers if worker["memory_limit"]]
    return Location(
        f"the cluster at {client.scheduler.address}, as it is now",
        executor.processes,
        executor.slots,
        max((worker["nthreads"] for worker in workers), default=1),
        min(limits, default=0),
    )
