"""Runs tasks on the threads of this process."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from types import TracebackType
from typing import Any, Self
from uuid import uuid4

from dask.system import CPU_COUNT

from dsoftmax.data.source import Source
from dsoftmax.runtime import environment, loader
from dsoftmax.runtime.base import Affinity, Result, inside_a_task
from dsoftmax.runtime.memory import cache_room
from dsoftmax.runtime.transfer import MergePlan


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
        environment.borrow()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
        loader.forget(self.run_key)
        environment.give_back()

    def run(
        self,
        name: str,
        function: Callable[..., Result],
        tasks: Sequence[tuple[Any, ...]],
        *,
        shared: tuple[Any, ...] = (),
        affinities: Sequence[Affinity] = (),
        few: bool = False,
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
