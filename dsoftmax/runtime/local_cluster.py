"""The embedded cluster: single-threaded processes on loopback that end with their parent.

They speak TLS with a key of their own in a private folder: other users of the machine can reach
the ports, but nothing behind them. That is not so of the dashboard, to which Dask gives neither a
password nor a Unix socket: they can watch, unless the Dask setting `dsoftmax.dashboard` is false.

They are started by command, not by multiprocessing, which would run a script that has no main
guard once more in every worker.
"""

from __future__ import annotations

import asyncio
import atexit
import json
import logging
import os
import shutil
import signal
import sys
import tempfile
import threading
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import dask
from dask.system import CPU_COUNT
from distributed import Client, SpecCluster, Status
from distributed.compatibility import WINDOWS
from distributed.deploy.subprocess import Subprocess
from distributed.system import MEMORY_LIMIT
from distributed.utils import silence_logging_cmgr

from dsoftmax.errors import DsoftmaxError
from dsoftmax.runtime.environment import KEEP_MEMORY
from dsoftmax.runtime.tls import security_of, security_options, write_certificates

_START_SECONDS = 60
_LIFELINE = "dsoftmax.runtime.lifeline"
_ENVIRONMENT = {
    **KEEP_MEMORY,
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}
# Settings of Dask, unless the user has others in the environment.
_SETTINGS = {
    # The profiler looks at the stacks 100 times a second by default, for 3% of the time.
    "DASK_DISTRIBUTED__WORKER__PROFILE__INTERVAL": "100ms",
    # Each process looks 50 times a second whether its loop is late, and 10 times at its memory:
    # together 0.15 of a core, with two workers, when there is nothing to do.
    "DASK_DISTRIBUTED__ADMIN__TICK__INTERVAL": "500ms",
    "DASK_DISTRIBUTED__WORKER__MEMORY__MONITOR_INTERVAL": "200ms",
}
# Without the dashboard, nothing is served by HTTP: the logs would be, too.
_NO_PAGES = {
    "DASK_DISTRIBUTED__SCHEDULER__HTTP__ROUTES": "[]",
    "DASK_DISTRIBUTED__WORKER__HTTP__ROUTES": "[]",
}
_WORKER_SETTINGS = {
    # The profiler keeps what it has seen for each second of the last 1,000, at 50 kB a second.
    "DASK_DISTRIBUTED__WORKER__PROFILE__CYCLE": "10s",
    "DASK_DISTRIBUTED__ADMIN__LOW_LEVEL_LOG_LENGTH": "100",
}


class _Server(Subprocess):  # type: ignore[misc]  # distributed is untyped here
    """A Dask server in a process of its own, with the folder it writes to."""

    process: Process | None
    settings: Mapping[str, str] = _SETTINGS

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder
        self._no_pages = {} if dashboard_is_on() else _NO_PAGES
        self._lifeline = [str(os.getpid()), str(folder)]

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.returncode is None

    async def _spawn(self, cls: str, options: Mapping[str, object], *arguments: str) -> None:
        common = {
            "host": "127.0.0.1",
            "local_directory": str(self._folder),
            "security": security_options(self._folder),
        }
        spec = json.dumps({"cls": cls, "opts": {**common, **options}})
        command = [sys.executable, "-m", "distributed.cli.dask_spec", *arguments, "--spec", spec]
        with _log(self._folder).open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                *command,
                env={**self.settings, **os.environ, **_ENVIRONMENT, **self._no_pages},
                stdin=DEVNULL,
                stdout=log,
                stderr=log,
                # Out of the terminal's foreground group: the parent alone decides about Ctrl-C.
                start_new_session=True,
            )

    async def close(self) -> None:
        process, self.process = self.process, None
        if process is not None and process.returncode is None:
            with suppress(ProcessLookupError, PermissionError):  # it has just died by itself
                os.killpg(process.pid, signal.SIGKILL)  # takes a nanny's worker along
            await process.wait()
        await super().close()


class _Scheduler(_Server):
    """A scheduler and its dashboard."""

    async def _start(self) -> None:
        file = self._folder / "scheduler.json"
        options = {
            "scheduler_file": str(file),
            "dashboard": not self._no_pages,
            "dashboard_address": "127.0.0.1:0",
            "preload": _LIFELINE,
            "preload_argv": self._lifeline,
        }
        await self._spawn("distributed.Scheduler", options)
        async with asyncio.timeout(_START_SECONDS):
            self.address = await self._read_address(file)

    async def _read_address(self, file: Path) -> str:
        while self.alive:
            try:
                return str(json.loads(file.read_text())["address"])
            except (OSError, ValueError):  # not there yet, or half written
                await asyncio.sleep(0.02)
        raise RuntimeError(f"the scheduler ended at once\n{_log(self._folder).read_text()}")


class _Nanny(_Server):
    """A nanny, which starts its worker in one more process, and again when it dies."""

    settings = _SETTINGS | _WORKER_SETTINGS

    def __init__(self, scheduler: str, folder: Path, memory_limit: int | str, name: int) -> None:
        # `name` is not passed on: SpecCluster gives up a worker it knows by name after 15 seconds.
        super().__init__(folder)
        self._scheduler = scheduler
        self._memory_limit = memory_limit

    async def _start(self) -> None:
        options = {
            "nthreads": 1,
            "memory_limit": self._memory_limit,
            "preload_nanny": _LIFELINE,
            "preload_nanny_argv": self._lifeline,
        }
        await self._spawn("distributed.Nanny", options, self._scheduler)


def _log(folder: Path) -> Path:
    return folder / "log"


class _LocalCluster(SpecCluster):  # type: ignore[misc]
    """The servers, and the private folder that goes when they have gone.

    Attributes
    ----------
    has_dashboard : whether its dashboard is on
    """

    def __init__(self, n_workers: int, memory_limit: int | str) -> None:
        self.has_dashboard = dashboard_is_on()
        parent = dask.config.get("temporary-directory", None)
        self.folder = Path(tempfile.mkdtemp(prefix="dsoftmax-", dir=parent)).absolute()
        write_certificates(self.folder)
        options = {"folder": self.folder, "memory_limit": memory_limit}
        nanny = {"cls": _Nanny, "options": options}
        super().__init__(
            scheduler={"cls": _Scheduler, "options": {"folder": self.folder}},
            workers=dict.fromkeys(range(n_workers), nanny),
            worker=nanny,
            name="dsoftmax",
            security=security_of(self.folder),
            silence_logs=logging.WARNING,
            # `_close` ends the scheduler, and the lifeline what was never closed. Dask's own hook
            # at exit would also run in a forked child, and wait there for a loop that is not.
            shutdown_scheduler=False,
            shutdown_on_close=False,
        )

    @property
    def alive(self) -> bool:
        """Whether there is a scheduler, and anyone to do the work."""
        return self.scheduler.alive and any(nanny.alive for nanny in self.workers.values())

    async def _close(self) -> None:
        # Killed, not retired: that would first copy each worker's data to the others, and wait
        # half a minute for a scheduler that is dead.
        servers = [server for server in (*self.workers.values(), self.scheduler) if server]
        await asyncio.gather(*(server.close() for server in servers))
        await super()._close()
        shutil.rmtree(self.folder, ignore_errors=True)


def local_cluster(
    n_workers: int | None = None, memory_limit: int | str | None = None
) -> SpecCluster:
    """Start single-threaded worker processes on this machine.

    Parameters
    ----------
    n_workers : int, optional
        Number of workers; one a core by default.
    memory_limit : int or str, optional
        Memory of one worker, in bytes or as ``"4 GiB"``; by default the machine's, shared out
        equally.

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
    try:
        cluster = _LocalCluster(n_workers, memory_limit or default_memory_limit(n_workers))
    except RuntimeError as error:
        raise DsoftmaxError(f"cannot start a local cluster: {error}") from error
    try:
        cluster.wait_for_workers(n_workers, timeout=_START_SECONDS)
    except TimeoutError as error:
        log = _log(cluster.folder).read_text()
        cluster.close()
        raise DsoftmaxError(f"cannot start a local cluster: {error}\n{log}") from error
    except BaseException:
        cluster.close()
        raise
    return cluster


def dashboard_is_on() -> bool:
    """Whether a local cluster has a dashboard, as the Dask setting dsoftmax.dashboard says."""
    return bool(dask.config.get("dsoftmax.dashboard", True))


def default_memory_limit(n_workers: int) -> int:
    """Return the bytes that each of some workers gets: the machine's memory, shared out."""
    return int(MEMORY_LIMIT // n_workers)


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
    if client is not None:
        # Their threads have stayed behind: closing, which is also tried on deletion, would hang.
        client.status, client.cluster.status = "closed", Status.closed


if not WINDOWS:
    os.register_at_fork(after_in_child=_leave_to_parent)
