"""A Dask cluster on a machine with other users, which outlives single runs.

    dsoftmax certs certs                                                 # once
    python cluster/local.py certs scheduler.json [WORKERS] [MEMORY_LIMIT]     # until Ctrl-C or TERM
    dsoftmax train data.zarr model.zarr --scheduler-file scheduler.json --certs certs

One process a core, all on loopback and behind TLS: only who can read certs/tls.key can use it. To
share it with a group: `chgrp -R GROUP certs; chmod 750 certs; chmod 640 certs/tls.key`; its members
then run code as you, and should be people whom you trust with that. The dashboard, on loopback too,
has no password: it shows anyone on the machine the names of tasks and how they go, and takes no
orders. From elsewhere, see it through `ssh -L 8787:127.0.0.1:PORT THIS_MACHINE`.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import dask
from dask.system import CPU_COUNT
from distributed import LocalCluster

from dsoftmax.runtime.tls import security_of

# Dask has workers give freed memory back at once; decoded chunks come and go too fast for that.
dask.config.set(
    {
        "distributed.nanny.pre-spawn-environ.MALLOC_TRIM_THRESHOLD_": 2**30,
        "distributed.nanny.pre-spawn-environ.MALLOC_MMAP_THRESHOLD_": 2**30,
        "distributed.nanny.pre-spawn-environ.MALLOC_ARENA_MAX": 1,
    }
)


def main(certs: Path, scheduler_file: Path, workers: int, memory_limit: str) -> None:
    """Start the cluster, say where it is, and wait for a signal."""
    stop = [signal.SIGINT, signal.SIGTERM]
    with LocalCluster(
        n_workers=workers,
        threads_per_worker=1,
        memory_limit=memory_limit,
        host="127.0.0.1",
        protocol="tls://",
        security=security_of(certs),
        dashboard_address="127.0.0.1:0",
        scheduler_kwargs={"scheduler_file": str(scheduler_file)},
    ) as cluster:
        # Blocked only now, or the workers would inherit it and could not be stopped.
        signal.pthread_sigmask(signal.SIG_BLOCK, stop)
        print(
            f"{workers} workers at {cluster.scheduler_address}, {cluster.dashboard_link}",
            flush=True,
        )
        signal.sigwait(stop)
    scheduler_file.unlink(missing_ok=True)


if __name__ == "__main__":
    main(
        Path(sys.argv[1]),
        Path(sys.argv[2]),
        int(sys.argv[3]) if len(sys.argv) > 3 else CPU_COUNT,
        sys.argv[4] if len(sys.argv) > 4 else "auto",
    )
