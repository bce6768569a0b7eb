"""Tasks on the workers of a `distributed.Client`."""

from __future__ import annotations

import concurrent.futures
import queue
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from itertools import islice
from types import TracebackType
from typing import Any, Self
from uuid import uuid4

import dask
from dask.utils import parse_timedelta
from distributed import KilledWorker

from dsoftmax.errors import DsoftmaxError, OutageError
from dsoftmax.runtime import blas, worker
from dsoftmax.runtime.executors import (
    CACHE_IN_PROCESS,
    Result,
    TaskKilledError,
    configured_cache,
)

_CACHE_SHARE = 0.25  # of a worker's memory for the decoded spans of mini-batches
_SEVERAL = 8  # tasks a slot: enough to keep it busy, and few enough to hold points and sums
_FEW = 2  # tasks a slot: one that runs, and one whose blocks arrive meanwhile
_WATCH_SECONDS = 5


class ClusterExecutor:
    """The workers of a `distributed.Client`."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self.dashboard: str | None = client.dashboard_link or None
        self.run_key = uuid4().hex
        self._round = 0
        self._address = client.scheduler.address
        self.refresh()

    def refresh(self) -> None:
        """Look again at which workers there are; wait for one if there are none."""
        self._looked = time.monotonic()
        self._require_alive()
        workers = self._workers_now() or self._awaited()
        limits = [w["memory_limit"] for w in workers.values() if w["memory_limit"]]
        default = int(_CACHE_SHARE * min(limits)) if limits else CACHE_IN_PROCESS
        self.slots = max(1, sum(w["nthreads"] for w in workers.values()))
        self.cache_bytes = configured_cache(default)
        self._workers = sorted(workers)
        self.processes = max(1, len(workers))

    def _workers_now(self) -> dict[str, Any]:
        try:
            found: dict[str, Any] = self._client.scheduler_info(-1)["workers"]
        except (OSError, TimeoutError) as error:
            raise self._gone(str(error)) from error
        return found

    def _require_alive(self) -> None:
        if getattr(self._client.cluster, "alive", True) is False:
            raise DsoftmaxError(
                "the local cluster has died, its scheduler or all of its workers; they may have "
                "run out of memory: give the workers more, or store smaller chunks"
            )

    def _awaited(self) -> dict[str, Any]:
        """Return the workers that come within the time for which they are waited for.

        Raises
        ------
        OutageError
            If none comes.
        """
        seconds = parse_timedelta(dask.config.get("dsoftmax.worker-timeout", "5 minutes"))
        try:
            self._client.wait_for_workers(1, timeout=seconds)
        except TimeoutError:
            raise OutageError(
                f"the Dask cluster at {self._address} has had no worker for {seconds:.0f} "
                "seconds; start some, or wait longer with the Dask setting dsoftmax.worker-timeout"
            ) from None
        return self._workers_now()

    def _gone(self, what: str) -> OutageError:
        return OutageError(
            f"the Dask scheduler at {self._address} is gone ({what}); start it again and run this "
            "once more"
        )

    def __enter__(self) -> Self:
        blas.borrow()  # the solver computes here
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        blas.give_back()
        if self._client.status == "running":
            self._client.run(worker.forget, self.run_key, on_error="ignore")

    def run(
        self, name: str, function: Callable[..., Result], tasks: Sequence[tuple[Any, ...]],
        *, pinned: bool = False, few: bool = False,
    ) -> Iterator[Result]:  # fmt: skip
        """Yield the results as they come, in any order."""
        self._round += 1
        prefix = f"{name}-{self.run_key[:8]}-{self._round}"
        calls = iter(enumerate(tasks))
        done: queue.SimpleQueue[Any] = queue.SimpleQueue()
        under_way: dict[Any, int] = {}
        try:
            while True:
                room = (_FEW if few else _SEVERAL) * self.slots - len(under_way)
                for position, task in islice(calls, max(room, 0)):
                    future = self._submit(prefix, function, position, task, pinned)
                    under_way[future] = position
                    future.add_done_callback(done.put)
                if not under_way:
                    return
                future = self._next(done)
                result = self._result(future, under_way.pop(future))
                future.release()  # or sums would pile up on the workers until the end
                yield result
        finally:
            for future in under_way:
                future.release()

    def _next(self, done: queue.SimpleQueue[Any]) -> Any:
        """Return the next future that is done, as long as anyone is there to do it."""
        while True:
            if time.monotonic() - self._looked > _WATCH_SECONDS:
                self._look_around()
            with suppress(queue.Empty):
                return done.get(timeout=_WATCH_SECONDS)

    def _look_around(self) -> None:
        """Find out who has joined, to help with the pass, and whether anyone is left."""
        self._looked = time.monotonic()
        self._require_alive()
        if self._client.status == "running":  # else it is looking for its scheduler
            self.refresh()

    def _result(self, future: Any, position: int) -> Any:
        try:
            return future.result()
        except concurrent.futures.CancelledError as error:
            raise self._gone(f"and the task {future.key} with it") from error
        except KilledWorker as error:
            lost = getattr(error.last_worker, "address", error.last_worker)
            raise TaskKilledError(position, f"the last was {lost}") from error

    def _submit(
        self, prefix: str, function: Callable[..., Any], position: int, task: tuple[Any, ...],
        pinned: bool,
    ) -> Any:  # fmt: skip
        """Submit a task; futures in its dicts, lists and tuples arrive there as their values."""
        pin = pinned and len(self._workers) > 0
        where = self._workers[position % len(self._workers)] if pin else None
        return self._client.submit(
            worker.with_one_blas_thread, function, *task, key=f"{prefix}-{position}",
            pure=False, workers=where, allow_other_workers=pin,
        )  # fmt: skip
