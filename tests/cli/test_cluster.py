"""How commands find a cluster, and the certificate that it wants."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
from distributed import Client

from dsoftmax import SoftmaxRegression, open_data
from dsoftmax.cli.run_folder import PlanFile, RunFolder
from dsoftmax.events import CandidatesJudged, FitStarted
from tests.conftest import Dsoftmax

PLANS = (["plan", "data.zarr"], ["train", "data.zarr", "m", "--dry-run"])


def test_certs_makes_a_folder_for_one_cluster_and_says_how_to_use_it(
    tmp_path: Path, dsoftmax: Dsoftmax
) -> None:
    done = dsoftmax("certs", "new", "--days", 9)
    assert done.returncode == 0, done.stderr
    assert f"export DASK_CONFIG={tmp_path}/new/dask.yaml" in done.stdout
    assert (tmp_path / "new/tls.key").stat().st_mode & 0o777 == 0o600
    mounted = dsoftmax("certs", "other", "--at", "/certs")
    assert "export DASK_CONFIG=/certs/dask.yaml" in mounted.stdout
    assert "key: /certs/tls.key" in (tmp_path / "other/dask.yaml").read_text()
    again = dsoftmax("certs", "new")
    assert (again.returncode, "exists" in again.stderr) == (2, True)


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--certs", "."], 2, "--certs is for --scheduler"),
        (["--scheduler", "tls://127.0.0.1:9"], 1, "wants a certificate"),
        (
            ["--scheduler", "tls://127.0.0.1:9", "--certs", "data.zarr"],
            1,
            "tls.crt cannot be read; `dsoftmax certs",
        ),
        (["--scheduler-file", "data.zarr/zarr.json"], 1, "has written its address to"),
        (["--scheduler-file", "none.json"], 1, "waiting for a scheduler to write none.json"),
    ],
)
def test_a_cluster_that_cannot_be_reached_is_one_message(
    store: Callable[..., str],
    dsoftmax: Dsoftmax,
    monkeypatch: pytest.MonkeyPatch,
    options: list[str],
    code: int,
    message: str,
) -> None:
    store(X=np.ones((9, 2)), y=1 + np.arange(9) % 3)
    monkeypatch.setattr("dsoftmax.runtime.connect._FLUSH_SECONDS", 0.1)
    with dask.config.set({"dsoftmax.worker-timeout": "100ms"}):
        done = dsoftmax("train", "data.zarr", "m.zarr", *options)
    assert done.returncode == code
    assert message in done.stderr


@pytest.mark.parametrize(
    "command", [["plan", "data.zarr"], ["train", "data.zarr", "m", "--dry-run"]]
)
def test_a_plan_for_described_workers_is_of_them_and_starts_nothing(
    store: Callable[..., str],
    dsoftmax: Dsoftmax,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    command: list[str],
) -> None:
    store(rows=10, X=np.ones((95, 3)), y=1 + np.arange(95) % 3)
    (tmp_path / "job.toml").write_text('[cluster]\nscheduler_file = "none.json"\n')
    monkeypatch.setattr("dsoftmax.runtime.local_cluster._LocalCluster", None)  # it would be called
    described = ["--workers", 3, "--threads-per-worker", 2, "--memory-limit", "1GiB"]
    before = set(tmp_path.iterdir())
    done = dsoftmax(*command, "--config", "job.toml", *described)
    assert done.returncode == 0, done.stderr
    assert "workers as given: 3 processes, 6 tasks at once" in done.stdout
    assert "a process, of 1.00 GiB" in done.stdout
    unlimited = dsoftmax(*command, "--workers", 1, "--memory-limit", "0MiB")
    assert "MiB a process\n" in unlimited.stdout
    assert dsoftmax(*command, "--workers", 1, "--memory-limit", "99MiB").returncode == 2
    both = dsoftmax(*command, "--scheduler", "a:1", "--threads-per-worker", 2)
    assert (both.returncode, "drop them" in both.stderr) == (2, True)
    assert set(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    "command", [["plan", "data.zarr"], ["train", "data.zarr", "m", "--dry-run"]]
)
def test_a_plan_that_does_not_fit_the_described_workers_is_one_message(
    store: Callable[..., str], dsoftmax: Dsoftmax, command: list[str]
) -> None:
    store(rows=90_000, X=np.ones((90_000, 200), "u1"), y=1 + np.arange(90_000) % 3)
    done = dsoftmax(*command, "--workers", 4, "--threads-per-worker", 8, "--memory-limit", "250MiB")
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert "a worker needs" in line
    assert "has 250 MiB" in line
    assert "give each worker" in line
    assert "thread(s)" in line


def test_the_plan_in_the_run_folder_is_of_the_workers_that_are_there(
    cluster: Client, store: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = store(rows=10, X=np.ones((95, 3)), y=1 + np.arange(95) % 3)
    source, folder = open_data(f"{path}/X", f"{path}/y"), RunFolder(tmp_path)
    plan_file, passes = PlanFile(folder, source, SoftmaxRegression()), []
    # One worker is there when the run starts, and the second one comes during the first pass.
    ask = cluster.scheduler_info

    def asked(*arguments: int) -> dict[str, Any]:
        known = ask(*arguments)
        workers = known["workers"]
        return known if passes else {**known, "workers": dict(list(workers.items())[:1])}

    monkeypatch.setattr(cluster, "scheduler_info", asked)
    plan_file.on_event(FitStarted(95, 3, 3, 10, 9, "lbfgs", 9, 1, None, 0))
    assert "1 processes" in (tmp_path / "plan.txt").read_text()
    passes.append(1)
    plan_file.on_event(CandidatesJudged((), (), (), (), (), (), (), 0))
    assert "2 processes" in (tmp_path / "plan.txt").read_text()
