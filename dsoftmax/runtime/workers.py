"""What a cluster needs before a run: data that can travel, sight of them, and room for a chunk."""

from __future__ import annotations

import socket
from itertools import pairwise
from typing import Any

from dsoftmax.errors import DataError, MemoryBoundError
from dsoftmax.sources.base import Source

_COPIES_OF_SAMPLE = 3


def require_portable(source: Source) -> None:
    """Raise DataError if only this process can read the data."""
    for array in source.arrays:
        if not array.portable:
            raise DataError(
                f"{array.name} is an open store, or one in this process's memory, which the "
                "workers of the active Dask client cannot read; pass its path or URL, and store it "
                "in a folder or at a URL that they see"
            )


def require_owner(source: Source, client: Any) -> None:
    """Raise DataError unless blocks that a cluster holds are of this client."""
    for array in source.arrays:
        if any(future.client is not client for future in array.futures.values()):
            raise DataError(
                f"{array.name} is persisted on a Dask client that is not the active one: fit "
                "while that client is (`with client.as_current():`), or pass the array as it was "
                "before it was persisted"
            )


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


def require_visible(client: Any, source: Source) -> None:
    """Raise DataError if some worker cannot open the arrays, having opened their metadata."""
    for address, problem in client.run(_problem, source.part(0, 0), on_error="ignore").items():
        if problem is not None:
            host, text = problem
            raise DataError(
                f"the data are not visible from the worker {address} on host {host}: {text}; use "
                "shared storage or a URL, with the credentials in the environment of every worker"
            )


def _problem(source: Source) -> tuple[str, str] | None:
    for array in source.arrays:
        try:
            array.require_visible()
        except Exception as error:
            return socket.gethostname(), f"{array.name}: {type(error).__name__}: {error}"
    return None


def _mib(size: int) -> str:
    return f"{size / 2**20:,.0f} MiB"
