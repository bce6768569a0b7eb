"""What workers need to hold while they compute, and how much is left to remember data in."""

from __future__ import annotations

import dask
import psutil
from dask.utils import parse_bytes

from dsoftmax.errors import DataError
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
    if (configured := _configured()) is not None:
        return configured
    left = int(SPILL_SHARE * limit) - PROCESS_BYTES - in_use if limit else _UNLIMITED
    return max(left, limit // 4 if batch else 0)


def ceiling(limit: int) -> int:
    """Return the bytes that a process may have in all and still remember more; 0 for no bound.

    Workers may hold data of others.
    """
    return int(SPILL_SHARE * limit) if _configured() is None else 0


def below(most: int) -> bool:
    """Whether this process is below a ceiling."""
    return most == 0 or int(psutil.Process().memory_info().rss) <= most


def _configured() -> int | None:
    """Return Dask's setting.

    Raises
    ------
    DataError
        If it is not a number of bytes.
    """
    setting = dask.config.get("dsoftmax.cache", None)
    try:
        found = None if setting is None else int(parse_bytes(setting))
    except (AttributeError, TypeError, ValueError):
        found = -1
    if found is not None and found < 0:
        raise DataError(
            f"the Dask setting dsoftmax.cache is {setting!r}; expected bytes, such as 0 or '2 GiB'"
        )
    return found
