"""Batch jobs on a real Slurm of one node."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from dsoftmax import DsoftmaxError, SoftmaxRegression, load_model
from dsoftmax.events import Event, PassEnded
from dsoftmax.runtime.connect import connected
from dsoftmax.runtime.tls import write_certificates
from tests.cluster import ports, slurm

ROOT = Path(__file__).parent.parent.parent
SCRIPT = ROOT / "cluster/slurm.sbatch"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(bool(slurm.missing()), reason=f"this machine lacks {slurm.missing()}"),
]


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[slurm.Slurm]:
    with slurm.slurm(tmp_path_factory.mktemp("slurm")) as started:
        yield started


PARAMETERS = {"alpha": 1e-3, "solver": "adam", "max_iter": 40, "tol": 0.0}


@pytest.fixture
def job(path: str, tmp_path: Path) -> Path:
    model = "\n".join(f"{name} = {json.dumps(value)}" for name, value in PARAMETERS.items())
    (tmp_path / "job.toml").write_text(
        f"[data]\nstore = '{path}'\n[model]\n{model}\nrandom_state = 7\n[output]\nfolder = 'run'\n"
    )
    return tmp_path / "job.toml"


def undisturbed(path: str, seed: int, max_iter: int = 40) -> bytes:
    """Return the bits of the fit that nothing disturbs, in this process."""
    model = SoftmaxRegression(**{**PARAMETERS, "max_iter": max_iter}, random_state=seed)
    with pytest.warns(match="budget"):
        model.fit(f"{path}/X", f"{path}/y")
    return model.coef_.tobytes() + model.intercept_.tobytes()


def bits_of(model: Path) -> bytes:
    loaded = load_model(model)
    return loaded.coef_.tobytes() + loaded.intercept_.tobytes()


def passes(log: Path) -> int:
    """Return the last pass that a log tells of."""
    lines = log.read_text().splitlines() if log.exists() else []
    found = [m for m in (re.match(r"\S+ \S+ +(\d+) +\d\.\d+ ", line) for line in lines) if m]
    return int(found[-1][1]) if found else 0


def said(folder: Path) -> str:
    return "\n".join(path.read_text() for path in sorted(folder.glob("dsoftmax-*.log")))


def test_a_job_that_is_stopped_twice_ends_with_the_bits_of_an_undisturbed_one(
    node: slurm.Slurm, job: Path, path: str
) -> None:
    where = job.parent
    number = node.submit("--ntasks=3", "--mem-per-cpu=500", SCRIPT, "job.toml", cwd=where)
    for stops, enough in enumerate((5, 20)):

        def is_under_way(enough: int = enough) -> bool:
            node.hurry(number)
            return passes(where / "run/log.txt") >= enough

        slurm.wait_until(is_under_way, 400)
        if stops == 0:
            require_closed(where / f".dsoftmax-{number}-0")
        node.run("scancel", "--batch", "--signal=TERM", number)
        slurm.wait_until(lambda n=stops: said(where).count("back to the queue") > n)
    assert node.wait_for_end(number) == "COMPLETED", said(where)
    log = said(where)
    print(log)
    assert log.count("ended with exit code 75") == 2
    assert log.count("goes on, after") == 2
    assert log.count("ended with exit code 0") == 1
    assert log.count("adam on 2 Dask workers") == 3
    assert bits_of(where / "run/model.zarr") == undisturbed(path, 7)
    assert not list(where.glob(".dsoftmax-*"))  # no key is left behind


def require_closed(private: Path) -> None:
    """Fail unless the job's cluster wants a certificate, and shows nothing else elsewhere."""
    file = private / "scheduler.json"
    with pytest.raises(DsoftmaxError, match="wants a certificate"), connected(scheduler_file=file):
        pass
    assert private.stat().st_mode & 0o777 == 0o700
    ports.require_only_tls_elsewhere(str(file), least=3)


def test_an_array_trains_a_model_for_each_seed(node: slurm.Slurm, job: Path, path: str) -> None:
    where = job.parent
    number = node.submit(
        "--array=0-2",
        "--ntasks=2",
        "--mem-per-cpu=500",
        SCRIPT,
        "job.toml",
        "--max-iter",
        "5",
        cwd=where,
    )
    assert node.wait_for_end(number, 600) == "COMPLETED", said(where)
    found = [bits_of(where / f"runs/seed-{seed}/model.zarr") for seed in range(3)]
    assert found == [undisturbed(path, seed, max_iter=5) for seed in range(3)]
    assert len(set(found)) == 3


def test_a_job_that_cannot_work_fails_and_says_why(node: slurm.Slurm, job: Path) -> None:
    where = job.parent
    number = node.submit(
        "--ntasks=2", "--mem-per-cpu=500", SCRIPT, "job.toml", "--x", "Z", cwd=where
    )
    assert node.wait_for_end(number) == "FAILED"
    assert "data.zarr/Z does not exist" in said(where)
    assert "exit code 2" in said(where)
    assert not list(where.glob(".dsoftmax-*"))


def test_workers_that_are_jobs_come_and_go_with_no_effect_on_the_bits(
    node: slurm.Slurm, path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("dask_jobqueue", reason="needs the extra slurm")
    from cluster.slurm_jobqueue import cluster_of_jobs

    for name in ("PATH", "SLURM_CONF"):
        monkeypatch.setenv(name, node.environment[name])
    monkeypatch.chdir(tmp_path)
    write_certificates(tmp_path / "certs")
    seen = []
    with (
        cluster_of_jobs(tmp_path / "certs", tmp_path / "scheduler.json", "500MiB") as jobs,
        connected(scheduler_file=tmp_path / "scheduler.json", certs=tmp_path / "certs") as client,
    ):

        class Scale:
            """Asks for other numbers of jobs in the middle of the fit, and waits for them."""

            def on_event(self, event: Event) -> None:
                if isinstance(event, PassEnded) and round(event.passes) in (3, 6):
                    wanted = 3 if event.passes < 5 else 1
                    jobs.scale(wanted)
                    slurm.wait_until(lambda: len(client.scheduler_info(-1)["workers"]) == wanted)
                    seen.append(node.run("squeue", "--noheader", "--states=RUNNING"))

        jobs.scale(1)
        model = SoftmaxRegression(
            **{**PARAMETERS, "max_iter": 9}, random_state=0, callbacks=[Scale()]
        )
        with pytest.warns(match="budget"):
            model.fit(f"{path}/X", f"{path}/y")
        assert "tls://" in jobs.scheduler_address
        ports.require_only_tls_elsewhere("--tls-key", least=1)
        key = (tmp_path / "certs/tls.key").read_text().splitlines()[1]
        assert "--tls-key" in jobs.job_script()
        assert key not in jobs.job_script()
    assert len(seen) == 2
    assert len(seen[0].splitlines()) == 3
    here = SoftmaxRegression(**{**PARAMETERS, "max_iter": 9}, random_state=0)
    with pytest.warns(match="budget"):
        here.fit(f"{path}/X", f"{path}/y")
    assert model.coef_.tobytes() == here.coef_.tobytes()
    slurm.wait_until(lambda: not node.run("squeue", "--noheader"))
