"""The embedded cluster: processes on loopback that end with their parent.

They speak TLS with a key of their own in a private folder: other users of the machine can reach
the ports, but nothing behind them. That is not so of the dashboard, to which Dask gives neither a
password nor a Unix socket: they can watch, unless the Dask setting `dsoftmax.dashboard` is false.

They are started by command, not by multiprocessing, which would run a script that has no main
guard once more in every worker.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import tempfile
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import dask
from dask.system import CPU_COUNT
from distributed import Client, SpecCluster, Status
from distributed.compatibility import WINDOWS
from distributed.system import MEMORY_LIMIT
from distributed.utils import silence_logging_cmgr

from dsoftmax.errors import DsoftmaxError
from dsoftmax.runtime.local_servers import (
    START_SECONDS,
    LocalNanny,
    LocalScheduler,
    dashboard_is_on,
    kill_all,
    log_of,
    started,
)
from dsoftmax.runtime.memory import own_limit
from dsoftmax.runtime.tls import security_of, write_certificates


class _LocalCluster(SpecCluster):  # type: ignore[misc]
    """The servers, and the private folder that goes when they have gone.

    Attributes
    ----------
    has_dashboard : whether its dashboard is on
    """

    def __init__(self, folder: Path, n_workers: int, memory_limit: int | str, threads: int) -> None:
        self.has_dashboard = dashboard_is_on()
        self.folder = folder
        write_certificates(folder)
        options = {"folder": folder, "memory_limit": memory_limit, "threads": threads}
        nanny = {"cls": LocalNanny, "options": options}
        try:
            super().__init__(
                scheduler={"cls": LocalScheduler, "options": {"folder": folder}},
                workers=dict.fromkeys(range(n_workers), nanny),
                worker=nanny,
                name="dsoftmax",
                security=security_of(folder),
                silence_logs=logging.WARNING,
                # `_close` ends the scheduler, and the lifeline what was never closed. Dask's own
                # hook at exit would also run in a forked child, and wait there for a loop that is
                # not.
                shutdown_scheduler=False,
                shutdown_on_close=False,
            )
        except BaseException:
            self.status = Status.closed  # there is nothing to close but what is killed anyway
            raise

    @property
    def alive(self) -> bool:
        """Whether there is a scheduler, and anyone to do the work."""
        return self.scheduler.alive and any(nanny.alive for nanny in self.workers.values())

    def close(self, timeout: float | None = None) -> Any:
        """Stop the processes, at once if this is interrupted."""
        try:
            return super().close(timeout)
        except BaseException:
            kill_all(self.folder)
            raise

    async def _close(self) -> None:
        # Killed, not retired: that would first copy each worker's data to the others, and wait
        # half a minute for a scheduler that is dead.
        servers = [server for server in (*self.workers.values(), self.scheduler) if server]
        await asyncio.gather(*(server.close() for server in servers))
        await super()._close()
        kill_all(self.folder)


def local_cluster(
    n_workers: int | None = None,
    memory_limit: int | str | None = None,
    threads_per_worker: int = 1,
) -> SpecCluster:
    """Start worker processes on this machine.

    Parameters
    ----------
    n_workers : int, optional
        Number of workers; one a core by default.
    memory_limit : int or str, optional
        Memory of one worker, in bytes or as ``"4 GiB"``, 0 for no limit; by default the machine's,
        shared out equally.
    threads_per_worker : int
        Tasks that a worker runs at once.

    Returns
    -------
    SpecCluster
        The cluster with all its workers up. It listens on loopback only, to those who can read
        its private folder, and ends with this process however that ends.

    Raises
    ------
    DsoftmaxError
        If the processes cannot be started; always on Windows.
    """
    if WINDOWS:
        raise DsoftmaxError(
            "processes cannot be started on Windows; "
            "connect a distributed.Client or use in-memory arrays"
        )
    n_workers = n_workers or CPU_COUNT
    parent = dask.config.get("temporary-directory", None)
    folder = Path(tempfile.mkdtemp(prefix="dsoftmax-", dir=parent)).absolute()
    try:
        limit = default_memory_limit(n_workers) if memory_limit is None else memory_limit
        return _started_cluster(folder, n_workers, limit, threads_per_worker)
    except BaseException:
        kill_all(folder)
        raise


def _started_cluster(
    folder: Path, n_workers: int, memory_limit: int | str, threads: int
) -> SpecCluster:
    try:
        cluster = _LocalCluster(folder, n_workers, memory_limit, threads)
    except RuntimeError as error:
        raise DsoftmaxError(f"cannot start a local cluster: {error}") from error
    with ExitStack() as stack:
        stack.callback(cluster.close)
        try:
            cluster.wait_for_workers(n_workers, timeout=START_SECONDS)
        except TimeoutError as error:
            log = log_of(folder).read_text()
            raise DsoftmaxError(f"cannot start a local cluster: {error}\n{log}") from error
        stack.pop_all()
    return cluster


def default_memory_limit(n_workers: int) -> int:
    """Return the bytes that each of some workers gets: the machine's memory, shared out."""
    return int(min(MEMORY_LIMIT, own_limit()) // n_workers)


@atexit.register
def kill_local_clusters() -> None:
    """Kill all local clusters, those too whose start or end was interrupted."""
    for folder in list(started):
        kill_all(folder)


_lock = threading.RLock()
_client: Client | None = None


def embedded_client() -> Client:
    """Connect to the one cluster of this process, started when first needed and shared after.

    Returns
    -------
    Client
        A synchronous client, even inside a running event loop, and never Dask's default one.
    """
    global _client
    with _lock:
        if _client is None or _client.status != "running" or not _client.cluster.alive:
            close_embedded_cluster()
            _client = Client(local_cluster(), set_as_default=False, direct_to_workers=True)
        return _client


@atexit.register
def close_embedded_cluster() -> None:
    """Stop the cluster of `embedded_client`, if there is one."""
    global _client
    with _lock:
        client, _client = _client, None
        if client is not None:
            # A client that looks for a dead scheduler logs an error when it is told to stop.
            with silence_logging_cmgr(logging.CRITICAL):
                client.close()
            client.cluster.close()


def _leave_to_parent() -> None:
    """Leave the cluster to the parent of this forked process, which starts its own if needed."""
    global _lock, _client
    _lock = threading.RLock()
    client, _client = _client, None
    started.clear()
    if client is not None:
        # Their threads have stayed behind: closing, which is also tried on deletion, would hang.
        client.status, client.cluster.status = "closed", Status.closed


if not WINDOWS:
    os.register_at_fork(after_in_child=_leave_to_parent)
