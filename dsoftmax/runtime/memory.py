"""The memory of processes: its limits, whether a run fits, and how much is left to cache data."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import dask
from dask.utils import parse_bytes

from dsoftmax.data.source import Source
from dsoftmax.errors import DataError, MemoryBoundError
from dsoftmax.runtime.spans import cut_spans, most_rows
from dsoftmax.runtime.working_set import Demand, largest_chunk, libraries_bytes, working_set

_COPIES_OF_SAMPLE = 3  # while its blocks come together
PROCESS_BYTES = 100 << 20  # of a worker, with the libraries of a task and what Dask records
SPILL_SHARE = 0.6  # of its memory, from where on Dask writes a worker's results to its disk
PAUSE_SHARE = 0.8  # from where on a worker begins no task
_TERMINATE_SHARE = 0.95  # from where on a nanny ends its worker, by default
_LEAST_CHUNK = 1 << 16  # decoded bytes, below which chunks make a store slow
_NEARLY = 0.97  # of what may be used, since smaller chunks compress a little less
_UNLIMITED = 1 << 30  # to cache, where a process has no limit


class Location(NamedTuple):
    """The processes that run the tasks of a reduction.

    Attributes
    ----------
    name : for a sentence
    processes : number of processes
    slots : how many tasks run at once
    threads : those of the process that has least memory a thread
    memory_limit : what that one has, in bytes; 0 for no limit
    process_bytes : what each takes before it reads anything
    who : what has the limit, for a sentence
    """

    name: str
    processes: int
    slots: int
    threads: int
    memory_limit: int
    process_bytes: int = PROCESS_BYTES
    who: str = "each worker"

    @property
    def is_here(self) -> bool:
        """Whether it is this process, which Dask does not watch."""
        return self.who == THIS_PROCESS

    @property
    def usable(self) -> int:
        """The bytes that the process may take before it is ended; 0 for no limit."""
        share = 1.0 if self.is_here else _terminate_share()
        return int(share * self.memory_limit)


THIS_PROCESS = "this process"


def _terminate_share() -> float:
    share = dask.config.get("distributed.worker.memory.terminate", _TERMINATE_SHARE)
    return float(share) if share else 1.0


def own_limit() -> int:
    """Return the bytes of memory that this process may use: of the machine, or of its cgroup.

    Dask looks at the cgroup at the root only, which is that of a container. A batch system puts
    a job into one further down.
    """
    from distributed.system import MEMORY_LIMIT

    limits = _limits_of_cgroups(Path("/proc/self/cgroup"), Path("/sys/fs/cgroup"))
    return min(int(MEMORY_LIMIT), *limits, sys.maxsize)


def _limits_of_cgroups(own: Path, root: Path) -> Iterator[int]:
    """Yield the limits of the cgroups that this process is in, of both versions.

    Source: the kernel's Documentation/admin-guide/cgroup-v2.rst, and cgroup-v1/memory.rst.
    """
    try:
        lines = own.read_text().splitlines()
    except OSError:  # not Linux
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers not in ("", "memory"):
            continue
        folder, file = root / controllers, "memory.limit_in_bytes" if controllers else "memory.max"
        group = folder / path.lstrip("/")
        for each in (group, *group.parents):
            if not each.is_relative_to(folder):
                break
            try:
                text = (each / file).read_text().strip()
            except OSError:
                continue
            if text.isdecimal() and int(text) > 0:
                yield int(text)


def needed_bytes(
    source: Source, location: Location, n_rows: int, demand: Demand, chunk_rows: int = 0
) -> int:
    """Return what each process takes at most, without what it may cache.

    Parameters
    ----------
    source, location : Source, Location
    n_rows : of the largest span
    demand : what the tasks hold beside the rows
    chunk_rows : of a chunk of X, if it had others than it has
    """
    in_use = working_set(source, n_rows, location.threads, demand, chunk_rows)
    libraries = 0 if location.is_here else libraries_bytes(source)
    return location.process_bytes + libraries + in_use


def require_memory(source: Source, location: Location, demand: Demand, n_rows: int = 0) -> None:
    """Raise MemoryBoundError if a run takes more memory than its processes have.

    Parameters
    ----------
    source, location, demand : as of `needed_bytes`
    n_rows : of the largest span; by default of the largest chunk of X
    """
    n_rows, has = n_rows or largest_chunk(source), location.usable
    needs = needed_bytes(source, location, n_rows, demand)
    if not has or needs <= has:
        return
    used = "" if location.is_here else f", of which Dask lets it use {_mib(has)}"
    raise MemoryBoundError(
        f"{source.X.name} has chunks of {_mib(largest_chunk(source) * source.row_bytes)} decoded "
        f"(a chunk with all features of its rows), and to work on them {location.who} needs "
        f"{_mib(needs)} of memory for {location.threads} thread(s), and has "
        f"{_mib(location.memory_limit)}{used}; "
        + ", or ".join(_remedies(source, location, demand, n_rows, needs))
    )


def _remedies(
    source: Source, location: Location, demand: Demand, n_rows: int, needs: int
) -> Iterator[str]:
    """Yield what to do about too little memory, with numbers that suffice."""
    if location.is_here:
        yield f"run it where a process may take {_mib(needs)}"
    else:
        limit = -(-needs * location.memory_limit // max(location.usable, 1))
        yield f"give each worker {_mib(limit + (1 << 20))}"
    for threads in range(location.threads - 1, 0, -1):
        fewer = location._replace(threads=threads)
        if needed_bytes(source, fewer, n_rows, demand) <= location.usable:
            yield f"at most {threads} thread(s)"
            break
    if rows := _chunk_rows_that_fit(source, location, demand):
        yield f"store X in smaller chunks: of at most {rows:,} rows"


def _chunk_rows_that_fit(source: Source, location: Location, demand: Demand) -> int:
    """Return how many rows a chunk of X may have at most, about; 0 if smaller chunks do not help.

    Spans are put together from them, of no less than `cut_spans` takes.
    """
    if source.X.in_memory:
        return 0
    rows = largest_chunk(source) // 2
    while rows * source.row_bytes > _LEAST_CHUNK:
        n_rows = most_rows(cut_spans((0, *range(rows, 64 * rows, rows)), source.row_bytes))
        needs = needed_bytes(source, location, max(rows, n_rows), demand, rows)
        if needs <= _NEARLY * location.usable:
            return rows
        rows //= 2
    return 0


def sums_bytes(source: Source) -> int:
    """Return the size of a gradient over a source whose classes are known."""
    assert source.classes is not None, "the labels are scanned first"
    return 8 * (source.n_features + 1) * len(source.classes)


def cache_room(location: Location, needs: int, *, batch: bool) -> int:
    """Return the decoded bytes that a process may cache.

    Dask's setting `dsoftmax.cache`, or else what is left of its memory. Mini-batches, which are
    slow without a cache, have a quarter of the memory, as far as no worker is paused for it.

    Parameters
    ----------
    location : Location
    needs : bytes that the process takes without
    batch : whether for mini-batches

    Examples
    --------
    >>> worker = Location("a cluster", 1, 1, 1, memory_limit=1 << 30)
    >>> cache_room(worker, 200 << 20, batch=False) >> 20
    414
    """
    if (configured := _configured()) is not None:
        return configured
    limit = location.memory_limit
    if not limit:
        return _UNLIMITED
    left = max(int(SPILL_SHARE * limit) - needs, 0)
    if batch:
        share = 1.0 if location.is_here else PAUSE_SHARE
        left = max(left, min(limit // 4, int(share * limit) - needs))
    return min(left, _UNLIMITED) if location.is_here else left


def cache_room_for(source: Source, location: Location, n_rows: int, *, batch: bool) -> int:
    """Return the decoded bytes that each process may cache while it reduces spans of some rows."""
    n_classes = 2 if source.classes is None else len(source.classes)
    demand = Demand(sums_bytes(source), n_classes, shuffled=batch)
    return cache_room(location, needed_bytes(source, location, n_rows, demand), batch=batch)


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


def require_sample_fits(rows: int, row_bytes: int) -> None:
    """Raise MemoryBoundError if so many rows do not fit the memory of this process."""
    limit = own_limit()
    most = limit // (_COPIES_OF_SAMPLE * max(row_bytes, 1))
    if rows > most:
        raise MemoryBoundError(
            f"sample_size is {rows:,} rows of {row_bytes:,} bytes, which this process, with "
            f"{_mib(limit)} of memory, cannot hold {_COPIES_OF_SAMPLE} times, as happens "
            f"while they come together; set sample_size to at most {most:,}"
        )


def require_states_fit(n_models: int, state_bytes: int) -> None:
    """Raise MemoryBoundError if the states of so many models do not fit this process."""
    limit = own_limit()
    most = limit // state_bytes
    if n_models > most:
        raise MemoryBoundError(
            f"a search of {n_models:,} models, whose solvers remember {_mib(state_bytes)} each, "
            f"needs {_mib(n_models * state_bytes)}, and this process has {_mib(limit)} of "
            f"memory; try fewer alphas, l1_ratios or folds: at most {most:,} models"
        )


def _mib(size: int) -> str:
    return f"{size / 2**20:,.0f} MiB"
