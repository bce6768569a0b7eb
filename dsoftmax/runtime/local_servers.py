"""The processes of a local cluster: a scheduler, and nannies with a worker each."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sys
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import dask
from distributed.deploy.subprocess import Subprocess

from dsoftmax.runtime.environment import KEEP_MEMORY
from dsoftmax.runtime.tls import security_options

START_SECONDS = 60
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

started: dict[Path, list[Process]] = {}  # processes by the folder of their cluster


class Server(Subprocess):  # type: ignore[misc]  # distributed is untyped here
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
        """Whether the process runs."""
        return self.process is not None and self.process.returncode is None

    async def _spawn(self, cls: str, options: Mapping[str, object], *arguments: str) -> None:
        common = {
            "host": "127.0.0.1",
            "local_directory": str(self._folder),
            "security": security_options(self._folder),
        }
        spec = json.dumps({"cls": cls, "opts": {**common, **options}})
        command = [sys.executable, "-m", "distributed.cli.dask_spec", *arguments, "--spec", spec]
        with log_of(self._folder).open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                *command,
                env={**self.settings, **os.environ, **_ENVIRONMENT, **self._no_pages},
                stdin=DEVNULL,
                stdout=log,
                stderr=log,
                # Out of the terminal's foreground group: the parent alone decides about Ctrl-C.
                start_new_session=True,
            )
        started.setdefault(self._folder, []).append(self.process)
        if not self._folder.exists():  # killed meanwhile
            _kill(self.process)

    async def close(self) -> None:
        """Kill the process, and wait for its end."""
        process, self.process = self.process, None
        if process is not None:
            _kill(process)
            await process.wait()
        await super().close()


def _kill(process: Process) -> None:
    if process.returncode is None:
        with suppress(ProcessLookupError, PermissionError):  # it has just died by itself
            os.killpg(process.pid, signal.SIGKILL)  # takes a nanny's worker along


def kill_all(folder: Path) -> None:
    """Kill the processes of a cluster, also of one that is half started or half closed."""
    shutil.rmtree(folder, ignore_errors=True)  # first: without it, no more are started
    for process in started.pop(folder, ()):
        _kill(process)
    shutil.rmtree(folder, ignore_errors=True)


class LocalScheduler(Server):
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
        async with asyncio.timeout(START_SECONDS):
            self.address = await self._read_address(file)

    async def _read_address(self, file: Path) -> str:
        while self.alive:
            try:
                return str(json.loads(file.read_text())["address"])
            except (OSError, ValueError):  # not there yet, or half written
                await asyncio.sleep(0.02)
        raise RuntimeError(f"the scheduler ended at once\n{log_of(self._folder).read_text()}")


class LocalNanny(Server):
    """A nanny, which starts its worker in one more process, and again when it dies."""

    settings = _SETTINGS | _WORKER_SETTINGS

    def __init__(
        self, scheduler: str, folder: Path, memory_limit: int | str, threads: int, name: int
    ) -> None:
        # `name` is not passed on: SpecCluster gives up a worker it knows by name after 15 seconds.
        super().__init__(folder)
        self._scheduler = scheduler
        self._memory_limit, self._threads = memory_limit, threads

    async def _start(self) -> None:
        options = {
            "nthreads": self._threads,
            "memory_limit": self._memory_limit,
            "preload_nanny": _LIFELINE,
            "preload_nanny_argv": self._lifeline,
        }
        await self._spawn("distributed.Nanny", options, self._scheduler)


def dashboard_is_on() -> bool:
    """Whether a local cluster has a dashboard, as the Dask setting dsoftmax.dashboard says."""
    return bool(dask.config.get("dsoftmax.dashboard", True))


def log_of(folder: Path) -> Path:
    """Return the file to which the processes of a cluster write."""
    return folder / "log"
