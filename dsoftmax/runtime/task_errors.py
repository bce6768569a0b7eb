"""Errors on their way from a worker to the client.

Dask pickles an error with all that caused it. If one of them cannot be pickled, such as those of
aiohttp and botocore, or not unpickled where their module is missing, it sends `Exception(repr)`
for all: the class is lost, and with it the exit code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, TypeVar

from dsoftmax.errors import DsoftmaxError
from dsoftmax.storage.urls import message_of

Result = TypeVar("Result")

_EVERYWHERE = ("builtins", "dsoftmax.errors")  # modules that both ends have
_LONGEST_OWN, _LONGEST_FOREIGN = 8_000, 2_000  # characters: Dask drops the cause from 10,000 on
_MOST_LINKS = 8
_MOST_FRAMES = 50  # of a traceback: pickle recurses into it


def portably(function: Callable[..., Result], *arguments: Any) -> Result:
    """Call a function in a task of Dask; its errors are such that they can be pickled."""
    try:
        return function(*arguments)
    except BaseException as error:
        portable_error = portable(error)
    # Not within `except`: the error would be remembered as the context of its copy.
    raise portable_error


def portable(error: BaseException, links: int = _MOST_LINKS) -> Exception:
    """Return a copy of an error that can be pickled, and unpickled where its module is missing.

    Its class is that of the error if both ends have it, else the nearest base class, and then the
    name is in the message. So are its causes, each without what else it holds.
    """
    copy = _copied(error)
    copy.__traceback__ = _cut(error.__traceback__)
    cause = error.__cause__
    if cause is None and not error.__suppress_context__:
        cause = error.__context__
    if cause is not None and links > 1:
        copy.__cause__ = portable(cause, links - 1)
    return copy


def _copied(error: BaseException) -> Exception:
    longest = _LONGEST_OWN if isinstance(error, DsoftmaxError) else _LONGEST_FOREIGN
    message, name = message_of(error, longest), type(error).__name__
    for kind in _portable_bases(type(error)):
        text = message if kind is type(error) else f"{name}: {message}"
        try:
            if isinstance(error, OSError) and error.errno is not None:
                return kind(error.errno, text.removeprefix(f"[Errno {error.errno}] "))
            return kind(text)
        except TypeError:  # of one that wants more than a message, as UnicodeDecodeError does
            continue
    # One that is no Exception would end the worker (SystemExit) or look like Ctrl-C here.
    return DsoftmaxError(f"a task has raised {name}: {message}")


def _portable_bases(kind: type[BaseException]) -> Iterable[type[Exception]]:
    return (
        base
        for base in kind.__mro__
        if base.__module__ in _EVERYWHERE and issubclass(base, Exception)
    )


def _cut(traceback: TracebackType | None) -> TracebackType | None:
    """Return a traceback without its innermost frames, if it has very many."""
    last, n_frames = traceback, 1
    while last is not None and n_frames < _MOST_FRAMES:
        last, n_frames = last.tb_next, n_frames + 1
    if last is not None:
        last.tb_next = None
    return traceback
