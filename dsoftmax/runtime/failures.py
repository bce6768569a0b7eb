"""What is raised where tasks have failed for a reason that is not their own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from dsoftmax.data.source import Source
from dsoftmax.errors import ChunkError, DsoftmaxError, MemoryBoundError, OutageError
from dsoftmax.runtime.base import TaskKilledError
from dsoftmax.runtime.spans import Span
from dsoftmax.storage.outages import PERMANENT, fault_of
from dsoftmax.storage.urls import error_text


@contextmanager
def named_failures(source: Source, spans_of_tasks: Sequence[Sequence[Span]]) -> Iterator[None]:
    """Raise errors that say what has failed, where tasks of some spans run.

    Raises
    ------
    MemoryBoundError
        If a task has killed its workers again and again.
    DsoftmaxError
        If the scheduler or a worker lacks what is needed to unpickle a task.
    OutageError, ChunkError
        If blocks that a cluster holds (`client.persist`) have failed: their errors are those of
        the user's own functions and drivers.
    """
    try:
        yield
    except TaskKilledError as error:
        rows = _rows(span for position in error.positions for span in spans_of_tasks[position])
        raise MemoryBoundError(
            f"rows {rows} of {source.X.name} have killed every worker that read "
            f"them ({error}), most likely for want of memory: give the workers more, or store "
            "smaller chunks"
        ) from error
    except Exception as error:
        name, cause = _failed_block(source) or ("", error)
        missing = _missing_import(cause)
        if missing is not None:
            raise DsoftmaxError(
                f"the Dask cluster cannot unpickle what reads {name or source.X.name} "
                f"({error_text(missing)}): install it where the scheduler and the workers run, or "
                "define the function in the script itself"
            ) from cause
        if name:
            kind = ChunkError if fault_of(cause) == PERMANENT else OutageError
            raise kind(
                f"{name}: a block that the cluster was to hold could not be computed: "
                f"{error_text(cause)}; persist it again"
            ) from cause
        raise


def _failed_block(source: Source) -> tuple[str, Exception] | None:
    """Return the array and the error of a block that a cluster was to hold, if one has failed."""
    for array in source.arrays:
        for block in array.futures.values():
            if block.status == "error" and block.client.status == "running":
                return array.name, block.exception()
    return None


def _missing_import(error: BaseException) -> BaseException | None:
    """Return what a process lacks to unpickle a task, if it is that: Dask's own error hides it."""
    cause = error.__cause__
    of_graph = isinstance(error, RuntimeError) and "deserializ" in str(error)
    error = cause if of_graph and cause is not None else error
    return error if of_graph or isinstance(error, ImportError) else None


def _rows(spans: Iterable[Span]) -> str:
    """Return spans for a message, those that touch as one."""
    runs: list[Span] = []
    for start, stop in sorted(set(spans)):
        if runs and runs[-1][1] == start:
            runs[-1] = runs[-1][0], stop
        else:
            runs.append((start, stop))
    return ", ".join(f"{start} to {stop - 1}" for start, stop in runs)
