"""Where a fit would run, found out without starting anything."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import psutil
from dask.system import CPU_COUNT

from dsoftmax.runtime.cluster import ClusterExecutor
from dsoftmax.runtime.executors import active_client, stays_in_process
from dsoftmax.runtime.memory import PROCESS_BYTES
from dsoftmax.runtime.versions import require_same_versions
from dsoftmax.runtime.workers import (
    require_fit,
    require_owner,
    require_portable,
    require_room,
    require_visible,
)
from dsoftmax.sources.base import Source


@dataclass(frozen=True)
class Site:
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


def site_for(source: Source, client: Any = None) -> Site:
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
        return Site("threads of this process", 1, CPU_COUNT, CPU_COUNT, 0, now)
    from dsoftmax.runtime.local import default_memory_limit

    limit = default_memory_limit(CPU_COUNT)
    require_fit(source, limit, 1, "a worker of the local cluster")
    return Site("a local cluster", CPU_COUNT, CPU_COUNT, 1, limit)


def _cluster(client: Any) -> Site:
    """Return the workers that there are now, or the first to come if there is none."""
    executor = ClusterExecutor(client)
    workers = client.scheduler_info(-1)["workers"].values()
    limits = [worker["memory_limit"] for worker in workers if worker["memory_limit"]]
    return Site(
        f"the cluster at {client.scheduler.address}, as it is now", executor.processes,
        executor.slots, max((worker["nthreads"] for worker in workers), default=1),
        min(limits, default=0),
    )  # fmt: skip
