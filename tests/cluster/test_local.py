from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.slow
def test_several_runs_use_one_cluster_by_its_file(
    store: Callable[..., str], digits: tuple[np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    X, y = digits
    data, file = store(rows=300, X=X, y=y), tmp_path / "scheduler.json"
    command = [sys.executable, str(ROOT / "cluster/local.py"), str(file), "2", "1 GiB"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as cluster:
        assert cluster.stdout is not None
        assert cluster.stdout.readline().startswith("2 workers at tcp://127.0.0.1:")
        family = psutil.Process(cluster.pid).children(recursive=True)
        for name in ("one.zarr", "two.zarr"):
            done = subprocess.run(
                [
                    sys.executable, "-m", "dsoftmax", "train", data, str(tmp_path / name),
                    "--max-iter", "3", "--scheduler-file", str(file),
                ],
                capture_output=True, text=True, timeout=60,
            )  # fmt: skip
            assert done.returncode == 0, done.stderr
            assert "lbfgs on 2 Dask workers" in done.stderr
        cluster.terminate()
        assert cluster.wait(30) == 0
    assert not file.exists()
    assert not psutil.wait_procs(family, 10)[1]
