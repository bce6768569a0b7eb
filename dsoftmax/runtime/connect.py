"""A Dask cluster for the length of a `with` block."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dsoftmax.errors import DsoftmaxError


@contextmanager
def connected(address: str | None = None, scheduler_file: Path | None = None) -> Iterator[Any]:
    """Yield the client of a running cluster, and make it the active one.

    Parameters
    ----------
    address : of the scheduler
    scheduler_file : what the scheduler wrote with `--scheduler-file`, instead

    Raises
    ------
    DsoftmaxError
        If no scheduler answers.
    """
    from distributed import Client

    file = None if scheduler_file is None else str(scheduler_file)
    try:
        client = Client(address, scheduler_file=file)
    except (OSError, ValueError, AssertionError, KeyError) as error:  # a file of no scheduler
        raise DsoftmaxError(
            f"no Dask scheduler answers at {address or file}: {error}; is it running, and can "
            "this machine reach it?"
        ) from error
    with client:
        yield client


@contextmanager
def local_workers(n_workers: int | None = None, memory_limit: str | None = None) -> Iterator[Any]:
    """Yield the client of a new local cluster, and make it the active one; see `local_cluster`."""
    from distributed import Client

    from dsoftmax.runtime.local import local_cluster

    with local_cluster(n_workers, memory_limit) as cluster, Client(cluster) as client:
        yield client


def persisted(values: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return what `dask.persist` does, by the method of the current client."""
    from dask.base import unpack_collections
    from distributed import default_client

    collections, repack = unpack_collections(*values)
    return tuple(repack(default_client().persist(collections)))
