from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import zarr
from distributed import Client

from dsoftmax import DsoftmaxError, SoftmaxRegression
from dsoftmax.runtime.environment import require_same_versions
from dsoftmax.runtime.tls import CONFIGURATION


def test_workers_with_the_same_software_are_fine(cluster: Client) -> None:
    require_same_versions(cluster)


@pytest.mark.slow
def test_another_version_is_named_with_package_worker_and_machine(
    tmp_path: Path, store: Callable[..., str]
) -> None:
    """A worker finds another version of zarr where its Python looks first."""
    from dsoftmax.runtime.connect import local_workers

    path = store(rows=10, X=np.ones((95, 3)), y=1 + np.arange(95) % 4)
    info = tmp_path / "zarr-9.9.9.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: zarr\nVersion: 9.9.9\n")
    with local_workers(1) as client:
        command = [
            sys.executable,
            "-m",
            "distributed.cli.dask_worker",
            client.scheduler.address,
            "--nthreads",
            "1",
            "--no-nanny",
            "--dashboard-address",
            "127.0.0.1:0",
        ]
        environment = os.environ | {
            "PYTHONPATH": str(tmp_path),
            "DASK_CONFIG": str(client.cluster.folder / CONFIGURATION),
        }
        with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as other:
            deadline = time.monotonic() + 60
            while len(client.scheduler_info(-1)["workers"]) < 2:
                assert time.monotonic() < deadline
                time.sleep(0.05)
            message = rf"on {socket.gethostname()} has zarr 9\.9\.9 \(here {zarr.__version__}\)"
            with pytest.raises(DsoftmaxError, match=message) as caught:
                SoftmaxRegression().fit(f"{path}/X", f"{path}/y")
            other.terminate()
    assert str(caught.value).count("the worker tls://") == 1


def allocate_and_free(n_blocks: int) -> None:
    blocks = [np.ones(1 << 17) for _ in range(n_blocks)]  # of 1 MiB
    time.sleep(1)  # for Dask to see it
    blocks.clear()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="glibc keeps what is freed")
def test_a_worker_that_is_paused_for_what_it_has_freed_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from dsoftmax.runtime.connect import local_workers
    from dsoftmax.runtime.worker import run_task

    monkeypatch.setenv("DASK_DISTRIBUTED__WORKER__MEMORY__PAUSE", "0.5")
    with local_workers(1, "500 MiB") as client:
        client.submit(run_task, allocate_and_free, 200, pure=False).result(60)
        assert "pausing worker" in str(client.get_worker_logs()).lower()
        client.submit(run_task, allocate_and_free, 1, pure=False).result(60)


def cache_spans(n_blocks: int) -> None:
    from dsoftmax.runtime.worker import spans

    for number in range(n_blocks):
        spans._cache.put(("X", number, number + 1, None), np.ones(1 << 17), 1 << 20, 1 << 30)
    time.sleep(1)


def count_cached(n_blocks: int) -> int:
    from dsoftmax.runtime.worker import spans

    return sum(("X", number, number + 1, None) in spans for number in range(n_blocks))


@pytest.mark.slow
def test_a_worker_that_is_paused_for_what_it_has_cached_drops_it_and_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from dsoftmax.runtime.connect import local_workers
    from dsoftmax.runtime.worker import run_task

    monkeypatch.setenv("DASK_DISTRIBUTED__WORKER__MEMORY__PAUSE", "0.5")
    with local_workers(1, "500 MiB") as client:
        client.submit(run_task, cache_spans, 20, pure=False).result(60)
        assert client.submit(run_task, count_cached, 20, pure=False).result(60) == 20
        client.submit(run_task, cache_spans, 200, pure=False).result(60)
        assert "pausing worker" in str(client.get_worker_logs()).lower()
        assert client.submit(run_task, count_cached, 200, pure=False).result(60) == 0
