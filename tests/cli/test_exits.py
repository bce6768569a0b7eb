"""Every exit says what to do next: stopped, over, refused; and refusals leave nothing behind."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import dask
import numpy as np
import pytest
import zarr

from dsoftmax import load_model
from dsoftmax.cli import signals
from dsoftmax.diagnostics.progress import Progress
from dsoftmax.events import Event, PassEnded
from tests.benchmarks.stops import WHERE, Trials
from tests.conftest import Done, Dsoftmax

Store = Callable[..., str]

pytestmark = pytest.mark.usefixtures("data")
NO_SCHEDULER = ("--scheduler-file", "none.json")  # for which a run would wait, and then fail


@pytest.fixture
def data(store: Store) -> str:
    """Rows of three classes, in `data.zarr`."""
    X = np.random.default_rng(0).normal(size=(200, 3)).astype("f4")
    return store(rows=50, X=X, y=X.argmax(axis=1))


def content(folder: Path) -> dict[str, bytes]:
    """Return all folders and files below one, and what is in them."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b""
        for path in sorted(folder.rglob("*"))
    }


RUNS = {
    "a fit": ("data.zarr", "m.zarr", "--checkpoint", "state"),
    "one whose budget is spent": (
        *("data.zarr", "m.zarr", "--checkpoint", "state"),
        *("--max-iter", "2", "--solver", "sgd", "--tol", "0", "--early-stopping"),
    ),
    "a fit with a run folder": ("data.zarr", "--run-folder", "run"),
    "a search": ("data.zarr", "m.zarr", "--checkpoint", "state", "--alphas", "0.1,1", "--cv", "3"),
    "a search by other rows": (
        *("data.zarr", "m.zarr", "--checkpoint", "state"),
        *("--alphas", "0.1,1", "--validation", "other.zarr"),
    ),
}


@pytest.mark.parametrize("run", RUNS)
def test_the_same_command_on_a_run_that_is_over_ends_at_once(
    run: str, dsoftmax: Dsoftmax, tmp_path: Path, reads: list[str], store: Store
) -> None:
    X = np.random.default_rng(1).normal(size=(90, 3)).astype("f4")
    store(name="other.zarr", X=X, y=X.argmax(axis=1))
    first = dsoftmax("train", *RUNS[run])
    assert first.returncode == 0, first.stderr
    model = "run/model.zarr" if "run" in RUNS[run] else "m.zarr"
    before = content(tmp_path)
    reads.clear()
    with dask.config.set({"dsoftmax.worker-timeout": "10ms"}):
        again = dsoftmax("train", *RUNS[run], *NO_SCHEDULER)
    assert (again.returncode, again.stdout) == (0, first.stdout), again.stderr
    assert "is finished" in again.stderr
    assert f"model: {model}" in again.stdout
    assert not [read for read in reads if read.startswith(("X/c/", "y/c/"))]
    after = content(tmp_path)
    changed = {name for name in before | after if before.get(name) != after.get(name)}
    assert changed <= {"run/log.txt", "run/config.toml"}

    expected = load_model(model)
    subprocess.run(["rm", "-r", model], check=True)
    assert dsoftmax("train", *RUNS[run]).returncode == 0
    assert load_model(model).coef_.tobytes() == expected.coef_.tobytes()
    assert load_model(model).history_ == expected.history_


def test_other_parameters_data_or_models_are_refused_where_a_run_is_over(
    dsoftmax: Dsoftmax, tmp_path: Path
) -> None:
    command = ("train", "data.zarr", "m.zarr", "--checkpoint", "state")
    assert dsoftmax(*command).returncode == 0
    before = content(tmp_path)
    other = dsoftmax(*command, "--alpha", "7")
    assert (other.returncode, "alpha was 0.0001, and is 7.0" in other.stderr) == (1, True)
    assert dsoftmax("train", "data.zarr", "n.zarr", "--alpha", "7").returncode == 0
    there = dsoftmax("train", "data.zarr", "n.zarr", "--checkpoint", "state")
    assert (there.returncode, "already holds a Zarr store" in there.stderr) == (2, True)
    assert before.items() <= content(tmp_path).items()
    zarr.open_group(tmp_path / "data.zarr", mode="r+")["X"][3] = 9.0
    changed = dsoftmax(*command)
    assert changed.returncode == 1
    assert "chunks of X were written, or removed, since" in changed.stderr


def test_a_run_that_is_over_goes_on_with_a_larger_budget_and_keeps_the_model_unless_told(
    dsoftmax: Dsoftmax,
) -> None:
    command = ("train", "data.zarr", "m.zarr", "--checkpoint", "state", "--tol", "0")
    options = ("--solver", "lbfgs", "--max-iter")
    assert dsoftmax(*command, *options, "3").returncode == 0
    kept = dsoftmax(*command, *options, "5")
    assert (kept.returncode, "already holds a Zarr store" in kept.stderr) == (2, True)
    assert dsoftmax(*command, *options, "5", "--overwrite").returncode == 0
    assert load_model("m.zarr").n_iter_ == 5


def test_a_prediction_that_is_complete_needs_no_cluster(
    dsoftmax: Dsoftmax, tmp_path: Path, reads: list[str]
) -> None:
    assert dsoftmax("train", "data.zarr", "m.zarr").returncode == 0
    command = ("predict", "m.zarr", "data.zarr", "p.zarr", "--resume")
    first = dsoftmax(*command)
    before = content(tmp_path)
    reads.clear()
    with dask.config.set({"dsoftmax.worker-timeout": "10ms"}):
        again = dsoftmax(*command, *NO_SCHEDULER)
        other = dsoftmax(*command, *NO_SCHEDULER, "--method", "predict")
    assert (again.returncode, again.stdout) == (0, first.stdout)
    assert "p.zarr is complete" in again.stderr
    assert (
        len([read for read in reads if read.startswith("X/c/")]) <= 2
    )  # the first chunk, once a command
    assert other.returncode != 0
    assert content(tmp_path) == before


WRONG = [
    ["train", "typo.zarr", "out/m.zarr", "--checkpoint", "new/state"],
    ["train", "typo.zarr", "--run-folder", "new/run"],
    ["train", "data.zarr", "--run-folder", "new/run", "--y", "z"],
    ["train", "data.zarr", "--run-folder", "new/run", "--solver", "saga"],
    ["train", "data.zarr", "--run-folder", "new/run", "--validation", "typo.zarr"],
    ["train", "data.zarr", "out/m.zarr", "--checkpoint", "new/state", "--batch-size", "0"],
    ["train", "bad.zarr", "out/m.zarr", "--checkpoint", "new/state"],
    ["train", "bad.zarr", "out/m.zarr", "--checkpoint", "new/state", "--alphas", "3"],
    ["train", "data.zarr", "out/m.zarr", "--checkpoint", "data.zarr"],
    ["train", "data.zarr", "out/m.zarr", "--log", "typo/log", "--checkpoint", "new/state"],
    ["train", "data.zarr", "out/m.zarr", "--plot", "new/p.png"],
    ["train", "data.zarr", "memory://m.zarr"],
    ["train", "data.zarr", "out/m.zarr", "--checkpoint", "memory://state"],
    ["train", "data.zarr", "out/m.zarr", "--config", "memory.toml"],
    ["train", "data.zarr", "out/m.zarr", "--checkpoint", "s3:/bucket/state"],
    ["train", "data.zarr", "--run-folder", "s3://bucket/run"],
    ["predict", "out/m.zarr", "data.zarr", "new/p.zarr"],
    ["predict", "m.zarr", "typo.zarr", "new/p.zarr", "--resume"],
    ["predict", "m.zarr", "bad.zarr", "new/p.zarr", "--method", "predict"],
    ["predict", "m.zarr", "data.zarr", "memory://p"],
    ["evaluate", "out/typo/m.zarr", "data.zarr"],
    ["evaluate", "m.zarr", "data.zarr", "--plot", "new/p.png"],
    ["plan", "out/typo.zarr"],
    ["inspect", "out/typo.zarr"],
    ["ingest", "bad.csv", "new/data.zarr", "--y", "label"],
    ["ingest", "data.zarr", "memory://data"],
    ["demo", "--output", "new/demo", "--plot", "p.doc"],
]


@pytest.mark.parametrize("wrong", WRONG, ids=" ".join)
def test_a_command_that_is_refused_leaves_files_and_folders_as_they_were(
    wrong: list[str], dsoftmax: Dsoftmax, tmp_path: Path, store: Store
) -> None:
    X = np.random.default_rng(0).normal(size=(200, 3)).astype("f4")
    y = X.argmax(axis=1)
    X[170] = np.nan
    store(rows=50, name="bad.zarr", X=X, y=y)
    (tmp_path / "bad.csv").write_text("a,label\n1,x\nmuch,y\n")
    (tmp_path / "memory.toml").write_text('[checkpoint]\nplace = "memory://state"\n')
    if "m.zarr" in wrong:
        assert dsoftmax("train", "data.zarr", "m.zarr").returncode == 0
    before = content(tmp_path)
    done = dsoftmax(*wrong)
    assert done.returncode in (1, 2)
    assert done.stderr.splitlines()[-1].startswith("Error: ")
    assert content(tmp_path) == before


def stopped_after_passes(
    dsoftmax: Dsoftmax, monkeypatch: pytest.MonkeyPatch, *numbers: signal.Signals
) -> Done:
    """Run a fit without a checkpoint that gets a signal after its third pass."""
    told = Progress.on_event

    def interrupted(self: Progress, event: Event) -> None:
        told(self, event)
        if isinstance(event, PassEnded) and event.passes == 3:
            for number in numbers:
                signal.raise_signal(number)

    with monkeypatch.context() as patch:
        patch.setattr(Progress, "on_event", interrupted)
        return dsoftmax("train", "data.zarr", "m.zarr", "--solver", "lbfgs", "--tol", "0")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_without_a_checkpoint_a_signal_gives_its_own_exit_code_and_the_model_so_far(
    number: signal.Signals, dsoftmax: Dsoftmax, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = stopped_after_passes(dsoftmax, monkeypatch, number)
    assert done.returncode == 128 + number
    assert load_model("m.zarr").n_iter_ == 3
    assert "Traceback" not in done.stderr


def test_an_interrupt_that_a_destructor_has_swallowed_comes_once_more(
    dsoftmax: Dsoftmax, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Swallows:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGTERM)

    told = Progress.on_event

    def swallowed(self: Progress, event: Event) -> None:
        told(self, event)
        if isinstance(event, PassEnded) and event.passes == 1:
            Swallows()

    monkeypatch.setattr(Progress, "on_event", swallowed)
    command = ("train", "data.zarr", "m.zarr", "--checkpoint", "state", "--solver", "lbfgs")
    assert dsoftmax(*command, "--tol", "0").returncode == signals.TEMPORARY_FAILURE


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [
        ["predict", "m.zarr", "data.zarr", "p.zarr"],
        ["evaluate", "m.zarr", "data.zarr"],
        ["inspect", "data.zarr"],
        ["plan", "data.zarr"],
        ["ingest", "data.zarr", "copy.zarr"],
        ["demo", "--size", "4MiB"],
    ],
    ids=lambda command: command[0],
)
def test_a_command_that_is_stopped_in_its_imports_says_so_in_one_line(
    command: list[str], dsoftmax: Dsoftmax, tmp_path: Path
) -> None:
    assert dsoftmax("train", "data.zarr", "m.zarr").returncode == 0
    before = content(tmp_path)
    # The module of the first class that is imported once the arguments are known sends the signal.
    code = f"""
import signal, sys, importlib.abc
class Sends(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name in ("dsoftmax.data.zarr_array", "dsoftmax.runtime.local_cluster"):
            sys.meta_path.remove(self)
            signal.raise_signal(signal.SIGTERM)
sys.meta_path.insert(0, Sends())
sys.argv = ["dsoftmax", *{command!r}]
from dsoftmax.cli import main
main()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr.strip()) == (143, "stopped by SIGTERM")
    assert content(tmp_path) == before


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_command_that_is_stopped_at_any_time_says_how_to_go_on(tmp_path: Path) -> None:
    """Ten of the random trials of `tests/benchmarks/stops.py`, which runs hundreds."""
    trials = Trials(tmp_path / "trials")
    for seed in range(10):
        where = list(WHERE)[seed % 2]
        trial = trials.run(where, 1000 + seed, again=seed % 7 == 0)
        assert not trial.faults, json.dumps(vars(trial), default=str, indent=1)
