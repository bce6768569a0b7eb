"""Decoded spans that a process has cached, and those that it has begun to read for later."""

from __future__ import annotations

import concurrent.futures
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import NamedTuple

import psutil

from dsoftmax.data.byte_cache import ByteCache, empty_in_child
from dsoftmax.events import TimeSplit
from dsoftmax.objective.reduction import Chunk
from dsoftmax.runtime.cost import Cost

Key = tuple[str, int, int, tuple[int, int] | None]  # name of the cache, span, shuffle


class CachePolicy(NamedTuple):
    """How a worker caches decoded spans.

    Attributes
    ----------
    name : under which the spans are cached
    max_bytes : of all that is cached
    memory_ceiling : bytes of its whole process from which a worker caches no more; 0 for none
    drop_after_use : whether the rows of the task are not asked for again in this epoch
    cyclic : whether all spans are asked for in turn, again and again; what is cached then
        stays, since the span that was used least recently is the one that comes next
    evict_others : whether they may take the place of spans under other names
    """

    name: str
    max_bytes: int
    memory_ceiling: int
    drop_after_use: bool
    cyclic: bool
    evict_others: bool = True

    def is_protected(self, key: Key) -> bool:
        """Whether a cached span may not be evicted for a span of this policy."""
        return not self.evict_others or key[0] == self.name

    @property
    def has_memory(self) -> bool:
        """Whether this process is below the ceiling of its memory."""
        if self.memory_ceiling == 0:
            return True
        return int(psutil.Process().memory_info().rss) <= self.memory_ceiling


class LoadedSpan(NamedTuple):
    """The rows of a slice, and what it took to have them.

    Attributes
    ----------
    chunk : Chunk
    cost : of the reads for it, none if it was cached
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


class SpanCache:
    """Spans by key. A result never depends on what is cached, only its cost does."""

    def __init__(self) -> None:
        self._cache: ByteCache[Key, LoadedSpan] = ByteCache()
        self.begin()
        empty_in_child.add(self)

    def begin(self) -> None:
        """Read nothing for later."""
        self._reading: dict[Key, concurrent.futures.Future[None]] = {}
        self._lock = threading.Lock()
        self._pool: concurrent.futures.ThreadPoolExecutor | None = None

    def __contains__(self, key: Key) -> bool:
        """Whether a span is cached or being read; one that waits to be read is neither."""
        reading = self._reading.get(key)
        return key in self._cache or (reading is not None and reading.running())

    def get(self, key: Key, policy: CachePolicy, read: Callable[[], LoadedSpan]) -> LoadedSpan:
        """Return a span that is cached, or is being read, or is read now."""
        started = time.perf_counter()
        self._await(key)
        loaded = self._cache.get(key)
        if loaded is None:
            loaded = read()
            self._put(key, loaded, policy)
        elif loaded.cost.reads:  # it was read ahead: its first use pays for it, and no other
            self._cache.drop(key)
            self._put(key, loaded, policy)
            loaded = loaded.waited_for(time.perf_counter() - started)
        return loaded

    def _put(self, key: Key, loaded: LoadedSpan, policy: CachePolicy) -> None:
        span, size = LoadedSpan(loaded.chunk, Cost(), 0.0), loaded.chunk.nbytes
        if not policy.cyclic:
            self._cache.put(key, span, size, policy.max_bytes)
        elif policy.has_memory:  # the span itself is there already
            self._cache.put(key, span, size, policy.max_bytes, policy.is_protected)

    def begin_to_read(
        self, key: Key, policy: CachePolicy, size: int, read: Callable[[], LoadedSpan]
    ) -> None:
        """Have a thread read a span of about so many bytes, if there is room for it."""
        with self._lock:
            reading = (1 + len(self._reading)) * size
            if key in self._reading:
                return
            if self._cache.bytes_of(policy.is_protected) + reading > policy.max_bytes:
                return
            if self._cache.get(key) is not None or not policy.has_memory:
                return
            self._pool = self._pool or concurrent.futures.ThreadPoolExecutor(1, "dsoftmax-later")
            self._reading[key] = self._pool.submit(self._read, key, policy, read)

    def _read(self, key: Key, policy: CachePolicy, read: Callable[[], LoadedSpan]) -> None:
        try:
            span = read()
        except Exception:  # who needs it reads it again, and raises the error
            span = None
        with self._lock:
            is_wanted = self._reading.pop(key, None) is not None
            if is_wanted and span is not None:
                self._cache.put(key, span, span.chunk.nbytes, policy.max_bytes, policy.is_protected)

    def _await(self, key: Key) -> None:
        """Wait for a span that is being read; cancel the read of one that is not yet."""
        with self._lock:
            reading = self._reading.get(key)
            if reading is not None and reading.cancel():
                del self._reading[key]
        if reading is not None:
            with suppress(concurrent.futures.CancelledError):
                reading.result()

    def drop(self, key: Key) -> None:
        """Drop a span that is cached."""
        self._cache.drop(key)

    def forget(self, prefix: str) -> None:
        """Drop what is cached under names of this prefix, and cancel the reads for it."""
        with self._lock:
            for key in [key for key in self._reading if key[0].startswith(prefix)]:
                self._reading.pop(key).cancel()
        self._cache.drop_if(lambda key: key[0].startswith(prefix))
