"""Whose a client of Dask is: a forked process inherits its parent's, and cannot use it."""

from __future__ import annotations

import os
import threading
import uuid
from typing import Any

from dsoftmax.errors import DsoftmaxError

_ANSWER_SECONDS = 2.0
_PID_BITS = 0x3FFF  # of a process id, in the id of a client


def require_own(client: Any) -> None:
    """Raise DsoftmaxError if a client is that of the process from which this one was forked.

    Its event loop is a thread, which no fork takes along: whatever is asked of it waits for ever.
    """
    if client.status != "running" or _pid_bits(client) == os.getpid() & _PID_BITS:
        return
    # Another process, or another kind of id than that of today: its loop can tell.
    answered = threading.Event()
    client.loop.add_callback(answered.set)
    if not answered.wait(_ANSWER_SECONDS):
        raise DsoftmaxError(
            f"the Dask client of {client.scheduler.address} belongs to the process from which "
            f"this one (pid {os.getpid()}) was forked, and does not work here: connect one in "
            "each process, Client(address), or start processes by spawn"
        )


def _pid_bits(client: Any) -> int | None:
    """Return what the id of a client tells of the process that made it: Dask puts it there."""
    try:
        return uuid.UUID(client.id[-36:]).clock_seq
    except ValueError:
        return None
