"""Which errors of a storage pass, which need the user, and which are faults of the data.

A *transient* error lies on the way to the data: a timeout, a reset connection, a busy server. A
*denied* one is a matter of permission: credentials or a certificate that are too old, say. Any
other is *permanent*: a chunk that cannot be decoded, fails its checksum, or is not there.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from typing import Any

TRANSIENT, DENIED, PERMANENT = "transient", "denied", "permanent"


def _numbers(*names: str) -> frozenset[int]:
    """Return error numbers by their names, as far as this system has them."""
    return frozenset(getattr(errno, name) for name in names if hasattr(errno, name))


# What sockets and network disks report while a server or a link is down, and what a process
# with too many open files (EMFILE, ENFILE) gets until other threads have closed theirs.
_LINK_ERRNOS = _numbers(
    *("EAGAIN", "EBUSY", "ECOMM", "ECONNABORTED", "ECONNREFUSED", "ECONNRESET", "EHOSTDOWN"),
    *("EHOSTUNREACH", "EINTR", "EMFILE", "ENETDOWN", "ENETRESET", "ENETUNREACH", "ENFILE"),
    *("ENOLINK", "ENONET", "ENOTCONN", "EREMOTEIO", "ESHUTDOWN", "ESTALE", "ETIME", "ETIMEDOUT"),
)
# Of network disks that want a Kerberos ticket.
_KEY_ERRNOS = _numbers("EKEYEXPIRED", "EKEYREJECTED", "EKEYREVOKED", "ENOKEY")
_BUSY = {408, 425, 429}  # HTTP statuses below 500 that say: try again
_NOT_IMPLEMENTED = 501
_MISSING_RIGHTS = {401, 403, 407}
# Codes of S3 that say more than the status with which they come, which is often 400.
_BUSY_CODES = re.compile(r"Timeout|Throttl|SlowDown|LimitExceeded|Unavailable|InternalError")
_OLD_CODES = re.compile(r"Expired|InvalidToken|TokenRefreshRequired|TooSkewed")
# Errors of aiohttp, asyncssh, Azure, botocore, Google, httpx, obstore, requests and urllib3. By
# name, since importing every client library for an `isinstance` would be slow.
_TRANSIENT_NAMES = {
    *("CancelledError", "ChunkedEncodingError", "ClientConnectionError", "ClientPayloadError"),
    *("ConnectTimeout", "ConnectTimeoutError", "ConnectionClosedError", "ConnectionError"),
    *("ConnectionLost", "CredentialRetrievalError", "EndpointConnectionError", "FSTimeoutError"),
    *("GenericError", "HTTPClientError", "IncompleteRead", "IncompleteReadError"),
    *("MaxRetryError", "MetadataRetrievalError", "NetworkError", "ProtocolError", "ReadTimeout"),
    *("ReadTimeoutError", "ResponseStreamingError", "RetryError", "SSLError"),
    *("ServerDisconnectedError", "ServerTimeoutError", "ServiceRequestError"),
    *("ServiceResponseError", "Timeout", "TimeoutException", "TransportError", "gaierror"),
}
_DENIED_NAMES = {
    *("ClientAuthenticationError", "CredentialUnavailableError", "DefaultCredentialsError"),
    *("NoCredentialsError", "PartialCredentialsError", "PermissionDeniedError", "RefreshError"),
    *("SSOTokenLoadError", "TokenRetrievalError", "UnauthenticatedError"),
    *("UnauthorizedSSOTokenError",),
}
_CERTIFICATE_NAMES = {"CertificateError", "SSLCertVerificationError"}


def fault_of(error: BaseException) -> str:
    """Return TRANSIENT, DENIED or PERMANENT.

    The outermost of an error and those that caused it decides that tells; EIO only if no other
    does, since drivers say it of what they do not know.
    """
    links = list(_chain(error))
    if any(_CERTIFICATE_NAMES & _names(link) for link in links):
        return DENIED  # libraries take it for a connection that failed
    told = next(filter(None, map(_fault_of_link, links)), None)
    if told is not None:
        return told
    # A dying disk says it as well, but NFS and Lustre do in passing.
    has_eio = any(isinstance(link, OSError) and link.errno == errno.EIO for link in links)
    return TRANSIENT if has_eio else PERMANENT


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    waiting = [error]
    while waiting:
        link = waiting.pop()
        if link is None or id(link) in seen:
            continue
        seen.add(id(link))
        yield link
        waiting.append(link.__cause__ or link.__context__)
        if isinstance(link, BaseExceptionGroup):
            waiting += reversed(link.exceptions)


def _names(error: BaseException) -> set[str]:
    return {kind.__name__ for kind in type(error).__mro__}


def _fault_of_link(error: BaseException) -> str | None:
    """Return what an error tells by itself, without those that caused it."""
    names = _names(error)
    code, status = _code_and_status(error, names)
    if _OLD_CODES.search(code):
        return DENIED
    if _BUSY_CODES.search(code):
        return TRANSIENT
    number = error.errno if isinstance(error, OSError) else None
    if isinstance(error, PermissionError) or status in _MISSING_RIGHTS or number in _KEY_ERRNOS:
        return DENIED
    if status is not None:
        is_busy = (status >= 500 and status != _NOT_IMPLEMENTED) or status in _BUSY
        return TRANSIENT if is_busy else PERMANENT
    if names & _DENIED_NAMES:
        return DENIED
    is_link = isinstance(error, TimeoutError | ConnectionError) or number in _LINK_ERRNOS
    return TRANSIENT if is_link or names & _TRANSIENT_NAMES else None


def _code_and_status(error: Any, names: set[str]) -> tuple[str, int | None]:
    """Return the code of S3 and the HTTP status that an error carries, if it does."""
    response = getattr(error, "response", None)
    if isinstance(response, dict):  # botocore's
        code = response.get("Error", {}).get("Code")
        status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        return str(code or ""), _http(status)
    if "GenericError" in names:  # obstore's, which has them in its text alone
        text = str(error)
        found = re.search(r"status code: (\d{3})", text)
        codes = re.search(r"<Code>(\w+)</Code>", text)
        return codes[1] if codes else "", _http(int(found[1])) if found else None
    if isinstance(error, SystemExit):  # its code is that of a process
        return "", None
    # In this order, and no further than needed: aiohttp warns of whoever asks for its `code`.
    owned = ((error, "status"), (error, "status_code"), (error, "code"), (response, "status_code"))
    values = (_http(getattr(owner, name, None)) for owner, name in owned)
    return "", next(filter(None, values), None)


def _http(value: Any) -> int | None:
    """Return a value if it is an HTTP status that tells of an error."""
    return int(value) if isinstance(value, int) and 400 <= value < 600 else None
