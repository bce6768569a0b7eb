"""The protocol of executors, on which reductions run, and what they share."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol, Self, TypeVar

from dsoftmax.runtime.memory import Location
from dsoftmax.runtime.transfer import MergePlan

Result = TypeVar("Result")


class TaskKilledError(Exception):
    """A task at one of some positions has killed so many workers that Dask has given it up."""

    def __init__(self, positions: Sequence[int], last: str) -> None:
        super().__init__(last)
        self.positions = positions


class Affinity(NamedTuple):
    """What brings tasks of the same rows to the same worker, pass after pass.

    Attributes
    ----------
    name : of the rows, and of what a worker has cached of them
    rows : number of rows
    """

    name: Hashable
    rows: int


class Executor(Protocol):
    """Runs one function on many tasks.

    Attributes
    ----------
    run_key : prefix of the names under which workers cache spans; they are dropped at the end
    slots : how many tasks run at once
    location : the processes and their memory, as `refresh` last saw them
    dashboard : address of the Dask dashboard, "" where it is off, None in this process
    client : of the cluster, or None in this process
    """

    run_key: str
    slots: int
    location: Location
    dashboard: str | None
    client: Any

    def refresh(self) -> None:
        """Look again at which workers there are."""
        ...

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
        """Yield the results as they come, in any order.

        Parameters
        ----------
        name : what the dashboard shows
        function, tasks : what to call, and its first arguments for each task
        shared : its last arguments, the same for all tasks
        affinities : of the tasks, if workers have something cached for them
        low_concurrency : submit few tasks at a time, since each brings blocks to its worker
        merge_plan : how workers merge large results before they are fetched
        """
        ...

    def __enter__(self) -> Self: ...
    def __exit__(self, *error: object) -> None: ...


def inside_a_task() -> bool:
    """Whether this code runs in a task on a Dask worker."""
    from distributed import get_worker

    try:
        get_worker()
    except ValueError:
        return False
    return True
