"""Retries of reads that fail.

What is transient is tried again (`storage.outages` tells what is). What is a fault of the data is
reported with the name of the chunk.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple, Self, TypeVar

from dask import config
from dask.utils import parse_timedelta

from dsoftmax.errors import ChunkError, DsoftmaxError, MemoryBoundError, OutageError
from dsoftmax.storage.credentials import public_errors
from dsoftmax.storage.outages import DENIED, PERMANENT, TRANSIENT, fault_of
from dsoftmax.storage.records import storable
from dsoftmax.storage.urls import error_text
from dsoftmax.typing import Array

Result = TypeVar("Result")

_LONGEST_DELAY = 32.0  # seconds
# An interruption is not among them: it is the user's, and ends what is under way.
_FAILURES = (Exception, BaseExceptionGroup, SystemExit, asyncio.CancelledError)


class RetryPolicy(NamedTuple):
    """How long a read that fails for a transient reason is tried again.

    Attributes
    ----------
    retries : how often
    delay : seconds before the first retry; each time it doubles, up to 32 s
    """

    retries: int = 7
    delay: float = 0.5

    @classmethod
    def configured(cls) -> Self:
        """Return what the Dask settings dsoftmax.read-retries and dsoftmax.retry-delay say."""
        default = cls()
        delay = config.get("dsoftmax.retry-delay", default.delay)
        retries = int(config.get("dsoftmax.read-retries", default.retries))
        return cls(retries, parse_timedelta(delay))


RETRY_POLICY = RetryPolicy()


@storable
class BadChunk(NamedTuple):
    """Rows that cannot be read: those of a chunk of X, and why."""

    start: int
    stop: int
    reason: str


class _Count(threading.local):
    value = 0


_retries = _Count()


def retries_here() -> int:
    """Return how often this thread has tried a read again, since it began."""
    return _retries.value


@public_errors()
def fetch(
    name: str,
    read: Callable[[], Array],
    start: int,
    stop: int,
    retry_policy: RetryPolicy,
    bad_chunk: Callable[[], str | None] = lambda: None,
) -> Array:
    """Return what a read returns; try again while its errors are transient.

    Parameters
    ----------
    name : of the array
    read : returns its rows start to stop
    retry_policy : RetryPolicy
    bad_chunk : returns which of their chunks cannot be read, for the message

    Raises
    ------
    MemoryBoundError
        If there is no memory for them.
    OutageError
        If it still fails for a transient reason, or the right to read is missing.
    DsoftmaxError
        If a package is missing here.
    ChunkError
        If it fails for any other reason.
    """
    what = f"{name}: rows {start} to {stop - 1} cannot be read"
    try:
        return patiently(what, read, retry_policy)
    except DsoftmaxError:
        raise
    except MemoryError as error:
        raise MemoryBoundError(
            f"{name}: there is no memory for rows {start} to {stop - 1} ({error_text(error)}); "
            "give this process more, or write the array in smaller chunks"
        ) from error
    except ImportError as error:
        raise DsoftmaxError(
            f"{what} here: {error_text(error)}; install it wherever rows are read"
        ) from error
    except _FAILURES as error:
        chunk = None
        with suppress(Exception):  # the store may fail to answer this, too
            chunk = bad_chunk()
        what = what if chunk is None else f"{name}: {chunk} cannot be read"
        raise ChunkError(f"{what}: {error_text(error)}") from error


def patiently(what: str, call: Callable[[], Result], retry_policy: RetryPolicy) -> Result:
    """Return what a call returns; try again while its errors are transient.

    Parameters
    ----------
    what : begins the message if it still fails: which rows of what cannot be read, say
    call : reads from a store, or writes to it
    retry_policy : RetryPolicy

    Raises
    ------
    OutageError
        If it still fails for a transient reason, or a right is missing. Other errors are those of
        the call.
    """
    for delay in (*_delays(retry_policy), None):
        try:
            return call()
        except (DsoftmaxError, MemoryError, ImportError):
            raise
        except _FAILURES as error:
            fault = fault_of(error)
            if fault == PERMANENT:
                raise
            if fault == DENIED:
                raise OutageError(
                    f"{what}: {error_text(error)}; renew the right to it (credentials, "
                    "certificate), and run this again"
                ) from error
            if delay is None:
                raise OutageError(
                    f"{what}, after {retry_policy.retries} retries: {error_text(error)}; run this "
                    "again when its storage answers"
                ) from error
            _retries.value += 1
            time.sleep(delay)
    raise AssertionError("not reached")


@contextmanager
def told_as_outages(what: str) -> Iterator[None]:
    """Raise a transient OSError as an OutageError, whose message begins with `what`."""
    try:
        yield
    except OSError as error:
        if fault_of(error) != TRANSIENT:
            raise
        raise OutageError(
            f"{what}: {error_text(error)}; run this again when its storage answers"
        ) from error


def _delays(retry_policy: RetryPolicy) -> list[float]:
    return [min(retry_policy.delay * 2**i, _LONGEST_DELAY) for i in range(retry_policy.retries)]
