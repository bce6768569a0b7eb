r"""A Dask cluster on machines that you can reach by SSH.

    pip install 'dsoftmax[ssh]'; dsoftmax certs certs                   # once, where all see it
    python cluster/ssh.py certs scheduler.json node1 node1 node2 node3     # until Ctrl-C or TERM
    dsoftmax train data.zarr model.zarr --scheduler-file scheduler.json --certs certs

The first machine runs the scheduler, each other one a worker a core; SSH lets you in by key.
Python, with the same versions, has to be at the same path on all, and so have certs and the data.

By hand, without SSH from here, it is three commands (a process a core: `--nworkers -1`):

    export DASK_CONFIG=$PWD/certs/dask.yaml                                # on every machine
    dask scheduler --scheduler-file scheduler.json --dashboard-address 127.0.0.1:0
    dask worker --scheduler-file scheduler.json --nworkers -1 --nthreads 1 \
        --dashboard-address 127.0.0.1:0
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Any

import dask
from dask.system import CPU_COUNT
from distributed import SpecCluster, SSHCluster

from dsoftmax.runtime.tls import CONFIGURATION, security_of

_LOOPBACK = "127.0.0.1:0"


def cluster_over_ssh(
    certs: Path, hosts: list[str], workers: int = CPU_COUNT, login: dict[str, Any] | None = None
) -> SpecCluster:
    """Start a scheduler on the first host, and so many workers on each other one.

    `login` is what `asyncssh.connect` takes: username, port, client_keys, known_hosts.
    """
    # Dask sends its configuration along, on a command line: where the certificates are and what
    # suits a worker should go there, the credentials of stores that may be among it must not.
    dask.config.config.pop("dsoftmax", None)
    (configuration,) = dask.config.collect_yaml([str(certs / CONFIGURATION)])
    dask.config.update(dask.config.config, configuration)
    return SSHCluster(
        hosts,
        connect_options=login or {},
        remote_python=sys.executable,
        security=security_of(certs),
        scheduler_options={"port": 0, "dashboard_address": _LOOPBACK},
        worker_options={"nthreads": 1, "n_workers": workers, "dashboard_address": _LOOPBACK},
    )


def main(certs: Path, scheduler_file: Path, hosts: list[str]) -> None:
    """Start the cluster, say where it is, and wait for a signal."""
    stop = [signal.SIGINT, signal.SIGTERM]
    signal.pthread_sigmask(signal.SIG_BLOCK, stop)
    with cluster_over_ssh(certs, hosts) as cluster, cluster.get_client() as client:
        client.write_scheduler_file(str(scheduler_file))
        print(f"{cluster.scheduler_address}, {cluster.dashboard_link}", flush=True)
        signal.sigwait(stop)
    scheduler_file.unlink(missing_ok=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
