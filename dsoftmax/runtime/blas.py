"""One BLAS thread, so that every product has the same bits and workers do not fight for cores.

The limit belongs to the process, so it is counted: the first that needs it sets it and the last
one lifts it. To set and lift it around each task would be a race between tasks.
"""

from __future__ import annotations

import threading
from functools import cache
from typing import Any

from threadpoolctl import threadpool_limits

_lock = threading.Lock()
_users = 0
_limit: Any = None


def borrow() -> None:
    """Use one BLAS thread until `give_back` was called as often."""
    global _users, _limit
    with _lock:
        if _users == 0:
            _limit = threadpool_limits(1)
        _users += 1


def give_back() -> None:
    """Undo one `borrow`."""
    global _users
    with _lock:
        _users -= 1
        if _users == 0:
            _limit.restore_original_limits()


@cache
def keep() -> None:
    """Use one BLAS thread for good: what a process that is a worker does."""
    borrow()
