"""Keeps credentials out of what is printed, logged, sent as a message or written to a file.

A URL may carry some: `http://user:password@host`, `s3://key:secret@bucket`, `?token=...`, a signed
query. Stores are opened by such a URL as it is. Whatever names a place names its `public_url`, and
whatever quotes a driver quotes `public_text`, since drivers put URLs into their errors.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import WrapperDescriptorType
from typing import Any

import dask

HIDDEN = "***"
_SCHEME = re.compile(r"(?<![\w+.-])[A-Za-z][\w+.-]+:/+")
_NEXT_LINK = re.compile(r"::(?=[A-Za-z][\w+.-]*(?:::|:/))")  # of a chain of fsspec
_QUERY = re.compile(r"[?#]|%3F|%23|;(?=[^/]*=)", re.IGNORECASE)
_AT = re.compile(r"@|%40", re.IGNORECASE)
_PORT = re.compile(r"(\[[^\]]*\]|[^:%]*)(:\d{0,5})?")
# Of a name and a password, as they also stand without a scheme, or in the path of a proxy.
_PAIR = re.compile(
    r"[^\s/:@%'\"?#]{1,128}(?::|%3A)(?:[^\s/@]{0,512}@|(?:(?!%40)[^\s/@]){0,512}%40)",
    re.IGNORECASE,
)
_IN_TEXT = re.compile(rf"{_SCHEME.pattern}(?:[^\s/@]*@)?[^\s'\"<>]+")
_HEADER = re.compile(r"\b(Basic|Bearer) +[\w+/=.~-]{4,}")
_BUCKETS = ("s3", "gs", "gcs", "oss")  # what follows a colon there is no port
_CONTAINERS = ("abfs", "abfss", "adl", "az", "wasb", "wasbs")  # container@account
_SECRET_OPTION = re.compile(
    "secret|token|pass|key|credential|sas|auth|connection_string|header|cookie", re.IGNORECASE
)
_LEAST_CHARACTERS = 4  # of a value by itself that is looked for


def public_url(place: str | os.PathLike[str]) -> str:
    """Return a place as it may be named: userinfo, query and fragment of a URL are hidden.

    Examples
    --------
    >>> public_url("simplecache::http://me:secret@host:8000/a.zarr/X?token=secret")
    'simplecache::http://***@host:8000/a.zarr/X?***'
    >>> public_url("data/a.zarr")
    'data/a.zarr'
    """
    return "::".join(map(_public_link, _NEXT_LINK.split(os.fspath(place))))


def _public_link(link: str) -> str:
    scheme = _SCHEME.match(link)
    if scheme is None:
        return link
    rest = link[scheme.end() :]
    end = _userinfo_end(scheme.group().partition(":")[0].lower(), rest)
    rest = _PAIR.sub(f"{HIDDEN}@", f"{HIDDEN}@{rest[end:]}" if end else rest)
    query = _QUERY.search(rest)
    if query is not None:
        rest = f"{rest[: query.start()]}{'#' if query.group() in '#%23' else '?'}{HIDDEN}"
    return scheme.group() + rest


def _userinfo_end(scheme: str, rest: str) -> int:
    """Return where the host begins in what follows a scheme; 0 if there is no userinfo."""
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    if found := list(_AT.finditer(authority)):
        is_container = scheme in _CONTAINERS and ":" not in authority
        return 0 if is_container else found[-1].end()
    # A secret that is not encoded, as it should be, may have a slash or a question mark in it.
    if ":" in authority and (scheme in _BUCKETS or not _PORT.fullmatch(authority)):
        later = _AT.search(rest)
        return 0 if later is None else later.end()
    return 0


def public_text(text: str) -> str:
    """Return a text with the credentials in its URLs, and those of the Dask settings, hidden."""
    text = _IN_TEXT.sub(_public_match, text)
    if _AT.search(text):  # else it would take long in a long text
        text = _PAIR.sub(f"{HIDDEN}@", text)
    text = _HEADER.sub(rf"\1 {HIDDEN}", text)
    options = dask.config.get("dsoftmax.storage-options", {})
    for value in sorted(_secret_values(options), key=len, reverse=True):
        text = text.replace(value, HIDDEN)
    return text


def _public_match(match: re.Match[str]) -> str:
    url = match.group().rstrip(".,:;)]}")  # what ends a clause, and no URL
    return public_url(url) + match.group()[len(url) :]


def _secret_values(options: Any, *, secret: bool = False) -> Iterator[str]:
    """Yield the values in storage options whose names, or those around them, tell of a secret."""
    if isinstance(options, Mapping):
        for name, value in options.items():
            yield from _secret_values(
                value, secret=secret or bool(_SECRET_OPTION.search(str(name)))
            )
    elif isinstance(options, list | tuple):
        for value in options:
            yield from _secret_values(value, secret=secret)
    elif secret and isinstance(options, str) and len(options) >= _LEAST_CHARACTERS:
        yield options


def public_error(error: BaseException) -> BaseException:
    """Return an error that shows no credentials, nor do those that caused it.

    It is the error itself where there is nothing to hide. Otherwise each error of the chain that
    shows some is made anew, of the same class, or of the built-in class that it is a kind of.
    """
    return _public_chain(error, {})


def _public_chain(error: BaseException, seen: dict[int, BaseException]) -> BaseException:
    if id(error) in seen:
        return seen[id(error)]
    made = seen[id(error)] = _public_link_of_chain(error)
    cause, context = error.__cause__, error.__context__
    hidden = error.__suppress_context__
    made.__cause__ = None if cause is None else _public_chain(cause, seen)
    made.__context__ = None if context is None else _public_chain(context, seen)
    made.__suppress_context__ = hidden  # which to set a cause has changed
    return made


def _public_link_of_chain(error: BaseException) -> BaseException:
    shown = f"{error!s}\n{error!r}\n{vars(error)}"  # of which notes are a part
    if public_text(shown) == shown:
        return error
    made = _remade(error)
    for name in ("errno", "status"):  # by which it is told whether to try again
        if isinstance(getattr(error, name, None), int):
            setattr(made, name, getattr(error, name))
    for note in _notes(error):
        made.add_note(public_text(note))
    return made.with_traceback(error.__traceback__)


def _remade(error: BaseException) -> BaseException:
    text = public_text(str(error))
    simple = all(isinstance(argument, str | int | None) for argument in error.args)
    # Of a class that is made of its arguments alone.
    if simple and isinstance(type(error).__init__, WrapperDescriptorType):
        parts = (public_text(part) if isinstance(part, str) else part for part in error.args)
        made: BaseException = type(error)(*parts)
        if public_text(repr(made)) == repr(made):
            if getattr(error, "filename", None) is not None:
                made.filename = public_url(str(error.filename))  # type: ignore[attr-defined]
            return made
    base: type[BaseException] = next(
        kind for kind in type(error).__mro__ if kind.__module__ == "builtins"
    )
    try:
        return base(f"{type(error).__name__}: {text}")
    except TypeError:  # such as a UnicodeDecodeError, which takes more
        return Exception(f"{type(error).__name__}: {text}")


def _notes(error: BaseException) -> list[str]:
    return list(getattr(error, "__notes__", ()))


@contextmanager
def public_errors() -> Iterator[None]:
    """Raise the error of a block, or of the function it decorates, as a `public_error`."""
    try:
        yield
    except Exception as error:
        failure = public_error(error)
        if failure is error:
            raise
        context = failure.__context__
        try:
            raise failure
        finally:  # Python has made the error that it replaces its context
            failure.__context__ = context


@dataclass(frozen=True)
class Place:
    """A path or URL that is sent to workers: Dask logs the `repr` of what a task is given."""

    url: str

    def __repr__(self) -> str:
        return public_url(self.url)
