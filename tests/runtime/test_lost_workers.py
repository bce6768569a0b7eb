"""Workers, schedulers and storage that go away, or come late, in the middle of a fit."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import dask
import numpy as np
import pytest
from distributed import Client, LocalCluster, get_worker

from dsoftmax import DsoftmaxError, OutageError, open_data
from dsoftmax.events import PassEnded, RowsDone
from dsoftmax.runtime.connect import local_workers
from tests import faulty
from tests.callbacks import Once, kill_a_worker
from tests.faulty import Faulty
from tests.fits import bits, fitted, model_of

pytestmark = pytest.mark.usefixtures("small_spans")


@pytest.fixture
def workers() -> Iterator[LocalCluster]:
    with LocalCluster(
        n_workers=1, threads_per_worker=1, dashboard_address="127.0.0.1:0"
    ) as cluster:
        yield cluster


@pytest.mark.slow
def test_a_fit_whose_workers_are_all_gone_stops_with_its_checkpoint(
    path: str, tmp_path: Path, workers: LocalCluster
) -> None:
    place = tmp_path / "state"
    leave = Once(PassEnded, lambda: workers.scale(0))
    with (
        dask.config.set({"dsoftmax.worker-timeout": "1s", "dsoftmax.checkpoint-interval": 0}),
        Client(workers),
        pytest.raises(OutageError, match="has had no worker for 1 seconds"),
    ):
        fitted(path, "lbfgs", checkpoint=place, callbacks=[leave])
    assert bits(fitted(path, "lbfgs", checkpoint=place)) == bits(fitted(path, "lbfgs"))


@pytest.mark.slow
def test_a_fit_whose_scheduler_is_killed_goes_on_with_another(path: str, tmp_path: Path) -> None:
    place = tmp_path / "state"
    with local_workers(1) as client:
        kill = Once(PassEnded, client.cluster.scheduler.process.kill)
        with (
            dask.config.set({"dsoftmax.checkpoint-interval": 0}),
            pytest.raises(DsoftmaxError, match="scheduler"),
        ):
            fitted(path, "sgd", checkpoint=place, callbacks=[kill])
    assert bits(fitted(path, "sgd", checkpoint=place)) == bits(fitted(path, "sgd"))


@pytest.mark.slow
def test_a_command_without_workers_asks_to_be_run_again(path: str, tmp_path: Path) -> None:
    with LocalCluster(n_workers=0, dashboard_address="127.0.0.1:0") as cluster:
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "dsoftmax",
                "train",
                path,
                tmp_path / "m.zarr",
                "--checkpoint",
                tmp_path / "state",
                "--scheduler",
                cluster.scheduler_address,
            ],
            capture_output=True,
            text=True,
            timeout=120,
            env=os.environ | {"DASK_DSOFTMAX__WORKER_TIMEOUT": "1s"},
        )
    assert done.returncode == 75, done.stderr
    assert "has had no worker for 1 seconds" in done.stderr
    assert "run this again to go on" in done.stderr


@dataclass(frozen=True)
class Slow(Faulty):
    """Takes its time, and notes which worker reads."""

    def read(self, start: int, stop: int) -> np.ndarray:
        time.sleep(0.6)
        (self.log / str(get_worker().address).replace("/", "_")).touch()
        return self.array.read(start, stop)


@pytest.mark.slow
def test_a_worker_that_joins_in_the_middle_of_a_pass_helps_with_it(
    path: str, tmp_path: Path, workers: LocalCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "dsoftmax.runtime.reduce.cut_tasks", lambda n, *_, **__: [(i, i + 1) for i in range(n)]
    )  # tasks of one chunk
    faulty.by_value(sys.modules[__name__])
    source = open_data(f"{path}/X", f"{path}/y")
    log = tmp_path / "log"
    log.mkdir()
    join = Once(RowsDone, lambda: workers.scale(2))
    model = model_of("lbfgs", max_iter=1, callbacks=[join])
    with Client(workers), pytest.warns(match="budget"):
        model.fit(replace(source, X=Slow(source.X, {}, log)))
    assert len(list(log.iterdir())) == 2
    assert bits(model) == bits(fitted(path, "lbfgs", max_iter=1))


@pytest.mark.slow
def test_a_worker_that_is_killed_in_the_middle_of_a_pass_changes_no_bit(path: str) -> None:
    with local_workers(2) as client:
        kill = Once(RowsDone, lambda: kill_a_worker(client))
        model = fitted(path, "lbfgs", callbacks=[kill])
    assert kill.done
    assert bits(model) == bits(fitted(path, "lbfgs"))
    assert [r["rows"] for r in model.history_] == [1797] * 6  # none missed, and none twice


@pytest.mark.slow
def test_workers_that_compute_otherwise_are_named_in_one_warning(
    path: str, workers: LocalCluster
) -> None:
    """OpenBLAS on an old CPU, as its own setting makes it believe."""
    command = [
        sys.executable,
        "-m",
        "distributed.cli.dask_worker",
        workers.scheduler_address,
        "--nthreads",
        "1",
        "--no-nanny",
        "--no-dashboard",
    ]
    with (
        Client(workers) as client,
        subprocess.Popen(command, env=os.environ | {"OPENBLAS_CORETYPE": "Nehalem"}) as old,
    ):
        while len(client.scheduler_info()["workers"]) < 2:
            time.sleep(0.1)
        with pytest.warns(UserWarning, match=r"tcp://.* computes otherwise than") as caught:
            model = fitted(path, "adam")
        old.terminate()
    assert sum("computes otherwise" in str(warning.message) for warning in caught) == 1
    assert len(model.numerics_) == 2
    assert any("Nehalem" in kind for kind in model.numerics_)
