"""Where tasks run: on the active Dask cluster, on the embedded one, or in this process.

All three run the same function on the same tasks; only `distributed.Client` reaches a
cluster. An executor is a context: leaving it cancels what is still running and drops
what workers have cached for the run.
"""

from __future__ import annotations

import errno
import socket
from typing import Any

from dask.system import CPU_COUNT

from dsoftmax.data.source import Source
from dsoftmax.errors import DataError, OutageError
from dsoftmax.runtime.base import Executor, inside_a_task
from dsoftmax.runtime.environment import require_same_versions
from dsoftmax.runtime.memory import Location, require_memory
from dsoftmax.runtime.threads import ThreadExecutor
from dsoftmax.runtime.working_set import Demand
from dsoftmax.storage.outages import TRANSIENT, fault_of
from dsoftmax.storage.urls import error_text

_LEAST = Demand()
_SMALL = 64 << 20  # decoded bytes up to which a lazy source is not worth a cluster


def executor_for(source: Source, demand: Demand = _LEAST, n_rows: int = 0) -> Executor:
    """Return where a source is best reduced: see the README, "Where it runs".

    Parameters
    ----------
    source : Source
    demand, n_rows : what its tasks hold beside the rows, and those of the largest span, as far as
        they are known

    Raises
    ------
    DataError, MemoryBoundError
        If the data are out of the workers' reach, or a chunk does not fit their memory.
    OutageError
        If the cluster has no worker, and none comes in the time for which one is waited for.
    """
    executor = _running(source, None)
    if executor is None:
        from dsoftmax.runtime.local_cluster import embedded_client

        require_memory(source, default_workers(), demand, n_rows)  # before they are started
        executor = _on_cluster(embedded_client(), source)
    require_memory(source, executor.location, demand, n_rows)
    return executor


def location_for(source: Source, client: Any = None) -> Location:
    """Return where a source would be reduced, and start no cluster for it.

    Raises
    ------
    DataError, MemoryBoundError, OutageError
        As `executor_for` would.
    """
    executor = _running(source, client)
    if executor is not None:
        return executor.location
    return default_workers()


def current_location(source: Source) -> Location:
    """Return where a source is being reduced, by a run that has started."""
    from dsoftmax.runtime.cluster import ClusterExecutor

    client = None if source.X.in_memory else active_client()
    return location_for(source) if client is None else ClusterExecutor(client).location


def location_of_workers(
    source: Source,
    n_workers: int | None = None,
    memory_limit: int | None = None,
    threads_per_worker: int = 1,
) -> Location:
    """Return where a source would be reduced on workers like these, and start none.

    The other parameters are those of `local_cluster`.

    Raises
    ------
    DataError
        If workers cannot read the data.
    """
    _require_portable(source)
    site = default_workers(n_workers, memory_limit, threads_per_worker)
    return site._replace(name="workers as given", who="a worker")


def default_workers(
    n_workers: int | None = None, memory_limit: int | None = None, threads_per_worker: int = 1
) -> Location:
    """Return the processes of a local cluster; the parameters are those of `local_cluster`."""
    from dsoftmax.runtime.local_cluster import default_memory_limit

    n_workers = n_workers or CPU_COUNT
    limit = default_memory_limit(n_workers) if memory_limit is None else memory_limit
    slots = n_workers * threads_per_worker
    who = "a worker of the local cluster"
    return Location("a local cluster", n_workers, slots, threads_per_worker, limit, who=who)


def _running(source: Source, client: Any) -> Executor | None:
    """Return this process or the active cluster; None where a local cluster is to be started."""
    if source.X.in_memory:
        return ThreadExecutor()
    client = client or active_client()
    if source.futures:
        _require_owner(source, client)
    if client is not None:
        _require_portable(source)
        return _on_cluster(client, source)
    return ThreadExecutor() if stays_in_process(source) else None


def _on_cluster(client: Any, source: Source) -> Executor:
    from dsoftmax.runtime.cluster import ClusterExecutor

    executor = ClusterExecutor(client)
    require_same_versions(client)
    _require_visible(client, source)
    return executor


def stays_in_process(source: Source) -> bool:
    """Whether this process reduces a source when there is no cluster, rather than start one."""
    small = source.n_samples * source.row_bytes <= _SMALL
    here = small or inside_a_task() or source.X.in_memory
    return here or not all(array.portable for array in source.arrays)


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


def _require_portable(source: Source) -> None:
    """Raise DataError if only this process can read the data."""
    from dsoftmax.data.dask_array import DaskArray

    for array in source.arrays:
        if array.portable:
            continue
        what, remedy = "is a store that is open in this process", "pass its path or URL, or "
        if isinstance(array, DaskArray):
            what, remedy = (
                "reads an HDF5 file that is open for writing",
                "open it with mode 'r', or ",
            )
        elif array.name.startswith("memory://"):
            what, remedy = "is in this process's memory", ""
        raise DataError(
            f"{array.name} {what}, which the workers of the active Dask client cannot read; "
            f"{remedy}store it in a folder or at a URL that they see"
        )


def _require_owner(source: Source, client: Any) -> None:
    """Raise DataError if a cluster holds blocks of the arrays, and it is not this client's."""
    for array in source.arrays:
        if any(future.client is not client for future in array.futures.values()):
            raise DataError(
                f"{array.name} is persisted on a Dask client that is not the active one: fit "
                "while that client is (`with client.as_current():`), or pass the array as it was "
                "before it was persisted"
            )


def _require_visible(client: Any, source: Source) -> None:
    """Raise an error if some worker cannot open the arrays, of which it reads the metadata."""
    for address, problem in client.run(_problem, source.part(0, 0), on_error="ignore").items():
        if problem is not None:
            host, text, is_outage = problem
            what = f"the data are not visible from the worker {address} on host {host}: {text}"
            if is_outage:
                raise OutageError(f"{what}; run this again when their storage answers there")
            raise DataError(
                f"{what}; use shared storage or a URL, with the credentials in the environment of "
                "every worker"
            )


def _problem(source: Source) -> tuple[str, str, bool] | None:
    """Return the host and the error of a worker that cannot open the arrays, if it may pass."""
    for array in source.arrays:
        try:
            array.require_visible()
        except Exception as error:
            # A store that is not there is most likely another machine's; a read would wait for it.
            is_there = getattr(error, "errno", None) != errno.ESTALE
            is_outage = is_there and fault_of(error) == TRANSIENT
            return socket.gethostname(), f"{array.name}: {error_text(error)}", is_outage
    return None
