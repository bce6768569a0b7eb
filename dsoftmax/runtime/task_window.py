"""Queued and submitted Dask tasks: those lost with a worker are submitted again.

A task that kills its workers again and again (Dask's KilledWorker) ends the reduction.
"""

from __future__ import annotations

import asyncio
import queue
import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import dask
from distributed import KilledWorker
from distributed.utils_comm import gather_from_workers

from dsoftmax.errors import DataError
from dsoftmax.runtime.base import TaskKilledError
from dsoftmax.runtime.transfer import LARGE, MergePlan, PendingMerges, TaskCall, array_bytes
from dsoftmax.runtime.worker import run_task

_LONGEST_WAIT = 600.0  # seconds for one result, from which on the wait is not made longer


class LateResultError(Exception):
    """A result that a worker has could not be fetched in time."""


NOT_YET = object()  # in place of a result that is to be merged with others


class Backlog:
    """Calls that have not been submitted, by the worker that each is meant for."""

    def __init__(self, calls: Iterable[TaskCall]) -> None:
        self._waiting: dict[str | None, deque[TaskCall]] = {}
        for call in calls:
            self._waiting.setdefault(call.worker, deque()).append(call)

    def __bool__(self) -> bool:
        return any(self._waiting.values())

    def n_waiting(self, worker: str | None) -> int:
        """Return how many calls are meant for a worker."""
        return len(self._waiting.get(worker, ()))

    def next_for(self, worker: str | None, most: int) -> list[TaskCall]:
        """Return the next calls that are meant for a worker, at most so many."""
        waiting = self._waiting.get(worker, deque())
        return [waiting.popleft() for _ in range(min(most, len(waiting)))]

    def steal_for(self, worker: str) -> TaskCall | None:
        """Return, for a worker, the last call of whoever has most left, if anyone has."""
        if not self:
            return None
        longest = max(self._waiting.values(), key=len)
        return longest.pop()._replace(worker=worker)


class SubmittedTasks:
    """The tasks that are submitted and whose results have not been fetched.

    Parameters
    ----------
    client : distributed.Client
    function : what is called for each task
    prefix : of their keys
    merge_plan : how several results become one, if they do
    fetched : futures whose results have been fetched; released when more tasks are submitted

    Attributes
    ----------
    freed : the worker that the last task to end was meant for, or None
    merges : whether results are merged before they are fetched
    """

    def __init__(
        self,
        client: Any,
        function: Callable[..., Any],
        prefix: str,
        merge_plan: MergePlan | None = None,
        fetched: list[Any] | None = None,
    ) -> None:
        self._client, self._function, self._prefix = client, function, prefix
        self._fetched = [] if fetched is None else fetched
        self._pending = PendingMerges(merge_plan)
        self._calls: dict[Any, TaskCall] = {}
        self._n_running: Counter[str | None] = Counter()
        self._done: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._n_submitted = 0
        self._fetch_timeout = 0.0  # longer each time that a result comes too late
        self.freed: str | None = None
        self.merges = False

    def __len__(self) -> int:
        return len(self._calls)

    def n_running(self, worker: str | None) -> int:
        """Return how many of them are meant for a worker."""
        return self._n_running[worker]

    def submit(self, calls: Sequence[TaskCall]) -> None:
        """Submit tasks; futures in them arrive there as their values.

        In one message: each would cost the scheduler five times as much by itself.
        """
        if calls:
            self._send(self._function, self._prefix, calls)

    def _send(self, function: Callable[..., Any], prefix: str, calls: Sequence[TaskCall]) -> None:
        first, self._n_submitted = self._n_submitted, self._n_submitted + len(calls)
        keys = [f"{prefix}-{number}" for number in range(first, self._n_submitted)]
        workers = {key: call.worker for key, call in zip(keys, calls, strict=True)}
        with _pinned(workers), _sendable():
            futures = self._client.map(
                run_task,
                [function] * len(calls),
                *map(list, zip(*(call.task for call in calls), strict=True)),
                key=keys,
                pure=False,
            )
        for future, call in zip(futures, calls, strict=True):
            self._n_running[call.worker] += 1
            self._calls[future] = call
            future.add_done_callback(self._done.put)
        release(self._fetched)

    def next_result(self, timeout: float) -> Any:
        """Return the result of a task that has ended; raise queue.Empty if none does in time.

        NOT_YET if it stays on its worker until the others are there with which it is merged.
        """
        while True:
            future = self._done.get(timeout=timeout)
            if future not in self._calls:  # it was released, and submitted again
                continue
            if self.merges and self._keep_to_merge(future):
                return NOT_YET
            worker, fetch_timeout = self._calls[future].worker, max(self._fetch_timeout, timeout)
            try:
                result = _fetched(self._client, future, worker, fetch_timeout)
            except KilledWorker as error:
                raise self._killed(error) from error
            except LateResultError:
                self._put_back(future, timeout)
                raise queue.Empty from None
            self._pending.leave_out(self._removed(future))
            # Small results are released with the next tasks: the scheduler does not write to a
            # worker twice within 5 ms, and a message to forget one would hold up the next task.
            # Large ones would pile up on the workers until then.
            self._fetched.append(future)
            if array_bytes(result) >= LARGE:
                release(self._fetched)
            return result

    def raise_if_given_up(self) -> None:
        """Raise TaskKilledError if Dask has given up any of the tasks."""
        for _, error in self._given_up():
            raise self._killed(error) from error

    def _killed(self, error: KilledWorker) -> TaskKilledError:
        """Return the error of the tasks that a worker ran when it died.

        Dask blames all tasks that the worker had been given. It runs the first of them, one a
        thread.
        """
        self._client.sync(asyncio.sleep, 0)  # lets the client hear of all tasks that died with it
        lost = _address(error)
        blamed = [position for position, other in self._given_up() if _address(other) == lost]
        running = blamed[: getattr(error.last_worker, "nthreads", 1)]
        return TaskKilledError(running, f"the last was {lost}")

    def _given_up(self) -> list[tuple[int, KilledWorker]]:
        return [
            (call.position, error)
            for future, call in self._calls.items()
            if future.status == "error" and isinstance(error := future.exception(), KilledWorker)
        ]

    def _keep_to_merge(self, future: Any) -> bool:
        """Leave a result on its worker, and merge its group if it was the last one of it.

        Return False for what is to be fetched: errors, and results that are merged already. A
        result that has died with its worker is computed anew.
        """
        call = self._calls[future]
        if call.parts or not self._pending.has(call) or future.status in ("error", "cancelled"):
            return False
        if future.status == "finished":
            self._merge_with(self._removed(future), future)
        else:
            self._submit_anew(future)
        return True

    def _merge_with(self, call: TaskCall, future: Any) -> None:
        if (merge := self._pending.keep(call, future)) is not None:
            self._send(self._pending.function, f"merge-{self._prefix}", [merge])

    def _removed(self, future: Any) -> TaskCall:
        call = self._calls.pop(future)
        self._n_running[call.worker] -= 1
        self.freed = call.worker
        return call

    def unpin_from_all_but(self, workers: Collection[str]) -> None:
        """Submit anew what is meant for workers that have gone.

        Another worker may take such a task, but the scheduler forgets to look for one if there
        was none at all when the task came.
        """
        for future, call in list(self._calls.items()):
            if not call.workers.issubset(workers) and not future.done():
                self._submit_anew(future)

    def _put_back(self, future: Any, timeout: float) -> None:
        """Wait longer for a result that is still there; submit one that is lost anew.

        Its worker has died with it. The scheduler computes such a result once more, but not if the
        task was meant for that worker and no other was there just then.
        """
        if future.done():
            self._fetch_timeout = min(2 * max(self._fetch_timeout, timeout), _LONGEST_WAIT)
            self._done.put(future)
        else:
            self._submit_anew(future)

    def _submit_anew(self, future: Any) -> None:
        """Submit a call once more, for any worker, and with it the results that it needs."""
        call = self._removed(future)
        future.release()
        results = call.task[0] if call.parts else [None]
        for part, result in zip(call.parts or [call], results, strict=True):
            unpinned = part._replace(worker=None)
            if result is not None and result.status == "finished":
                self._merge_with(unpinned, result)
            else:
                self.submit([unpinned])

    def close(self) -> None:
        """Cancel what has not ended."""
        for future in self._calls:
            future.release()


def release(futures: list[Any]) -> None:
    """Release futures, and leave the list empty."""
    while futures:
        futures.pop().release()


def _address(error: KilledWorker) -> str:
    """Return the address of the last worker to die."""
    return str(getattr(error.last_worker, "address", error.last_worker))


@contextmanager
def _sendable() -> Iterator[None]:
    """Say what to do about data that cannot be pickled."""
    try:
        yield
    except TypeError as error:
        if "serialize" not in str(error):
            raise
        raise DataError(
            "the data cannot be sent to the workers, since they hold what cannot be pickled, such "
            f"as an open file, a lock or a connection ({error.__cause__}): open it "
            "inside of the function that reads a block, or store the array with to_zarr"
        ) from error


def _pinned(workers: Mapping[str, str | None]) -> Any:
    """Have tasks run on the workers that are named, or on others if those are busy or gone."""
    if not any(workers.values()):
        return nullcontext()
    named = {key: [] if name is None else [name] for key, name in workers.items()}
    return dask.annotate(workers=named.__getitem__, allow_other_workers=True)


def _fetched(client: Any, future: Any, worker: str | None, timeout: float) -> Any:
    """Return the result of a future, which is most likely on a worker.

    Raises
    ------
    LateResultError
        If it is not here in time.
    """
    started = time.monotonic()
    try:
        for result in _held_by(client, worker, future, timeout):
            return result
        return future.result(timeout)
    except TimeoutError as error:
        if future.status == "error" or time.monotonic() - started < 0.9 * timeout:
            raise  # the task's own, or of the connection
        raise LateResultError from error


def _held_by(client: Any, worker: str | None, future: Any, timeout: float) -> list[Any]:
    """Return a result if a worker has it, and the client may ask it and is connected to it.

    Dask would ask the scheduler first who has it, which is a third of the way there and back. It
    would also wait for a worker that has died, if there were no connection.
    """
    is_connected = client.direct_to_workers and client.rpc.available.get(worker)
    if not is_connected or future.status != "finished":
        return []
    results, *_ = client.sync(
        gather_from_workers, {future.key: [worker]}, rpc=client.rpc, callback_timeout=timeout
    )
    return list(results.values())
