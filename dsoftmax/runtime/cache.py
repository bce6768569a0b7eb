"""A least-recently-used cache bounded in bytes, safe to share between threads."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

Value = TypeVar("Value")


class ByteCache(Generic[Value]):
    """What a process remembers because it is dear to make again; never needed to be right."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: OrderedDict[Hashable, tuple[Value, int]] = OrderedDict()
        self._bytes = 0

    def get(self, key: Hashable) -> Value | None:
        """Return what is held under `key`, now the most recently used, or None."""
        with self._lock:
            if key not in self._held:
                return None
            self._held.move_to_end(key)
            return self._held[key][0]

    def put(self, key: Hashable, value: Value, size: int, most: int) -> None:
        """Hold `value` of `size` bytes, and drop the oldest until all is within `most` bytes."""
        with self._lock:
            if key in self._held or size > most:
                return
            self._held[key] = (value, size)
            self._bytes += size
            while self._bytes > most:
                self._bytes -= self._held.popitem(last=False)[1][1]

    def clear(self) -> None:
        """Drop everything."""
        with self._lock:
            self._held.clear()
            self._bytes = 0
