from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import zarr
from sklearn.exceptions import ConvergenceWarning

from dsoftmax import SoftmaxRegression
from dsoftmax.runtime.connect import local_workers

SOLVERS = ["lbfgs", "sgd"]


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's /proc")
@pytest.mark.slow
def test_a_store_four_times_the_memory_is_trained_on_without_pause_spill_or_restart(
    tmp_path: Path, solver: str
) -> None:
    rows, features, limit = 1_800_000, 784, 350 * 2**20
    assert rows * features > 3.8 * limit
    group = zarr.open_group(tmp_path / "big.zarr", mode="w")
    X = group.create_array("X", shape=(rows, features), chunks=(8192, features), dtype="u1")
    y = group.create_array("y", shape=(rows,), chunks=(1 << 19,), dtype="u1")
    labels = (np.arange(rows) * 7 // 3 % 5).astype("u1")
    y[:] = labels
    for start in range(0, rows, 8192):
        own = labels[start : start + 8192, None]
        X[start : start + 8192] = np.where(own == np.arange(features) // 157, 9, 1).astype("u1")

    with local_workers(1, str(limit)) as client:
        model = SoftmaxRegression(solver=solver, max_iter=2, tol=0, random_state=0)
        started = [info["id"] for info in client.scheduler_info()["workers"].values()]
        with pytest.warns(ConvergenceWarning):
            model.fit(f"{tmp_path}/big.zarr/X", f"{tmp_path}/big.zarr/y")
        ended = [info["id"] for info in client.scheduler_info()["workers"].values()]
        log = str(client.get_worker_logs()).lower()
        (status,) = client.run(Path.read_text, Path("/proc/self/status")).values()

    peak = int(status.partition("VmHWM:")[2].split()[0]) * 1024
    assert model.n_iter_ == 2
    assert model.history_[-1]["accuracy"] == 1.0
    assert started == ended, "the worker restarted"
    assert peak < 0.6 * limit  # where Dask would begin to spill
    assert "paus" not in log
    assert "spill" not in log
