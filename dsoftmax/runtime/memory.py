"""What workers need to hold while they compute, and how much is left to remember data in."""

from __future__ import annotations

import dask
from dask.utils import parse_bytes

from dsoftmax.sources.base import Source

# Fitted to the peaks of workers of one thread, over dtypes, chunks of 1 to 200 MiB, and 10 to 1,000
# classes: how many copies of a span come together while it is read (compressed, decoded, in order,
# and what the allocator keeps of the last one), and of what is added up. Meant to be too much.
_COPIES_OF_SPAN = 5
_COPIES_OF_SUMS = 14
PROCESS_BYTES = 136 << 20  # of a worker, with all the libraries that a task imports
SPILL_SHARE = 0.6  # of its memory, from where on Dask writes a worker's results to its disk
_UNLIMITED = 1 << 30  # to remember, where a process has no limit


def sums_bytes(source: Source) -> int:
    """Return the size of a gradient over a source whose classes are known."""
    assert source.classes is not None, "the labels are scanned first"
    return 8 * (source.n_features + 1) * len(source.classes)


def working_set(span_bytes: int, sums_bytes: int, threads: int) -> int:
    """Return what a process takes, beyond itself, to reduce spans of a size, at most."""
    return threads * (_COPIES_OF_SPAN * span_bytes + _COPIES_OF_SUMS * sums_bytes)


def cache_room(limit: int, in_use: int, *, batch: bool) -> int:
    """Return the decoded bytes that a process may remember.

    Dask's setting `dsoftmax.cache`, or else what is left of its memory. Mini-batches, which are
    slow without, have a quarter of the memory at least.

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
    configured = dask.config.get("dsoftmax.cache", None)
    if configured is not None:
        return int(parse_bytes(configured))
    left = int(SPILL_SHARE * limit) - PROCESS_BYTES - in_use if limit else _UNLIMITED
    return max(left, limit // 4 if batch else 0)
