"""Batch jobs on a real Slurm of one node."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import psutil
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


def submit(node: slurm.Slurm, job: Path, *arguments: str) -> str:
    """Submit the script with options of its own and of Slurm, which come before."""
    of_slurm = ("--array=", "--ntasks=", "--mem-per-cpu=", "--time=")
    first = [argument for argument in arguments if argument.startswith(of_slurm)]
    others = [argument for argument in arguments if argument not in first]
    first = ["--ntasks=2", "--mem-per-cpu=500", *first]
    return node.submit(*first, SCRIPT, "job.toml", *others, cwd=job.parent)


def preempt(node: slurm.Slurm, where: Path) -> None:
    """Submit a job that needs the whole node, to a partition that goes before."""
    node.submit("--partition=urgent", "--ntasks=8", "--mem-per-cpu=100", "--wrap=true", cwd=where)


def test_a_job_whose_time_is_up_goes_back_to_the_queue(node: slurm.Slurm, job: Path) -> None:
    # Slurm looks at the times every 30 seconds.
    number = submit(node, job, "--time=2", "--max-iter", "100000")
    slurm.wait_until(lambda: node.shown(number, "Restarts") == "1")
    node.run("scancel", number)
    assert node.wait_for_end(number) == "CANCELLED"
    assert "back to the queue" in said(job.parent)


def test_a_job_goes_on_after_the_signal_a_preemption_and_a_requeue(
    node: slurm.Slurm, job: Path, path: str
) -> None:
    where = job.parent
    number = submit(node, job, "--ntasks=3")
    stops = [
        lambda: node.run("scancel", "--batch", "--signal=USR1", number),  # as the time limit does
        lambda: preempt(node, where),
        lambda: node.run("scontrol", "requeue", number),
    ]
    for restarts, stop in enumerate(stops):

        def is_under_way(enough: int = 5 + 8 * restarts) -> bool:
            node.hurry(number)
            return passes(where / "run/log.txt") >= enough

        slurm.wait_until(is_under_way, 400)
        if restarts == 0:
            require_closed(where / f".dsoftmax-{number}-0")
        stop()
        slurm.wait_until(lambda n=restarts: int(node.shown(number, "Restarts")) > n)
    assert node.wait_for_end(number) == "COMPLETED", said(where)
    log = said(where)
    print(log)
    # Slurm itself sends back what is requeued, and a preemption has a time of grace here.
    assert log.count("back to the queue, to go on") == 2
    assert log.count("goes on, after") == 3
    assert log.count("adam on 2 Dask workers") == 4
    assert bits_of(where / "run/model.zarr") == undisturbed(path, 7)
    assert not list(where.glob(".dsoftmax-*"))  # no key is left behind


def require_closed(private: Path) -> None:
    """Fail unless the job's cluster wants a certificate, and shows nothing else elsewhere."""
    file = private / "scheduler.json"
    with pytest.raises(DsoftmaxError, match="wants a certificate"), connected(scheduler_file=file):
        pass
    assert private.stat().st_mode & 0o777 == 0o700
    ports.require_only_tls_elsewhere(str(file), least=3)


def test_an_array_trains_a_model_for_each_seed_and_a_task_comes_back_alone(
    node: slurm.Slurm, job: Path, path: str
) -> None:
    where = job.parent
    number = submit(node, job, "--array=0-2", "--max-iter", "12")
    log = where / "runs/seed-2/log.txt"
    slurm.wait_until(lambda: passes(where / "runs/seed-0/log.txt") >= 1, 400)
    node.run("scancel", f"{number}_0")
    slurm.wait_until(lambda: passes(log) >= 1, 400)
    assert node.shown(f"{number}_2", "JobId") == number  # the last task has the id of the array
    node.run("scancel", "--batch", "--signal=USR1", f"{number}_2")
    slurm.wait_until(lambda: node.shown(f"{number}_2", "Restarts") == "1")
    assert node.wait_for_end(number, 600) == "CANCELLED COMPLETED", said(where)
    assert [node.shown(f"{number}_{seed}", "Restarts") for seed in range(3)] == ["0", "0", "1"]
    assert not (where / "runs/seed-0/model.zarr").exists()
    found = [bits_of(where / f"runs/seed-{seed}/model.zarr") for seed in (1, 2)]
    assert found == [undisturbed(path, seed, max_iter=12) for seed in (1, 2)]
    assert found[0] != found[1]
    for seed in range(3):
        log = where / f"dsoftmax-{number}_{seed}.log"
        assert f"--seed {seed} --run-folder" in log.read_text().splitlines()[0]
    assert "start 2" in log.read_text()


def in_training(where: Path, number: str) -> bool:
    log = where / f"dsoftmax-{number}.log"
    return log.exists() and "adam on 1 Dask workers" in log.read_text()


def test_what_is_cancelled_stays_cancelled_and_leaves_no_process(
    node: slurm.Slurm, job: Path
) -> None:
    where = job.parent

    def has_workers(number: str) -> bool:
        return any("dask worker" in command for command in slurm.processes_of(number))

    def is_stopping(number: str) -> bool:
        if ready := in_training(where, number):
            node.run("scancel", "--batch", "--signal=USR1", number)
        return ready

    # How, when, and in which state the job then is.
    ways = [
        (["scancel"], lambda number: node.state(number) == "RUNNING", "CANCELLED"),
        (["scancel", "--batch", "--signal=TERM"], has_workers, "FAILED"),
        (["scancel", "--batch"], has_workers, "FAILED"),
        (["scancel", "--signal=TERM"], lambda number: in_training(where, number), "FAILED"),
        (["scancel"], is_stopping, "CANCELLED"),
    ]
    for way, (command, is_time, state) in enumerate(ways):
        number = submit(node, job, "--run-folder", f"way-{way}", "--max-iter", "100000")
        slurm.wait_until(lambda is_time=is_time, number=number: is_time(number))
        node.run(*command, number)
        assert node.wait_for_end(number, 100) == state, command
        assert node.shown(number, "Restarts") == "0"
        slurm.wait_until(lambda number=number: not slurm.processes_of(number), 20)
    assert not list(where.glob(".dsoftmax-*"))  # no key is left behind


def test_a_job_that_is_out_of_memory_fails_and_does_not_come_back(
    node: slurm.Slurm, job: Path
) -> None:
    number = submit(node, job, "--max-iter", "100000")
    slurm.wait_until(lambda: in_training(job.parent, number))
    (train,) = [
        process
        for process in psutil.process_iter(["cmdline"])
        if "--scheduler-file" in process.info["cmdline"] and "train" in process.info["cmdline"]
    ]
    train.kill()  # as the kernel does
    assert node.wait_for_end(number) == "FAILED"
    assert node.shown(number, "ExitCode") == "137:0"
    assert node.shown(number, "Restarts") == "0"
    assert "memory" in last_line(job.parent, number)


def last_line(where: Path, number: str) -> str:
    return (where / f"dsoftmax-{number}.log").read_text().splitlines()[-1]


def test_a_job_that_cannot_work_starts_no_cluster_and_says_why_last(
    node: slurm.Slurm, job: Path
) -> None:
    where = job.parent
    bad = {
        "data.zarr/Z does not exist": ["--x", "Z"],
        "alpha": ["--alpha", "-1"],
        "200": ["--mem-per-cpu=100"],
    }
    numbers = [submit(node, job, *arguments) for arguments in bad.values()]
    for words, number in zip(bad, numbers, strict=True):
        assert node.wait_for_end(number) == "FAILED"
        assert node.shown(number, "Restarts") == "0"
        assert node.shown(number, "ExitCode") in ("1:0", "2:0")
        line = last_line(where, number)
        assert line.startswith("Error: ")
        assert words in line
        assert "workers" not in (where / f"dsoftmax-{number}.log").read_text()
    assert not list(where.glob("*dask.log"))
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
