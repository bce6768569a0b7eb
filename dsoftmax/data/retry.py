"""Retries of reads that fail, and which errors are worth one.

A *transient* error lies on the way to the data: a timeout, a reset connection, a busy server.
It is tried again. Any other error is *permanent*, a fault of the data: a chunk that cannot be
decoded, fails its checksum, or is not there. It is reported with the name of the chunk.
"""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, NamedTuple, Self

from dask import config
from dask.utils import parse_timedelta

from dsoftmax.errors import ChunkError, DsoftmaxError, MemoryBoundError, OutageError
from dsoftmax.storage.records import storable
from dsoftmax.storage.urls import error_text
from dsoftmax.typing import Array

_LONGEST_DELAY = 32.0  # seconds
_BUSY = {408, 425, 429}  # HTTP statuses below 500 that say: try again
# What sockets and network disks report while a server or a link is down, and what a process
# with too many open files (EMFILE, ENFILE) gets until other threads have closed theirs.
_ERRNOS = {
    errno.EAGAIN,
    errno.EBUSY,
    errno.ECONNABORTED,
    errno.ECONNREFUSED,
    errno.ECONNRESET,
    errno.EHOSTDOWN,
    errno.EHOSTUNREACH,
    errno.EINTR,
    errno.EMFILE,
    errno.ENETDOWN,
    errno.ENETRESET,
    errno.ENETUNREACH,
    errno.ENFILE,
    errno.ENOTCONN,
    errno.ESTALE,
    errno.ETIMEDOUT,
}
# No retry helps here, yet the data are not at fault: the user has to renew the credentials.
_DENIED = {401, 403}
_DENIED_NAMES = {"PermissionDeniedError", "UnauthenticatedError"}  # of obstore
# Transient errors of aiohttp, botocore, obstore, requests and urllib3.
_NAMES = {
    "ClientConnectionError",
    "ClientPayloadError",
    "ConnectTimeout",
    "ConnectTimeoutError",
    "ConnectionClosedError",
    "EndpointConnectionError",
    "FSTimeoutError",
    "GenericError",
    "IncompleteRead",
    "IncompleteReadError",
    "ProtocolError",
    "ReadTimeout",
    "ReadTimeoutError",
    "ResponseStreamingError",
    "ServerDisconnectedError",
    "ServerTimeoutError",
}


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
    ChunkError
        If it fails for any other reason.
    """
    for delay in (*_delays(retry_policy), None):
        try:
            return read()
        except (DsoftmaxError, ImportError):
            raise  # a fault of neither the store nor the data
        except MemoryError as error:
            raise MemoryBoundError(
                f"{name}: there is no memory for rows {start} to {stop - 1} ({error_text(error)}); "
                "give this process more, or write the array in smaller chunks"
            ) from error
        except Exception as error:
            what = f"{name}: rows {start} to {stop - 1} cannot be read"
            if is_denied(error):
                raise OutageError(
                    f"{what}: {error_text(error)}; renew the right to read it"
                ) from error
            if not is_transient(error):
                chunk = None
                with suppress(Exception):  # the store may fail to answer this, too
                    chunk = bad_chunk()
                what = what if chunk is None else f"{name}: {chunk} cannot be read"
                raise ChunkError(f"{what}: {error_text(error)}") from error
            if delay is None:
                raise OutageError(
                    f"{what}, after {retry_policy.retries} retries: {error_text(error)}; run this "
                    "again when its storage answers"
                ) from error
            _retries.value += 1
            time.sleep(delay)
    raise AssertionError("not reached")


def is_transient(error: BaseException) -> bool:
    """Whether an error, or one that caused it, is transient."""
    return any(_is_link_transient(link) for link in _chain(error))


def is_denied(error: BaseException) -> bool:
    """Whether an error, or one that caused it, is a missing permission, such as an old token."""
    return any(
        isinstance(link, PermissionError)
        or _status(link) in _DENIED
        or type(link).__name__ in _DENIED_NAMES
        for link in _chain(error)
    )


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _is_link_transient(error: BaseException) -> bool:
    if isinstance(error, TimeoutError | ConnectionError):
        return True
    if isinstance(error, OSError) and error.errno in _ERRNOS:
        return True
    status = _status(error)
    if status is not None:
        return status >= 500 or status in _BUSY
    # By name, since importing every client library for an `isinstance` would be slow.
    return any(kind.__name__ in _NAMES for kind in type(error).__mro__)


def _status(error: Any) -> int | None:
    """Return the HTTP status that an error carries, if it does."""
    response = getattr(error, "response", None)
    if isinstance(response, dict):  # botocore's
        response = response.get("ResponseMetadata", {})
        status = response.get("HTTPStatusCode")
    else:
        statuses = (getattr(error, name, None) for name in ("status", "code", "status_code"))
        status = next((value for value in statuses if isinstance(value, int)), None)
        status = getattr(response, "status_code", None) if status is None else status
    return status if isinstance(status, int) else None


def _delays(retry_policy: RetryPolicy) -> list[float]:
    return [min(retry_policy.delay * 2**i, _LONGEST_DELAY) for i in range(retry_policy.retries)]
