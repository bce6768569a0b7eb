"""A Dask cluster whose workers are Slurm jobs, more or fewer as the work needs.

    pip install 'dsoftmax[slurm]'; dsoftmax certs certs                    # once
    python cluster/slurm_jobqueue.py certs scheduler.json 1 32             # until Ctrl-C or TERM
    dsoftmax train data.zarr model.zarr --scheduler-file scheduler.json --certs certs

The scheduler runs where this does: on a login node, if that is allowed, or in a small job of its
own. Each worker is a job of one core; there are from 1 to 32 here. At least one has to stay, since
a run waits for a worker before it has work for any. Jobs may come late, end and be preempted: the
model has the same bits. Each that ends, by `scancel` too, is replaced: to end them all, end this
program, or the job that it is in. certs and the data have to be where all nodes see them.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path

from dask_jobqueue import SLURMCluster

from dsoftmax.runtime.tls import security_of


def cluster_of_jobs(certs: Path, scheduler_file: Path, memory: str = "4GiB") -> SLURMCluster:
    """Return a cluster without workers yet: see `scale` and `adapt`."""
    return SLURMCluster(
        cores=1,
        processes=1,
        memory=memory,
        walltime="04:00:00",
        # queue="main", account="mine", job_extra_directives=["--qos=low"],
        protocol="tls://",
        security=security_of(certs),
        # interface="ib0",
        scheduler_options={
            "dashboard_address": "127.0.0.1:0",
            "scheduler_file": str(scheduler_file),
        },
        worker_extra_args=["--dashboard-address", "127.0.0.1:0"],
        job_script_prologue=[
            # Not for the certificate: it also has workers keep the memory of decoded chunks.
            f"export DASK_CONFIG={(certs / 'dask.yaml').resolve()}",
        ],
    )


def main(certs: Path, scheduler_file: Path, fewest: int, most: int) -> None:
    """Start the cluster, say where it is, and wait for a signal."""
    stop = [signal.SIGINT, signal.SIGTERM]
    signal.pthread_sigmask(signal.SIG_BLOCK, stop)
    with cluster_of_jobs(certs, scheduler_file) as cluster:
        cluster.adapt(minimum=fewest, maximum=most)
        print(f"{cluster.scheduler_address}, {cluster.dashboard_link}", flush=True)
        signal.sigwait(stop)
    scheduler_file.unlink(missing_ok=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
