"""What the arithmetic and the memory of a process depend on: BLAS threads, malloc, versions.

One BLAS thread, so that every product has the same bits and workers do not fight for cores. The
limit belongs to the process, so it is counted: the first that needs it sets it and the last one
lifts it. To set and lift it around each task would be a race between tasks.
"""

from __future__ import annotations

import ctypes
import os
import platform
import socket
import threading
from collections.abc import Callable
from functools import cache
from importlib.metadata import version
from typing import Any

import numpy as np
import psutil
from threadpoolctl import threadpool_limits

from dsoftmax.errors import DsoftmaxError
from dsoftmax.objective.matmul import blas_of_numpy

_lock = threading.Lock()
_users = 0
_limit: Any = None


def limit_blas_threads() -> None:
    """Use one BLAS thread until `restore_blas_threads` was called as often."""
    global _users, _limit
    with _lock:
        if _users == 0:
            _limit = threadpool_limits(1)
        _users += 1


def restore_blas_threads() -> None:
    """Undo one `limit_blas_threads`."""
    global _users
    with _lock:
        _users -= 1
        if _users == 0:
            _limit.restore_original_limits()


def _renew_lock() -> None:
    global _lock
    _lock = threading.Lock()  # another thread of the parent may have held it at the fork


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_renew_lock)


@cache
def use_one_blas_thread() -> None:
    """Use one BLAS thread for good, in a process that is a worker."""
    limit_blas_threads()


# Dask's own trim threshold of 64 KiB hands every decoded chunk back to the system, and the next
# one is faulted in anew. Setting one threshold freezes the other at its small default: set both.
# An arena a thread would each keep a chunk of its own, as many as Zarr happens to have threads.
KEEP_MEMORY = {
    "MALLOC_TRIM_THRESHOLD_": str(2**30),
    "MALLOC_MMAP_THRESHOLD_": str(2**30),
    "MALLOC_ARENA_MAX": "1",
}


def return_memory(drop_caches: Callable[[], None]) -> None:
    """Give memory back to the system, in a worker that Dask pauses for what it takes.

    It would stay paused: freed memory is kept for the next chunk, and so is what is cached.

    Parameters
    ----------
    drop_caches : called if to give back what is freed is not enough
    """
    from distributed import get_worker

    manager = get_worker().memory_manager
    limit, share = manager.memory_limit, manager.memory_pause_fraction
    trim = _malloc_trim() or (lambda _: None)
    if limit and share and psutil.Process().memory_info().rss > share * limit:
        trim(0)
        if psutil.Process().memory_info().rss > share * limit:
            drop_caches()
            trim(0)


@cache
def _malloc_trim() -> Any:
    """Return the function of glibc; None with another C library."""
    try:
        return getattr(ctypes.CDLL(None), "malloc_trim", None)
    except (OSError, TypeError):  # Windows
        return None


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
    extensions = np.show_config(mode="dicts").get("SIMD Extensions", {}).get("found", [])
    return " ".join(extensions[-1:])


def worker_name() -> str:
    """Return the address of the Dask worker that runs this, or the host of this process."""
    from distributed import get_worker

    try:
        return str(get_worker().address)
    except ValueError:
        return socket.gethostname()


# What travels between the processes, or decides about the numbers that do.
_PACKAGES = ("dsoftmax", "numpy", "zarr", "dask", "distributed", "cloudpickle", "msgpack")
_MOST_SHOWN = 5


def require_same_versions(client: Any) -> None:
    """Raise DsoftmaxError if a worker has another Python or other packages than this process.

    The third part of Python's version may differ.
    """
    versions = client.get_versions(packages=_PACKAGES)
    here = _versions(versions["client"])
    differences = {
        address: ", ".join(
            f"{name} {theirs} (here {here[name]})"
            for name, theirs in _versions(worker).items()
            if theirs != here[name]
        )
        for address, worker in sorted(versions["workers"].items())
    }
    others = [address for address in differences if differences[address]]
    if others:
        hosts = client.run(socket.gethostname, workers=others, on_error="ignore")
        shown = "; ".join(
            f"the worker {address} on {hosts.get(address, '?')} has {differences[address]}"
            for address in others[:_MOST_SHOWN]
        )
        more = f"; and {len(others) - _MOST_SHOWN} more" if len(others) > _MOST_SHOWN else ""
        raise DsoftmaxError(
            f"{shown}{more}: install the versions of {socket.gethostname()} there, or those here"
        )


def _versions(process: dict[str, Any]) -> dict[str, str]:
    """Return the versions that matter, of a process as `Client.get_versions` describes it."""
    packages = process["packages"]
    python = ".".join(packages["python"].split(".")[:2])
    return {"Python": python} | {name: packages[name] or "not installed" for name in _PACKAGES}
