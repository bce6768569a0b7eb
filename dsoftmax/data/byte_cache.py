"""A least-recently-used cache bounded in bytes, safe to share between threads."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from typing import Any, Generic, TypeVar
from weakref import WeakSet

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")

# Caches that are empty in a forked child: their locks may have been held by other threads just
# then, which would never release them there.
empty_in_child: WeakSet[Any] = WeakSet()


class ByteCache(Generic[Key, Value]):
    """Values that are expensive to compute again; dropping any of them changes no result."""

    def __init__(self) -> None:
        self.begin()
        empty_in_child.add(self)

    def begin(self) -> None:
        """Hold nothing."""
        self._lock = threading.Lock()
        self._held: OrderedDict[Key, tuple[Value, int]] = OrderedDict()
        self._bytes = 0

    def bytes_of(self, condition: Callable[[Key], bool]) -> int:
        """Return the bytes of what is held under the keys that meet a condition."""
        with self._lock:
            return sum(size for key, (_, size) in self._held.items() if condition(key))

    def __iter__(self) -> Iterator[Key]:
        """Yield the keys, those that were used least recently first."""
        with self._lock:
            return iter(list(self._held))

    def __contains__(self, key: Key) -> bool:
        """Whether something is held under `key`, which does not count as a use."""
        with self._lock:
            return key in self._held

    def get(self, key: Key) -> Value | None:
        """Return what is held under `key`, now the most recently used, or None."""
        with self._lock:
            if key not in self._held:
                return None
            self._held.move_to_end(key)
            return self._held[key][0]

    def put(
        self,
        key: Key,
        value: Value,
        size: int,
        most: int,
        stays: Callable[[Key], bool] | None = None,
    ) -> None:
        """Hold `value` of `size` bytes, and drop the oldest until all is within `most` bytes.

        Values whose keys meet the condition `stays` are not dropped; if the others do not make
        enough room, the new value is not held.
        """
        with self._lock:
            if key in self._held or size > most:
                return
            excess = self._bytes + size - most
            dropped = []
            for old, (_, old_size) in self._held.items():
                if excess <= 0:
                    break
                if stays is None or not stays(old):
                    dropped.append(old)
                    excess -= old_size
            if excess > 0:
                return
            for old in dropped:
                self._bytes -= self._held.pop(old)[1]
            self._held[key] = (value, size)
            self._bytes += size

    def drop_if(self, condition: Callable[[Key], bool]) -> None:
        """Drop what is held under the keys that meet a condition."""
        with self._lock:
            for key in [key for key in self._held if condition(key)]:
                self._bytes -= self._held.pop(key)[1]

    def drop(self, key: Key) -> None:
        """Hold nothing under `key`."""
        with self._lock:
            if key in self._held:
                self._bytes -= self._held.pop(key)[1]


def _begin_anew() -> None:
    for cache in empty_in_child:
        cache.begin()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_begin_anew)
