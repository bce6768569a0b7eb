"""A Dask cluster for the length of a `with` block."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dask
from dask.utils import parse_timedelta

from dsoftmax.errors import DsoftmaxError, OutageError
from dsoftmax.storage.urls import error_text

_FLUSH_SECONDS = 3  # for which a file that is there may be half written
_POLL_SECONDS = 0.1


@contextmanager
def connected(
    address: str | None = None, scheduler_file: Path | None = None, certs: Path | None = None
) -> Iterator[Any]:
    """Yield the client of a running cluster, and make it the active one.

    Parameters
    ----------
    address : of the scheduler
    scheduler_file : what the scheduler wrote with `--scheduler-file`, instead
    certs : folder of the certificate, see `dsoftmax.runtime.tls`; by default what the Dask
        configuration says

    Raises
    ------
    OutageError
        If no scheduler answers.
    DsoftmaxError
        If what answers is none, or wants a certificate that is not the one given.
    """
    from distributed import Client, Security

    from dsoftmax.runtime.tls import security_of

    security = Security() if certs is None else security_of(certs)
    address = address or _address_in(scheduler_file)
    _require_certificate(address, security)
    _require_scheduler(address, security)
    with Client(address, security=security) as client:
        yield client


def _address_in(file: Path | None) -> str:
    """Return the address in a scheduler file; wait for it if it is not written yet."""
    assert file is not None
    seconds = parse_timedelta(dask.config.get("dsoftmax.worker-timeout", "5 minutes"))
    deadline = time.monotonic() + (seconds if not file.exists() else _FLUSH_SECONDS)
    while True:
        try:
            return str(json.loads(file.read_text())["address"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            if time.monotonic() > deadline:
                raise OutageError(
                    f"no Dask scheduler has written its address to {file} "
                    f"({type(error).__name__}: {error}); start one with "
                    f"`dask scheduler --scheduler-file {file}`"
                ) from error
        time.sleep(_POLL_SECONDS)


def _require_scheduler(address: str, security: Any) -> None:
    # Before a client is made: it would wait for ever for a greeting, from a server of another kind.
    from distributed.comm import CommClosedError, connect

    seconds = parse_timedelta(dask.config.get("distributed.comm.timeouts.connect"))

    async def greet() -> None:
        greeting = connect(address, timeout=seconds, **security.get_connection_args("client"))
        (await asyncio.wait_for(greeting, 2 * seconds)).abort()

    try:
        asyncio.run(greet())
    except Exception as error:
        text = error_text(error)
        if isinstance(error, OSError) and not isinstance(error, CommClosedError):
            raise OutageError(
                f"no Dask scheduler answers at {address} ({text}); is it running, is that its "
                "port, and can this machine reach it?"
            ) from error
        raise DsoftmaxError(
            f"what answers at {address} is no Dask scheduler, or wants another certificate "
            f"({text}); give its own address, not that of its dashboard, and the folder of its "
            "certificate (--certs FOLDER)"
        ) from error


def _require_certificate(address: str, security: Any) -> None:
    # Before a client is made: one that fails for this is left half open by Dask, and hangs later.
    certificate = security.get_tls_config_for_role("client")["cert"]
    if address.startswith("tls://") and certificate is None:
        raise DsoftmaxError(
            f"the scheduler at {address} wants a certificate, and there is none: give the folder "
            "of its own (--certs FOLDER), or set DASK_CONFIG to the dask.yaml in there"
        )
    if security.require_encryption and not address.startswith("tls://"):
        raise DsoftmaxError(
            f"encryption is required, and the scheduler at {address} is not at tls://; start it "
            "with its certificate (DASK_CONFIG=FOLDER/dask.yaml)"
        )


@contextmanager
def local_workers(
    n_workers: int | None = None,
    memory_limit: int | str | None = None,
    threads_per_worker: int = 1,
) -> Iterator[Any]:
    """Yield the client of a new local cluster, and make it the active one; see `local_cluster`."""
    from distributed import Client

    from dsoftmax.runtime.local_cluster import local_cluster

    with (
        local_cluster(n_workers, memory_limit, threads_per_worker) as cluster,
        Client(cluster, direct_to_workers=True) as client,
    ):
        yield client


def persisted(values: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return what `dask.persist` would, on the current client."""
    from dask.base import unpack_collections
    from distributed import default_client

    collections, repack = unpack_collections(*values)
    return tuple(repack(default_client().persist(collections)))
