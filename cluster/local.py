"""A Dask cluster on this machine that outlives single runs.

    python cluster/local.py scheduler.json [WORKERS] [MEMORY_LIMIT]      # until Ctrl-C or SIGTERM
    dsoftmax train data.zarr model.zarr --scheduler-file scheduler.json  # as often as you like

One process a core, all on loopback. Whoever can log in to this machine can use it.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import dask
from dask.system import CPU_COUNT
from distributed import LocalCluster

# Dask has workers give freed memory back at once; decoded chunks come and go too fast for that.
dask.config.set(
    {
        "distributed.nanny.pre-spawn-environ.MALLOC_TRIM_THRESHOLD_": 2**30,
        "distributed.nanny.pre-spawn-environ.MALLOC_MMAP_THRESHOLD_": 2**30,
    }
)


def main(scheduler_file: Path, workers: int, memory_limit: str) -> None:
    """Start the cluster, say where it is, and wait for a signal."""
    stop = [signal.SIGINT, signal.SIGTERM]
    with LocalCluster(
        n_workers=workers,
        threads_per_worker=1,
        memory_limit=memory_limit,
        host="127.0.0.1",
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
        int(sys.argv[2]) if len(sys.argv) > 2 else CPU_COUNT,
        sys.argv[3] if len(sys.argv) > 3 else "auto",
    )
