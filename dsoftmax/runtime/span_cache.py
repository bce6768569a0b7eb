"""Decoded spans that a process remembers, and those that it has begun to read for later."""

from __future__ import annotations

import concurrent.futures
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import NamedTuple

import psutil

from dsoftmax.data.byte_cache import ByteCache
from dsoftmax.events import TimeSplit
from dsoftmax.objective.reduction import Chunk
from dsoftmax.runtime.cost import Cost

Key = tuple[str, int, int, tuple[int, int] | None]  # run, span, shuffle


class CachePolicy(NamedTuple):
    """How a worker remembers decoded spans.

    Attributes
    ----------
    run : under which name
    most : within how many bytes
    ceiling : of the memory of its process, with which it remembers no more; 0 for none
    drop_after_use : whether the rows of the task are not asked for again in this epoch
    cyclic : whether all spans are asked for in turn, again and again; what is held then
        stays, since the span that was used least recently is the one that comes next
    evict_others : whether they take the place of nothing else
    """

    run: str
    most: int
    ceiling: int
    drop_after_use: bool
    cyclic: bool
    evict_others: bool = False

    def stays(self, key: Key) -> bool:
        """Whether what is held under a key does not make room for another of these spans."""
        return self.evict_others or key[0] == self.run


class LoadedSpan(NamedTuple):
    """The rows of a slice, and what it took to have them.

    Attributes
    ----------
    chunk : Chunk
    cost : of the reads for it, none if it was remembered
    fetch_seconds : for which the storage was waited for, by this thread or another one
    """

    chunk: Chunk
    cost: Cost
    fetch_seconds: float

    def waited_for(self, seconds: float) -> LoadedSpan:
        """Return what was read ahead, with the time for which it was waited for in the end."""
        read = min(self.cost.time.read, seconds)
        time = TimeSplit(read=read, decode=seconds - read)
        return self._replace(cost=replace(self.cost, time=time))

    @property
    def again(self) -> LoadedSpan:
        """The same, when it is at hand."""
        return LoadedSpan(self.chunk, Cost(), 0.0)


class SpanCache:
    """Spans by key: a cache, which is never needed to be right."""

    def __init__(self) -> None:
        self._held: ByteCache[Key, LoadedSpan] = ByteCache()
        self._begun: dict[Key, concurrent.futures.Future[None]] = {}
        self._lock = threading.Lock()
        self._pool: concurrent.futures.ThreadPoolExecutor | None = None

    def __contains__(self, key: Key) -> bool:
        """Whether a span is held or being read; what waits for its turn is none of both."""
        begun = self._begun.get(key)
        return key in self._held or (begun is not None and begun.running())

    def get(self, key: Key, keep: CachePolicy, read: Callable[[], LoadedSpan]) -> LoadedSpan:
        """Return a span that is held, or has been begun, or is read now."""
        started = time.perf_counter()
        self._await(key)
        found = self._held.get(key)
        if found is None:
            found = read()
            self._put(key, found.again, keep)
        elif found.cost.reads:  # ahead of this, its first use
            self._held.drop(key)
            self._put(key, found.again, keep)
            found = found.waited_for(time.perf_counter() - started)
        return found

    def _put(self, key: Key, span: LoadedSpan, keep: CachePolicy) -> None:
        size = span.chunk.nbytes
        if not keep.cyclic:
            self._held.put(key, span, size, keep.most)
        elif below(keep.ceiling):  # the span itself is there already
            self._held.put(key, span, size, keep.most, keep.stays)

    def begin(self, key: Key, keep: CachePolicy, size: int, read: Callable[[], LoadedSpan]) -> None:
        """Have a thread read a span of about so many bytes, if there is room for it."""
        with self._lock:
            begun = (1 + len(self._begun)) * size
            if key in self._begun or self._held.bytes_of(keep.stays) + begun > keep.most:
                return
            if self._held.get(key) is not None or not below(keep.ceiling):
                return
            self._pool = self._pool or concurrent.futures.ThreadPoolExecutor(1, "dsoftmax-later")
            self._begun[key] = self._pool.submit(self._read_later, key, keep, read)

    def _read_later(self, key: Key, keep: CachePolicy, read: Callable[[], LoadedSpan]) -> None:
        try:
            span = read()
        except Exception:  # who needs it reads it again, and says so
            span = None
        with self._lock:
            wanted = self._begun.pop(key, None) is not None
            if wanted and span is not None:
                self._held.put(key, span, span.chunk.nbytes, keep.most, keep.stays)

    def _await(self, key: Key) -> None:
        """Wait for a span that is being read; call off one that is not yet."""
        with self._lock:
            begun = self._begun.get(key)
            if begun is not None and begun.cancel():
                del self._begun[key]
        if begun is not None:
            with suppress(concurrent.futures.CancelledError):
                begun.result()

    def drop(self, key: Key) -> None:
        """Remember a span no more."""
        self._held.drop(key)

    def forget(self, run: str) -> None:
        """Drop what is remembered of a run, and call off what was begun for it."""
        with self._lock:
            for key in [key for key in self._begun if key[0].startswith(run)]:
                self._begun.pop(key).cancel()
        self._held.drop_if(lambda key: key[0].startswith(run))


def below(most: int) -> bool:
    """Whether this process is below a ceiling."""
    return most == 0 or int(psutil.Process().memory_info().rss) <= most
