"""One BLAS thread, so that every product has the same bits and workers do not fight for cores.

The limit belongs to the process, so it is counted: the first that needs it sets it and the last
one lifts it. To set and lift it around each task would be a race between tasks.
"""

from __future__ import annotations

import platform
import socket
import threading
from collections.abc import Mapping
from functools import cache
from importlib.metadata import version
from socket import gethostname
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from dsoftmax.errors import DsoftmaxError
from dsoftmax.objective.matmul import blas_of_numpy

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


# Dask's own trim threshold of 64 KiB hands every decoded chunk back to the system, and the next
# one is faulted in anew. Setting one threshold freezes the other at its small default: set both.
# An arena a thread would each keep a chunk of its own, as many as Zarr happens to have threads.
KEEP_MEMORY = {
    "MALLOC_TRIM_THRESHOLD_": str(2**30),
    "MALLOC_MMAP_THRESHOLD_": str(2**30),
    "MALLOC_ARENA_MAX": "1",
}


@cache
def numerics() -> str:
    """Return the BLAS kernel, NumPy's vector instructions, and the versions, as one line.

    Two processes with the same line round alike; another CPU or BLAS may not.
    """
    blas = sorted({_described(library) for library in blas_of_numpy()})
    versions = [f"numpy {np.__version__}", f"dsoftmax {version('dsoftmax')}"]
    parts = [platform.machine(), *blas, _vector_instructions(), *versions]
    return "; ".join(filter(None, parts))


def _described(library: dict[str, Any]) -> str:
    kernel = library.get("architecture", "")
    return f"{library['internal_api']} {library['version']} {kernel}".strip()


def _vector_instructions() -> str:
    """Return the widest vector instructions that NumPy has found on this CPU."""
    found = np.show_config(mode="dicts").get("SIMD Extensions", {}).get("found", [])
    return " ".join(found[-1:])


def worker_name() -> str:
    """Return the address of the Dask worker that runs this, or the host of this process."""
    from distributed import get_worker

    try:
        return str(get_worker().address)
    except ValueError:
        return gethostname()


# What travels between the processes, or decides about the numbers that do.
_PACKAGES = ("dsoftmax", "numpy", "zarr", "dask", "distributed", "cloudpickle", "msgpack")
_MOST_SHOWN = 5
Versions = Mapping[str, str]


def require_same_versions(client: Any) -> None:
    """Raise DsoftmaxError if a worker has another Python or other packages than this process.

    The third part of Python's version may differ.
    """
    own = _reporter()()[1]
    found = client.run(_reporter(), on_error="ignore")
    problems = [
        f"the worker {address} on {host} has {differences}"
        for address, (host, theirs) in sorted(found.items())
        if (differences := _differences(own, theirs))
    ]
    if problems:
        more = f"; and {len(problems) - _MOST_SHOWN} more" if len(problems) > _MOST_SHOWN else ""
        raise DsoftmaxError(
            f"{'; '.join(problems[:_MOST_SHOWN])}{more}: install the versions of "
            f"{socket.gethostname()} there, or those here"
        )


def _differences(own: Versions, theirs: Versions) -> str:
    return ", ".join(
        f"{name} {theirs[name]} (here {own[name]})" for name in own if own[name] != theirs[name]
    )


def _reporter() -> Any:
    """Return a function that tells host and versions, and travels by value.

    Were it of this module, workers without dsoftmax could not even say that they lack it.
    """
    packages = _PACKAGES

    def report() -> tuple[str, dict[str, str]]:
        import socket
        import sys
        from importlib.metadata import PackageNotFoundError, version

        found = {"Python": "{}.{}".format(*sys.version_info)}
        for name in packages:
            try:
                found[name] = version(name)
            except PackageNotFoundError:
                found[name] = "not installed"
        return socket.gethostname(), found

    return report
