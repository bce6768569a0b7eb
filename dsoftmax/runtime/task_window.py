"""The tasks of a reduction on a cluster: those that wait here, and those that are under way."""

from __future__ import annotations

import asyncio
import queue
import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import dask
from distributed import KilledWorker
from distributed.utils_comm import gather_from_workers

from dsoftmax.runtime.base import TaskKilledError
from dsoftmax.runtime.transfer import LARGE, MergePlan, PendingMerges, TaskCall, array_bytes
from dsoftmax.runtime.worker import run_task

_LONGEST = 600.0


class LateResultError(Exception):
    """A result that was there could not be fetched in time."""


NOT_YET = object()  # what there is of a task whose result is to be merged with others


class Backlog:
    """Calls that have not been submitted, by the worker that each is meant for."""

    def __init__(self, calls: Iterable[TaskCall]) -> None:
        self._waiting: dict[str | None, deque[TaskCall]] = {}
        for call in calls:
            self._waiting.setdefault(call.worker, deque()).append(call)

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def n_waiting(self, worker: str | None) -> int:
        """Return how many calls are meant for a worker."""
        return len(self._waiting.get(worker, ()))

    def next_for(self, worker: str | None, most: int) -> list[TaskCall]:
        """Return the next calls that are meant for a worker, at most so many."""
        own = self._waiting.get(worker, deque())
        found = [own.popleft() for _ in range(min(most, len(own)))]
        self._let_go_if_empty(worker)
        return found

    def steal_for(self, worker: str) -> TaskCall | None:
        """Return, for a worker, the last call of whoever has most left, if anyone has."""
        if not self._waiting:
            return None
        most = max(self._waiting, key=lambda name: len(self._waiting[name]))
        call = self._waiting[most].pop()
        self._let_go_if_empty(most)
        return call._replace(worker=worker)

    def _let_go_if_empty(self, worker: str | None) -> None:
        if not self._waiting.get(worker, True):
            del self._waiting[worker]


class Window:
    """The tasks that are under way.

    Parameters
    ----------
    client : distributed.Client
    function : what is called for each task
    prefix : of their keys
    merge_plan : how several results become one, if they do
    fetched : futures whose results have been fetched, let go of when more tasks are submitted

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
        self._groups = PendingMerges(merge_plan)
        self._calls: dict[Any, TaskCall] = {}
        self._held: Counter[str | None] = Counter()
        self._done: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._submitted = 0
        self._patience = 0.0  # seconds that a result may take to come here
        self.freed: str | None = None
        self.merges = False

    def __len__(self) -> int:
        return len(self._calls)

    def n_running(self, worker: str | None) -> int:
        """Return how many of them are meant for a worker."""
        return self._held[worker]

    def submit(self, calls: Sequence[TaskCall]) -> None:
        """Submit tasks; futures in them arrive there as their values.

        In one message: each would cost the scheduler five times as much by itself.
        """
        if calls:
            self._send(self._function, self._prefix, calls)

    def _send(self, function: Callable[..., Any], prefix: str, calls: Sequence[TaskCall]) -> None:
        first, self._submitted = self._submitted, self._submitted + len(calls)
        keys = [f"{prefix}-{number}" for number in range(first, self._submitted)]
        with _meant_for({key: call.worker for key, call in zip(keys, calls, strict=True)}):
            futures = self._client.map(
                run_task,
                [function] * len(calls),
                *map(list, zip(*(call.task for call in calls), strict=True)),
                key=keys,
                pure=False,
            )
        for future, call in zip(futures, calls, strict=True):
            self._held[call.worker] += 1
            self._calls[future] = call
            future.add_done_callback(self._done.put)
        release(self._fetched)

    def next_result(self, timeout: float) -> Any:
        """Return the result of a task that has ended; raise queue.Empty if none does in time.

        NOT_YET if it stays where it is until others are there, with which it is merged.
        """
        while True:
            future = self._done.get(timeout=timeout)
            if future not in self._calls:  # it was released, and submitted again
                continue
            if self.merges and self._stays(future):
                return NOT_YET
            meant_for, patience = self._calls[future].worker, max(self._patience, timeout)
            try:
                result = _fetched(self._client, future, meant_for, patience)
            except KilledWorker as error:
                raise self._killed(error) from error
            except LateResultError:
                self._put_back(future, timeout)
                raise queue.Empty from None
            self._groups.leave_out(self._removed(future))
            self._let_go_of(future, result)
            return result

    def _let_go_of(self, future: Any, result: Any) -> None:
        """Let go of what has been fetched, or sums would pile up on the workers until the end.

        A small one goes when the next tasks have been sent: the scheduler does not write to a
        worker twice within 5 ms, and its word to forget a result would hold up the next task.
        """
        self._fetched.append(future)
        if array_bytes(result) >= LARGE:
            release(self._fetched)

    def raise_if_given_up(self) -> None:
        """Raise TaskKilledError if Dask has given up a task whose turn has not come here."""
        if given_up := self._given_up():
            _, error = given_up[0]
            raise self._killed(error) from error

    def _killed(self, error: KilledWorker) -> TaskKilledError:
        """Return which tasks a worker ran when it died, after which Dask gave up some.

        Dask blames all that the worker had been given. It runs what came first, in each thread one.
        """
        self._client.sync(asyncio.sleep, 0)  # the news of all that died with it come together
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

    def _stays(self, future: Any) -> bool:
        """Keep a result that is to be merged, and have that done if it was the last of its group.

        One that has died with its worker since is computed anew. An error is none, and nor is what
        has been merged.
        """
        call = self._calls[future]
        if call.parts or not self._groups.has(call) or future.status in ("error", "cancelled"):
            return False
        if future.status == "finished":
            self._merge_with(self._removed(future), future)
        else:
            self._submit_anew(future)
        return True

    def _merge_with(self, call: TaskCall, future: Any) -> None:
        if (whole := self._groups.keep(call, future)) is not None:
            self._send(self._groups.function, f"merge-{self._prefix}", [whole])

    def _removed(self, future: Any) -> TaskCall:
        call = self._calls.pop(future)
        self._held[call.worker] -= 1
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

        Its worker has died with it. The scheduler has such a result computed once more, but not if
        the task was meant for that worker and no other was there just then.
        """
        if future.done():
            self._patience = min(2 * max(self._patience, timeout), _LONGEST)
            self._done.put(future)
        else:
            self._submit_anew(future)

    def _submit_anew(self, future: Any) -> None:
        """Submit its call once more, for any worker, with what it needs and is not there."""
        call = self._removed(future)
        future.release()
        results = call.task[0] if call.parts else [None]
        for part, result in zip(call.parts or [call], results, strict=True):
            for_anyone = part._replace(worker=None)
            if result is not None and result.status == "finished":
                self._merge_with(for_anyone, result)
            else:
                self.submit([for_anyone])

    def close(self) -> None:
        """Let go of what has not ended."""
        for future in self._calls:
            future.release()


def release(futures: list[Any]) -> None:
    """Let go of futures, and leave the list empty."""
    while futures:
        futures.pop().release()


def _address(error: KilledWorker) -> str:
    """Return the address of the last worker to die."""
    return str(getattr(error.last_worker, "address", error.last_worker))


def _meant_for(workers: Mapping[str, str | None]) -> Any:
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
    known = worker is not None and client.direct_to_workers and client.rpc.available.get(worker)
    if not known or future.status != "finished":
        return []
    found, *_ = client.sync(
        gather_from_workers, {future.key: [worker]}, rpc=client.rpc, callback_timeout=timeout
    )
    return list(found.values())
