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
    except DsoftmaxError:
        raise
    except Exception as error:
        for array in source.arrays:
            if any(block.status == "error" for block in array.futures.values()):
                kind = ChunkError if fault_of(error) == PERMANENT else OutageError
                raise kind(
                    f"{array.name}: a block that the cluster was to hold could not be computed: "
                    f"{error_text(error)}; persist it again"
                ) from error
        raise


def _rows(spans: Iterable[Span]) -> str:
    """Return spans for a message, those that touch as one."""
    runs: list[Span] = []
    for start, stop in sorted(set(spans)):
        if runs and runs[-1][1] == start:
            runs[-1] = runs[-1][0], stop
        else:
            runs.append((start, stop))
    return ", ".join(f"{start} to {stop - 1}" for start, stop in runs)
