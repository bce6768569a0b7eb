"""Which errors of storage pass, which need the user, and which are faults of the data."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import ssl
import sys
from collections.abc import Callable
from typing import Any

import aiohttp
import botocore.exceptions as boto
import pytest
from fsspec.exceptions import FSTimeoutError
from s3fs.errors import translate_boto_error

from dsoftmax.storage.outages import DENIED, PERMANENT, TRANSIENT, fault_of
from tests.driver_errors import answered, refused


def raised(function: Callable[[], Any]) -> BaseException:
    try:
        function()
    except BaseException as error:
        return error
    raise AssertionError


def caused(by: BaseException) -> Exception:
    error = RuntimeError("wrapped")
    error.__cause__ = by
    return error


class GenericError(Exception):
    """As of obstore, whose own cannot be made by hand."""


class HttpError(Exception):
    """As of gcsfs."""

    def __init__(self, code: int) -> None:
        self.code = code


class RetryError(Exception):
    """As of google.api_core, without a status."""


BY_FAULT: dict[str, list[BaseException]] = {
    TRANSIENT: [
        TimeoutError(),
        TimeoutError(),
        FSTimeoutError(),
        ConnectionResetError(),
        *(OSError(getattr(errno, name), "") for name in ("EIO", "ESTALE", "ENETDOWN", "ETIMEDOUT")),
        *(OSError(getattr(errno, name), "") for name in ("EHOSTDOWN", "ENOTCONN", "EREMOTEIO")),
        socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution"),
        caused(TimeoutError()),
        ExceptionGroup("many", [ValueError(), TimeoutError()]),
        *(answered(status) for status in (408, 425, 429, 500, 502, 503, 504)),
        aiohttp.ServerDisconnectedError(),
        aiohttp.ClientPayloadError(),
        refused("SlowDown", 503),
        refused("RequestTimeout", 400),
        translate_boto_error(refused("InternalError", 500)),
        boto.EndpointConnectionError(endpoint_url="http://host"),
        boto.ReadTimeoutError(endpoint_url="http://host"),
        boto.ConnectionClosedError(endpoint_url="http://host"),
        HttpError(503),
        RetryError("Timeout of 120.0s exceeded"),
        GenericError("Server returned non-2xx status code: 503 Service Unavailable: "),
        GenericError("error sending request"),
        asyncio.CancelledError(),
    ],
    DENIED: [
        PermissionError(errno.EACCES, "denied"),
        OSError(getattr(errno, "EKEYEXPIRED", errno.EACCES), "the ticket is too old"),
        answered(401),
        answered(403),
        caused(refused("AccessDenied", 403)),
        refused("ExpiredToken", 400),
        translate_boto_error(refused("ExpiredToken", 400)),
        translate_boto_error(refused("TokenRefreshRequired", 400)),
        boto.NoCredentialsError(),
        HttpError(403),
        GenericError("Server returned non-2xx status code: 400: <Code>ExpiredToken</Code>"),
        ssl.SSLCertVerificationError(1, "certificate verify failed: certificate has expired"),
    ],
    PERMANENT: [
        ValueError("checksum"),
        FileNotFoundError(errno.ENOENT, "no such file"),
        OSError("Forbidden or so"),
        OSError(errno.ENOSPC, "no space"),
        answered(404),
        answered(416),
        answered(501),
        refused("NoSuchKey", 404),
        # s3fs says EIO of each code that it does not know.
        translate_boto_error(refused("InvalidSomething", 400)),
        GenericError("Server returned non-2xx status code: 416 Range Not Satisfiable"),
        SystemExit(503),
        RecursionError(),
    ],
}


@pytest.mark.parametrize(
    ("fault", "error"),
    [(fault, error) for fault in BY_FAULT for error in BY_FAULT[fault]],
    ids=repr,
)
def test_each_library_s_errors_are_told_apart(fault: str, error: BaseException) -> None:
    assert fault_of(error) == fault
    assert fault_of(caused(error)) == fault


def test_a_context_that_was_dealt_with_does_not_decide() -> None:
    """Zarr looks for one file, which is not there, before it fails to read the next."""

    def read() -> None:
        try:
            raise answered(404)
        except aiohttp.ClientResponseError:
            raise answered(503)  # noqa: B904

    assert fault_of(raised(read)) == TRANSIENT


@pytest.mark.skipif(sys.platform != "linux", reason="a file of Linux")
def test_an_error_of_the_disk_itself_is_an_outage() -> None:
    # Reading a process's memory at address 0 is a real EIO, of the kernel's own making.
    with open("/proc/self/mem", "rb", buffering=0) as memory:
        error = raised(lambda: os.read(memory.fileno(), 1))
    assert isinstance(error, OSError)
    assert (error.errno, fault_of(error)) == (errno.EIO, TRANSIENT)
