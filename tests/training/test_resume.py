"""A fit that is stopped, by whatever, goes on where it was, to the same bits."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
import zarr
from distributed import Client
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV

from dsoftmax import (
    CheckpointError,
    SoftmaxRegression,
    SoftmaxRegressionCV,
    load_model,
    open_data,
)
from dsoftmax.events import PassEnded, RowsDone
from dsoftmax.runtime.tls import security_options
from dsoftmax.storage.lock import FolderLock
from tests.callbacks import Recorder, StopAfter, StopError
from tests.fits import bits, fitted, model_of

Store = Callable[..., str]
Arrays = tuple[np.ndarray, np.ndarray]

pytestmark = pytest.mark.usefixtures("small_spans", "checkpoint_always")


def stopped_again_and_again(
    path: str, solver: str, place: Path | str, hows: Iterator[type[BaseException]], **changes: Any
) -> tuple[SoftmaxRegression, int]:
    """Fit, stopped after a few events each time, and return the model and the number of stops."""
    rng = np.random.default_rng(0)
    for stops in range(1000):
        after = StopAfter(int(rng.integers(2, 9)), next(hows))
        try:
            model = fitted(path, solver, checkpoint=place, callbacks=[after], **changes)
        except (StopError, KeyboardInterrupt):
            continue
        if not model.stop_reason_.startswith("interrupted"):
            return model, stops
    raise AssertionError("it never ends")


@pytest.mark.parametrize(
    "solver",
    [
        "lbfgs",
        "fista",
        *(pytest.param(n, marks=pytest.mark.slow) for n in ("newton", "sgd", "adam")),
    ],
)
def test_a_fit_that_is_stopped_again_and_again_has_the_same_bits(
    path: str, tmp_path: Path, solver: str
) -> None:
    expected = fitted(path, solver)
    hows = itertools.cycle([StopError, KeyboardInterrupt])
    model, stops = stopped_again_and_again(path, solver, tmp_path / "state", hows)
    assert stops > 3
    assert bits(model) == bits(expected)
    for name in ("loss_", "n_iter_", "n_steps_", "stop_reason_", "seed_"):
        assert getattr(model, name) == getattr(expected, name)
    rows = [[record["rows"] for record in m.history_] for m in (model, expected)]
    assert rows[0] == rows[1]
    seconds = [record["seconds"] for record in model.history_]
    assert seconds == sorted(seconds)


def test_a_checkpoint_may_be_at_a_url(path: str) -> None:
    model, stops = stopped_again_and_again(
        path, "lbfgs", "memory://state", itertools.cycle([StopError])
    )
    assert stops > 3
    assert bits(model) == bits(fitted(path, "lbfgs"))


@pytest.mark.slow
@pytest.mark.parametrize("solver", ["lbfgs", "adam"])
def test_a_fit_resumes_on_other_machines_to_the_same_bits(
    path: str, tmp_path: Path, solver: str, cluster: Client
) -> None:
    place = tmp_path / "state"
    with pytest.raises(StopError):
        fitted(path, solver, checkpoint=place, callbacks=[StopAfter(12)])
    fit = f"fitted({path!r}, {solver!r}, checkpoint={str(place)!r}, callbacks=[StopAfter(12)])"
    options = security_options(cluster.cluster.folder)
    connect = f"""
from distributed import Client, Security
Client({cluster.scheduler.address!r}, security=Security(**{options}))"""
    for where in ("", connect):
        done = python(f"{where}\n{fit}")
        assert "StopError" in done.stderr.splitlines()[-1], done.stderr
    with cluster.as_current():
        model = fitted(path, solver, checkpoint=place)
    assert bits(model) == bits(fitted(path, solver))


PREAMBLE = """
import os, resource, signal
import dask, pytest
from dsoftmax.events import CheckpointWritten
from tests.callbacks import StopAfter
from tests.fits import fitted
dask.config.set({"dsoftmax.checkpoint-interval": 0})
pytest.MonkeyPatch().setattr("dsoftmax.runtime.spans._SPAN_BYTES", 1)
"""


def python(code: str) -> subprocess.CompletedProcess[str]:
    """Run code in a process of its own, which may be killed."""
    return subprocess.run(
        [sys.executable, "-c", PREAMBLE + code],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=Path(__file__).parents[2],
    )


@pytest.mark.slow
def test_a_pass_longer_than_every_job_still_ends_with_the_same_bits(
    path: str, tmp_path: Path
) -> None:
    """Each job is killed in the middle of a pass, and none ever sees the end of one it began."""
    code = f"""
class Kill:
    def on_event(self, event):
        if isinstance(event, CheckpointWritten):
            os.kill(os.getpid(), signal.SIGKILL)

fitted({path!r}, "lbfgs", max_iter=2, checkpoint={str(tmp_path / "state")!r}, callbacks=[Kill()])
"""
    ends = [python(code).returncode for _ in range(2)]
    assert ends == [-signal.SIGKILL] * 2
    log = Recorder()
    model = fitted(path, "lbfgs", max_iter=2, checkpoint=tmp_path / "state", callbacks=[log])
    # A pass is three tasks here, and each job has ended one: one is left.
    kinds = log.names
    assert kinds.index("FitResumed") < kinds.index("PassEnded")
    assert kinds[: kinds.index("PassEnded")].count("RowsDone") == 1
    assert bits(model) == bits(fitted(path, "lbfgs", max_iter=2))


def test_a_finished_fit_is_returned_at_once(path: str, tmp_path: Path, capsys: Any) -> None:
    first = fitted(path, "sgd", checkpoint=tmp_path / "state")
    log = Recorder()
    model = fitted(path, "sgd", checkpoint=tmp_path / "state", callbacks=[log], verbose=1)
    assert set(log.names) == {"FitStarted", "FitResumed", "FitEnded"}
    assert f"the fit in {tmp_path / 'state'} is finished" in capsys.readouterr().err
    assert bits(model) == bits(first)
    assert (model.loss_, model.stop_reason_) == (first.loss_, first.stop_reason_)


@pytest.mark.parametrize("solver", ["lbfgs", "fista"])
def test_a_fit_resumed_with_a_larger_budget_equals_one_with_that_budget(
    path: str, tmp_path: Path, solver: str
) -> None:
    fitted(path, solver, checkpoint=tmp_path / "state", max_iter=3)
    model = fitted(path, solver, checkpoint=tmp_path / "state", max_iter=9)
    assert bits(model) == bits(fitted(path, solver, max_iter=9))
    assert model.n_iter_ == 9


def test_a_larger_budget_lets_mini_batches_resume(path: str, tmp_path: Path) -> None:
    first = fitted(path, "sgd", checkpoint=tmp_path / "state", max_iter=3)
    model = fitted(path, "sgd", checkpoint=tmp_path / "state", max_iter=9)
    assert (first.n_iter_, model.n_iter_) == (3, 9)
    assert model.loss_ < first.loss_


def test_a_larger_budget_discards_the_partial_sum_of_the_closing_pass(
    path: str, tmp_path: Path
) -> None:
    place, done = tmp_path / "state", Recorder(RowsDone)
    fitted(path, "sgd", max_iter=3, callbacks=[done])
    in_closing_pass = StopAfter(len(done.events) - 1, kinds=(RowsDone,))
    with pytest.raises(StopError):
        fitted(path, "sgd", max_iter=3, checkpoint=place, callbacks=[in_closing_pass])
    model = fitted(path, "sgd", checkpoint=place, max_iter=6)
    log_loss = model.evaluate(f"{path}/X", f"{path}/y")["log_loss"]
    penalty = 0.5 * model.alpha * (model.coef_**2).sum()
    assert model.loss_ == pytest.approx(log_loss + penalty, rel=1e-5)


def test_without_a_seed_a_fit_resumes_with_the_seed_it_drew(path: str, tmp_path: Path) -> None:
    with pytest.raises(StopError):
        fitted(
            path, "sgd", random_state=None, checkpoint=tmp_path / "state", callbacks=[StopAfter(9)]
        )
    model = fitted(path, "sgd", random_state=None, checkpoint=tmp_path / "state")
    assert bits(model) == bits(fitted(path, "sgd", random_state=model.seed_))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"alpha": 0.5}, "alpha was 0.0001, and is 0.5"),
        ({"random_state": 7}, "random_state was 0, and is 7"),
        ({"random_state": None}, "random_state was 0, and is unknown"),
        ({"solver": "adam"}, "solver was 'sgd', and is 'adam'"),
        ({"class_weight": {3: 2.0}}, r"class_weight was None, and is \[\('3', 2.0\)\]"),
        ({"classes": range(11)}, "classes was None, and is 0, 1, 2"),
        ({"max_iter": 1}, "max_iter was 2, and is 1: it may only grow"),
    ],
)
def test_the_checkpoint_of_other_parameters_is_refused_with_the_differences(
    path: str, tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    place = tmp_path / "state"
    fitted(path, "sgd", checkpoint=place, max_iter=2)
    before = sorted(place.iterdir())
    with pytest.raises(CheckpointError, match=f"of another run: .*{said}.*a folder of its own"):
        fitted(path, **{"solver": "sgd", "checkpoint": place, "max_iter": 2} | changes)
    assert sorted(place.iterdir()) == before


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("values", "other values in the chunk from row"),
        ("labels", "other (labels|values)"),
        ("rows", r"X was \(1797, 64\) float32 in 19 chunks"),
        ("dtype", "X was .* float32 .* is .* float64"),
        ("chunks", "in 19 chunks .* in 18 chunks"),
        ("weights", "sample_weight was none, and is"),
    ],
)
def test_the_checkpoint_of_other_data_is_refused_with_the_differences(
    digits: Arrays, store: Store, path: str, tmp_path: Path, change: str, said: str
) -> None:
    fitted(path, "lbfgs", checkpoint=tmp_path / "state", max_iter=2)
    X, y = digits
    X, weight, rows = X.astype("f4"), None, 97
    if change == "values":
        X = X + 1
    elif change == "labels":
        y = y.copy()
        y[900] = (y[900] + 1) % 10
    elif change == "rows":
        X, y = X[:-1], y[:-1]
    elif change == "dtype":
        X = X.astype("f8")
    elif change == "chunks":
        rows = 100
    else:
        weight = np.ones(len(y))
    other = store(rows=rows, name="other.zarr", X=X, y=y)
    model = model_of("lbfgs", checkpoint=tmp_path / "state", max_iter=2)
    with pytest.raises(CheckpointError, match=said):
        model.fit(f"{other}/X", f"{other}/y", weight)


def test_the_checkpoint_of_the_same_weights_on_other_rows_is_refused(
    digits: Arrays, path: str, tmp_path: Path
) -> None:
    y = digits[1]
    weight = 1.0 + np.arange(len(y)) % 2
    model = model_of("lbfgs", checkpoint=tmp_path / "state", max_iter=2)
    with pytest.warns(ConvergenceWarning):
        model.fit(f"{path}/X", f"{path}/y", weight)
    for label in range(10):  # each class keeps its weight
        weight[y == label] = np.roll(weight[y == label], 1)
    with pytest.raises(CheckpointError, match="other values in the chunk from row"):
        model.fit(f"{path}/X", f"{path}/y", weight)


def test_the_checkpoint_of_data_without_an_ignored_label_is_refused(
    path: str, tmp_path: Path
) -> None:
    fitted(path, "lbfgs", checkpoint=tmp_path / "state", max_iter=2)
    model = model_of("lbfgs", checkpoint=tmp_path / "state", max_iter=2)
    with pytest.raises(CheckpointError, match="ignore_label was None, and is 3"):
        model.fit(open_data(f"{path}/X", f"{path}/y", ignore_label=3))


def test_the_same_data_elsewhere_is_the_same_run(path: str, tmp_path: Path) -> None:
    first = fitted(path, "lbfgs", checkpoint=tmp_path / "state")
    shutil.move(path, tmp_path / "moved.zarr")
    assert bits(fitted(str(tmp_path / "moved.zarr"), "lbfgs", checkpoint=tmp_path / "state")) == (
        bits(first)
    )


def test_candidates_of_a_grid_search_may_not_share_a_checkpoint(
    digits: Arrays, tmp_path: Path
) -> None:
    model = model_of("lbfgs", checkpoint=tmp_path / "state", max_iter=300, tol=1e-2)
    search = GridSearchCV(model, {"alpha": [0.1, 0.2]}, cv=2, error_score="raise")
    with pytest.raises(CheckpointError, match="each candidate of a search, too"):
        search.fit(*digits)


def test_a_checkpoint_in_use_is_refused(path: str, tmp_path: Path) -> None:
    with FolderLock(tmp_path / "state"), pytest.raises(CheckpointError, match=f"{os.getpid()}"):
        fitted(path, "lbfgs", checkpoint=tmp_path / "state")


def test_a_fit_that_fails_on_its_data_writes_no_checkpoint(
    digits: Arrays, store: Store, tmp_path: Path
) -> None:
    X, y = digits
    X = X.copy()
    X[1700, 3] = np.nan
    path = store(rows=97, X=X, y=y)
    with (
        dask.config.set({"dsoftmax.checkpoint-interval": "1 hour"}),
        pytest.raises(ValueError, match="row 1700"),
    ):
        fitted(path, "lbfgs", checkpoint=tmp_path / "state")
    zarr.open_group(path, mode="r+")["X"][1700, 3] = 0.0
    assert fitted(path, "lbfgs", checkpoint=tmp_path / "state").n_iter_ == 6


@pytest.mark.slow
def test_a_full_disk_fails_the_checkpoint_and_not_the_fit(path: str, tmp_path: Path) -> None:
    place = tmp_path / "state"
    with pytest.raises(StopError):
        fitted(path, "lbfgs", checkpoint=place, callbacks=[StopAfter(20)])
    code = f"""
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))  # room for the lease alone
print(fitted({path!r}, "lbfgs", checkpoint={str(place)!r}).coef_.sum().hex())
"""
    done = python(code)
    assert done.returncode == 0, done.stderr
    assert "CHECKPOINT NOT WRITTEN" in done.stderr
    expected = fitted(path, "lbfgs")
    assert done.stdout.strip() == expected.coef_.sum().hex()
    assert bits(fitted(path, "lbfgs", checkpoint=place)) == bits(expected)


def test_checkpoints_are_written_only_at_pass_ends_within_the_interval(
    path: str, tmp_path: Path
) -> None:
    log = Recorder()
    with dask.config.set({"dsoftmax.checkpoint-interval": "1 hour"}):
        fitted(path, "sgd", checkpoint=tmp_path / "state", callbacks=[log])
    kinds = log.names
    written = [i for i, kind in enumerate(kinds) if kind == "CheckpointWritten"]
    assert written
    assert all(kinds[i - 1] in ("PassEnded", "CheckpointWritten") for i in written)
    assert kinds[-1] == "FitEnded"


def train(path: str, place: Path, model: Path, *options: str) -> list[str]:
    return [
        sys.executable,
        "-m",
        "dsoftmax",
        "train",
        path,
        str(model),
        "--checkpoint",
        str(place),
        "--alpha",
        "0.001",
        "--max-iter",
        "40",
        "--tol",
        "0",
        *options,
    ]


def run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def stopped(command: list[str], how: signal.Signals) -> tuple[int, str]:
    """Stop a command after its fifth pass, and return its exit code and what it said after."""
    process = subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=os.environ | {"DASK_DSOFTMAX__CHECKPOINT_INTERVAL": "0"},
    )
    assert process.stderr is not None
    for line in process.stderr:
        if line.lstrip().startswith("5 "):
            with suppress(ProcessLookupError):
                os.killpg(process.pid, how)  # as a terminal or a batch system does
            break
    rest = process.communicate(timeout=60)[1]
    return process.returncode, rest


@pytest.mark.parametrize(
    ("stop", "options"),
    [
        (signal.SIGTERM, []),
        pytest.param(signal.SIGINT, ["--workers", "1"], marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, ["--workers", "2"], marks=pytest.mark.slow),
        pytest.param(signal.SIGKILL, ["--workers", "2"], marks=pytest.mark.slow),
    ],
)
@pytest.mark.slow
def test_a_command_that_is_stopped_resumes_when_it_is_run_again(
    path: str, tmp_path: Path, stop: signal.Signals, options: list[str]
) -> None:
    for attempt in range(10):  # on a busy machine, a fit may end before it is stopped
        place, model = tmp_path / f"state-{attempt}", tmp_path / f"model-{attempt}.zarr"
        command = train(path, place, model, *options)
        code, said = stopped(command, stop)
        if code != 0:
            break
    if stop is not signal.SIGKILL:
        assert code == 75, said
        assert "run this again to go on" in said
        assert "Traceback" not in said
    assert not model.exists()

    again = run(command)
    assert again.returncode == 0, again.stderr
    assert "goes on, after" in again.stderr
    straight = run(train(path, tmp_path / "other", tmp_path / "straight.zarr"))
    assert straight.returncode == 0, straight.stderr
    assert bits(load_model(model)) == bits(load_model(tmp_path / "straight.zarr"))


def test_every_pass_is_in_the_history_once(path: str, tmp_path: Path) -> None:
    hows = itertools.cycle([StopError])
    model, _ = stopped_again_and_again(path, "lbfgs", tmp_path / "state", hows)
    passes = [record["pass"] for record in model.history_ if record["kind"] == "pass"]
    assert passes == list(range(1, 7))


@pytest.mark.slow
def test_a_partial_sum_is_resumed_for_the_model_that_it_was_begun_for(
    path: str, tmp_path: Path
) -> None:
    # A learning rate that is too high: at the end the best model and then the last one are
    # evaluated, and both turn out to be worse than the intercepts alone.
    params: dict[str, Any] = {"learning_rate": 30.0, "momentum": 0.0, "early_stopping": True}
    params |= {"n_iter_no_change": 2, "max_iter": 20, "batch_size": 64}
    passes = Recorder(PassEnded)
    fitted(path, "sgd", callbacks=[passes], **params)
    losses = [event.loss for event in passes.events]
    rows = Recorder(RowsDone)
    fitted(path, "sgd", callbacks=[rows], **params)
    for stop in range(len(rows.events) - 30, len(rows.events), 6):
        place, resumed = tmp_path / str(stop), Recorder(PassEnded)
        stopping = StopAfter(stop, kinds=(RowsDone,))
        with pytest.raises(StopError):
            fitted(path, "sgd", callbacks=[stopping], checkpoint=place, **params)
        fitted(path, "sgd", callbacks=[resumed], checkpoint=place, **params)
        own = [event.loss for event in resumed.events]
        assert own == losses[len(losses) - len(own) :]


@pytest.mark.slow
def test_a_fit_knows_the_checkpoint_of_a_search_as_that_of_another_run(
    path: str, tmp_path: Path
) -> None:
    params: dict[str, Any] = {"alphas": [1e-2, 1.0], "cv": 3, "max_iter": 4, "random_state": 0}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        search = SoftmaxRegressionCV(**params, checkpoint=tmp_path / "state")
        search.fit(f"{path}/X", f"{path}/y")
    code = f"""
from dsoftmax import SoftmaxRegression
if __name__ == "__main__":
    fit = SoftmaxRegression(checkpoint={str(tmp_path / "state")!r}, random_state=0)
    fit.fit({f"{path}/X"!r}, {f"{path}/y"!r})
"""
    assert "is the checkpoint of another run" in python(code).stderr
