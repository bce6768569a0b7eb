"""The protocol of executors, on which reductions run, and the errors they raise."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from types import TracebackType
from typing import Any, NamedTuple, Protocol, Self, TypeVar

from dsoftmax.data.source import Source
from dsoftmax.runtime.transfer import MergePlan

Result = TypeVar("Result")


class TaskKilledError(Exception):
    """A task at one of some positions has killed so many workers that Dask has given it up."""

    def __init__(self, positions: Sequence[int], last: str) -> None:
        super().__init__(last)
        self.positions = positions


class Affinity(NamedTuple):
    """What brings tasks of the same rows to the same worker, time after time.

    Attributes
    ----------
    name : of the rows, and of what is remembered of them
    rows : how many they are
    """

    name: Hashable
    rows: int


class Executor(Protocol):
    """Runs one function on many tasks.

    Attributes
    ----------
    slots : how many tasks run at once
    processes : in how many processes they run
    memory_ceiling : bytes with which a process does not remember more, 0 for none
    dashboard : address of the Dask dashboard, if there is one
    client : of the cluster, or None in this process
    run_key : what workers remember is remembered under this name, until the end
    """

    run_key: str

    slots: int
    processes: int
    memory_ceiling: int
    dashboard: str | None
    client: Any

    def cache_room(self, source: Source, span_bytes: int, *, batch: bool) -> int:
        """Return the decoded bytes that a process may remember while it reduces such spans."""
        ...

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
        few: bool = False,
        merge_plan: MergePlan | None = None,
    ) -> Iterator[Result]:
        """Yield the results as they come, in any order.

        Parameters
        ----------
        name : what the dashboard shows
        function, tasks : what to call, and its first arguments for each task
        shared : its last arguments, of all tasks
        affinities : of the tasks, if there is something on workers to come back to
        few : keep few tasks under way, since each brings blocks to its worker
        merge_plan : how a cluster is to make few results of many, if they are large
        """
        ...

    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


def inside_a_task() -> bool:
    """Whether this code runs in a task on a Dask worker."""
    from distributed import get_worker

    try:
        get_worker()
    except ValueError:
        return False
    return True
