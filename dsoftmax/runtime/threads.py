"""Tasks on the threads of this process."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any, Self
from uuid import uuid4

import psutil
from dask.system import CPU_COUNT

from dsoftmax.runtime import environment, worker
from dsoftmax.runtime.base import Affinity, Result, inside_a_task
from dsoftmax.runtime.memory import THIS_PROCESS, Location, own_limit
from dsoftmax.runtime.transfer import MergePlan

_LATE_BYTES = 16 << 20  # of what this process imports, and starts, while it runs


class ThreadExecutor:
    """Threads of this process: one a core, one inside a Dask task, none for a single task."""

    def __init__(self) -> None:
        self.run_key = uuid4().hex
        self.slots = 1 if inside_a_task() else CPU_COUNT
        in_use = int(psutil.Process().memory_info().rss)
        self.location = Location(
            "threads of this process",
            1,
            self.slots,
            self.slots,
            own_limit(),
            process_bytes=in_use + _LATE_BYTES,
            who=THIS_PROCESS,
        )
        self.dashboard: str | None = None
        self.client = None
        self._pool: concurrent.futures.ThreadPoolExecutor | None = None

    def refresh(self) -> None:
        """Do nothing: the cores of this process stay."""

    def __enter__(self) -> Self:
        environment.limit_blas_threads()
        return self

    def __exit__(self, *error: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
        worker.forget(self.run_key)
        environment.restore_blas_threads()

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
        if len(tasks) == 1 or self.slots == 1:
            for task in tasks:
                yield function(*task, *shared)
            return
        if self._pool is None:
            self._pool = concurrent.futures.ThreadPoolExecutor(self.slots, "dsoftmax")
        calls = ((*task, *shared) for task in tasks)
        running = {self._pool.submit(function, *call) for call in islice(calls, 2 * self.slots)}
        try:
            while running:
                done, running = concurrent.futures.wait(
                    running, return_when=concurrent.futures.FIRST_COMPLETED
                )
                running |= {self._pool.submit(function, *call) for call in islice(calls, len(done))}
                while done:
                    yield done.pop().result()
        finally:
            for future in running:
                future.cancel()
