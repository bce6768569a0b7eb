from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from dsoftmax import DsoftmaxError
from dsoftmax.runtime.connect import connected

ROOT = Path(__file__).parent.parent.parent


def listening(process: psutil.Process) -> list[Any]:
    return [c for c in process.net_connections("inet") if c.status == "LISTEN"]


@pytest.mark.slow
def test_several_runs_use_one_cluster_by_its_file(
    store: Callable[..., str], digits: tuple[np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    X, y = digits
    data, file = store(rows=300, X=X, y=y), tmp_path / "scheduler.json"
    certs = str(tmp_path / "certs")
    subprocess.run([sys.executable, "-m", "dsoftmax", "certs", certs], check=True)
    command = [sys.executable, str(ROOT / "cluster/local.py"), certs, str(file), "2", "1 GiB"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as cluster:
        try:
            assert cluster.stdout is not None
            assert cluster.stdout.readline().startswith("2 workers at tls://127.0.0.1:")
            family = psutil.Process(cluster.pid).children(recursive=True)
            ports = [c.laddr for p in (psutil.Process(cluster.pid), *family) for c in listening(p)]
            assert len(ports) >= 4
            assert {port.ip for port in ports} == {"127.0.0.1"}
            with pytest.raises(DsoftmaxError, match="wants a certificate"):
                connected(scheduler_file=file).__enter__()
            for name in ("one.zarr", "two.zarr"):
                done = subprocess.run(
                    [
                        sys.executable,
                        "-m",
                        "dsoftmax",
                        "train",
                        data,
                        str(tmp_path / name),
                        "--max-iter",
                        "3",
                        "--scheduler-file",
                        str(file),
                        "--certs",
                        certs,
                    ],
                    capture_output=True,
                    text=True,
                    timeout=60,
                )
                assert done.returncode == 0, done.stderr
                assert "on 2 Dask workers" in done.stderr
        finally:
            cluster.terminate()
        assert cluster.wait(30) == 0
    assert not file.exists()
    assert not psutil.wait_procs(family, 10)[1]
