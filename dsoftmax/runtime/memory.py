"""The memory of workers: what they need while they compute, and how much is left to cache data."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, NamedTuple

import dask
from dask.utils import parse_bytes

from dsoftmax.data.source import Source
from dsoftmax.errors import DataError, MemoryBoundError

# Fitted to the peaks of workers of one thread, over dtypes, chunks of 1 to 200 MiB, and 10 to 1,000
# classes: how many copies of a span come together while it is read (compressed, decoded, in order,
# and what the allocator keeps of the last one), and of what is added up. Meant to be too much.
_COPIES_OF_SPAN = 5
_COPIES_OF_SUMS = 14
_COPIES_OF_SAMPLE = 3  # while its blocks come together
PROCESS_BYTES = 136 << 20  # of a worker, with all the libraries that a task imports
SPILL_SHARE = 0.6  # of its memory, from where on Dask writes a worker's results to its disk
_UNLIMITED = 1 << 30  # to cache, where a process has no limit


class Location(NamedTuple):
    """The processes that run the tasks of a reduction.

    Attributes
    ----------
    name : for a sentence
    processes : number of processes
    slots : how many tasks run at once
    threads : the most that one process has
    memory_limit : the least that one process has, in bytes; 0 for no limit
    process_bytes : what each takes before it reads anything
    """

    name: str
    processes: int
    slots: int
    threads: int
    memory_limit: int
    process_bytes: int = PROCESS_BYTES


def sums_bytes(source: Source) -> int:
    """Return the size of a gradient over a source whose classes are known."""
    assert source.classes is not None, "the labels are scanned first"
    return 8 * (source.n_features + 1) * len(source.classes)


def working_set(span_bytes: int, sums_bytes: int, threads: int) -> int:
    """Return what a process takes, beyond itself, to reduce spans of a size, at most."""
    return threads * (_COPIES_OF_SPAN * span_bytes + _COPIES_OF_SUMS * sums_bytes)


def cache_room(limit: int, in_use: int, *, batch: bool) -> int:
    """Return the decoded bytes that a process may cache.

    Dask's setting `dsoftmax.cache`, or else what is left of its memory. Mini-batches, which are
    slow without a cache, have a quarter of the memory at least.

    Parameters
    ----------
    limit : of the memory of the process, in bytes; 0 for none
    in_use : its working set
    batch : whether for mini-batches

    Examples
    --------
    >>> cache_room(limit=1 << 30, in_use=100 << 20, batch=False) >> 20
    378
    """
    if (configured := _configured()) is not None:
        return configured
    left = int(SPILL_SHARE * limit) - PROCESS_BYTES - in_use if limit else _UNLIMITED
    return max(left, limit // 4 if batch else 0)


def cache_room_for(source: Source, location: Location, span_bytes: int, *, batch: bool) -> int:
    """Return the decoded bytes that each process may cache while it reduces such spans."""
    in_use = 0
    if location.memory_limit:
        in_use = working_set(span_bytes, sums_bytes(source), location.threads)
    return cache_room(location.memory_limit, in_use, batch=batch)


def ceiling(limit: int) -> int:
    """Return the bytes of a process from which it caches no more spans; 0 for no bound.

    Its memory is measured, since it may also hold what other programs have put on the cluster.
    """
    return int(SPILL_SHARE * limit) if _configured() is None else 0


def _configured() -> int | None:
    """Return Dask's setting.

    Raises
    ------
    DataError
        If it is not a number of bytes.
    """
    setting = dask.config.get("dsoftmax.cache", None)
    try:
        size = None if setting is None else int(parse_bytes(setting))
    except (AttributeError, TypeError, ValueError):
        size = -1
    if size is not None and size < 0:
        raise DataError(
            f"the Dask setting dsoftmax.cache is {setting!r}; expected bytes, such as 0 or '2 GiB'"
        )
    return size


def require_room(client: Any, source: Source) -> None:
    """Raise MemoryBoundError if a chunk of X does not fit the memory of some worker."""
    for address, info in client.scheduler_info(-1)["workers"].items():
        require_fit(source, info["memory_limit"] or 0, info["nthreads"], f"the worker {address}")


def require_fit(source: Source, limit: int, threads: int, who: str) -> None:
    """Raise MemoryBoundError if a chunk of X for each thread does not fit a limit, 0 for none."""
    largest = max(stop - start for start, stop in pairwise(source.chunks)) * source.row_bytes
    if limit and largest * threads > limit:
        raise MemoryBoundError(
            f"{source.X.name} has chunks of {_mib(largest)} decoded (a chunk with all features "
            f"of its rows), and {who} has {_mib(limit)} of memory for "
            f"{threads} thread(s), each with a chunk of its own; store X in smaller chunks, "
            "or give the workers more memory or fewer threads"
        )


def require_sample_fits(rows: int, row_bytes: int) -> None:
    """Raise MemoryBoundError if so many rows do not fit the memory of this process."""
    from distributed.system import MEMORY_LIMIT

    most = MEMORY_LIMIT // (_COPIES_OF_SAMPLE * max(row_bytes, 1))
    if rows > most:
        raise MemoryBoundError(
            f"sample_size is {rows:,} rows of {row_bytes:,} bytes, which this process, with "
            f"{_mib(MEMORY_LIMIT)} of memory, cannot hold {_COPIES_OF_SAMPLE} times, as happens "
            f"while they come together; set sample_size to at most {most:,}"
        )


def require_states_fit(n_models: int, state_bytes: int) -> None:
    """Raise MemoryBoundError if the states of so many models do not fit this process."""
    from distributed.system import MEMORY_LIMIT

    most = MEMORY_LIMIT // state_bytes
    if n_models > most:
        raise MemoryBoundError(
            f"a search of {n_models:,} models, whose solvers remember {_mib(state_bytes)} each, "
            f"needs {_mib(n_models * state_bytes)}, and this process has {_mib(MEMORY_LIMIT)} of "
            f"memory; try fewer alphas, l1_ratios or folds: at most {most:,} models"
        )


def _mib(size: int) -> str:
    return f"{size / 2**20:,.0f} MiB"
