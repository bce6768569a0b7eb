"""One file describes a run, and one folder keeps it."""

from __future__ import annotations

import json
import re
import signal
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import dask
import numpy as np
import pytest
import zarr

from dsoftmax import SoftmaxRegression, load_model
from dsoftmax.events import Event, PassEnded
from tests.conftest import Dsoftmax

TIMED = re.compile(r"20\d\d-\d\d-\d\d \d\d:\d\d:\d\d  .*")


@pytest.fixture
def data(store: Callable[..., str], digits: tuple[np.ndarray, np.ndarray]) -> str:
    X, y = digits
    return store(rows=300, X=X.astype("f2"), y=y)


@pytest.fixture
def job(data: str, tmp_path: Path) -> Path:
    (tmp_path / "job.toml").write_text("""
[data]
store = "data.zarr"
[model]
alpha = 0.25
solver = "sgd"
max_iter = 3
schedule = "constant"
[output]
folder = "run"
""")
    return tmp_path / "job.toml"


def test_a_file_describes_a_run_and_the_folder_is_enough_to_repeat_it(
    job: Path, dsoftmax: Dsoftmax
) -> None:
    where, run = job.parent, job.parent / "run"
    done = dsoftmax("train", "--config", "job.toml")
    assert done.returncode == 0, done.stderr
    kept = {path.name for path in run.iterdir()}
    assert kept == {"config.toml", "history.json", "log.txt", "model.zarr", "plan.txt", "state"}
    assert "1,797 rows x 64 features" in (run / "plan.txt").read_text()
    history = json.loads((run / "history.json").read_text())
    assert [r["pass"] for r in history if r["kind"] == "pass"] == [1, 2, 3]

    used = tomllib.loads((run / "config.toml").read_text())
    seed = used["model"].pop("random_state")
    assert used["model"] == {
        "alpha": 0.25,
        "solver": "sgd",
        "max_iter": 3,
        "schedule": "constant",
    }
    assert used["data"] == {"store": str(where / "data.zarr")}
    again = dsoftmax("train", "--config", run / "config.toml", "--run-folder", where / "two")
    assert again.returncode == 0, again.stderr
    models = [load_model(where / name / "model.zarr") for name in ("run", "two")]
    assert models[0].coef_.tobytes() == models[1].coef_.tobytes()
    for arguments in (("--config", run / "config.toml"), ("--config", "job.toml")):
        over = dsoftmax("train", *arguments)
        assert over.returncode == 0, over.stderr
    by_hand = SoftmaxRegression(
        0.25, solver="sgd", max_iter=3, schedule="constant", random_state=seed
    )
    with pytest.warns(match="budget"):
        by_hand.fit(str(where / "data.zarr/X"), str(where / "data.zarr/y"))
    assert by_hand.coef_.tobytes() == models[0].coef_.tobytes()


def test_the_log_is_plain_lines_with_times_on_standard_error_too(
    job: Path, dsoftmax: Dsoftmax
) -> None:
    done = dsoftmax("train", "--config", "job.toml")
    log = (job.parent / "run/log.txt").read_text()
    assert log == done.stderr
    assert all(TIMED.fullmatch(line) for line in log.splitlines())
    assert f"Python {sys.version.split()[0]}" in log.splitlines()[0]
    assert "sgd on this process" in log
    again = dsoftmax("train", "--config", "job.toml", "--overwrite", "--quiet")
    assert (again.returncode, again.stdout, again.stderr) == (0, "", "")
    assert (job.parent / "run/log.txt").read_text().startswith(log)
    assert "is finished" in (job.parent / "run/log.txt").read_text()[len(log) :]


def test_options_come_before_the_file_and_are_kept_in_the_folder(
    job: Path, dsoftmax: Dsoftmax
) -> None:
    done = dsoftmax(
        "train",
        "data.zarr",
        "other.zarr",
        "--config",
        "job.toml",
        "--alpha",
        "7",
        "--seed",
        "5",
        "--max-iter",
        "2",
        "--balanced",
        "--no-intercept",
    )
    assert done.returncode == 0, done.stderr
    model = load_model(job.parent / "other.zarr")
    assert (model.alpha, model.max_iter, model.class_weight) == (7.0, 2, "balanced")
    assert not model.intercept_.any()
    used = tomllib.loads((job.parent / "run/config.toml").read_text())
    assert used["model"]["alpha"] == 7.0
    assert used["model"]["random_state"] == 5
    assert used["model"]["fit_intercept"] is False
    assert used["output"] == {"folder": f"{job.parent}/run", "model": f"{job.parent}/other.zarr"}


@pytest.mark.slow
def test_a_cluster_on_the_command_line_is_not_that_of_the_file(
    job: Path, dsoftmax: Dsoftmax
) -> None:
    job.write_text(job.read_text() + "[cluster]\nworkers = 2\nmemory_limit = '1 GiB'\n")
    (job.parent / "s.json").write_text("{}")
    with dask.config.set({"dsoftmax.worker-timeout": "100ms"}):
        done = dsoftmax("train", "--config", "job.toml", "--scheduler-file", "s.json")
    assert done.returncode == 75  # the scheduler may come yet
    assert "no Dask scheduler has written its address to s.json" in done.stderr
    used = tomllib.loads((job.parent / "run/config.toml").read_text())
    assert used["cluster"] == {"workers": 2, "memory_limit": "1 GiB"}
    both = dsoftmax("train", "--config", "job.toml", "--scheduler", "a:1", "--workers", "1")
    assert "drop them" in both.stderr


def test_an_error_is_in_the_log_and_once_on_standard_error(job: Path, dsoftmax: Dsoftmax) -> None:
    wrong = dsoftmax("train", "--config", "job.toml", "--dtype", "float64", "--y", "X")
    assert wrong.returncode == 2
    assert wrong.stderr.count("expected one dimension") == 1
    assert not (job.parent / "run").exists()  # it was found out before the run began
    zarr.open_group(job.parent / "data.zarr", mode="r+")["X"][7] = np.nan
    done = dsoftmax("train", "--config", "job.toml")
    assert done.returncode == 2
    assert done.stderr.count("row 7") == 1
    assert "Error: " in (job.parent / "run/log.txt").read_text().splitlines()[-1]


BAD = [
    ("[modle]", "the table modle is unknown; did you mean model?"),
    ("[model]\nalhpa = 1", "model.alhpa is unknown; did you mean alpha?"),
    ("[model]\nseed = 1", "model.seed is unknown; did you mean random_state?"),
    ("[model]\ncheckpoint = 's'", "model.checkpoint is unknown; did you mean "),
    ("[model]\nworkers = 2", "model.workers is unknown; did you mean cluster.workers?"),
    ("[data]\nstores = 's'", "data.stores is unknown; did you mean store?"),
    ("alpha = 1", "alpha is outside of a table; did you mean model.alpha?"),
    ("shout = 1", "shout is outside of a table; the tables are data, cluster"),
    ("[model]\nalpha = true", "model.alpha is True; expected no true or false"),
    ("[model]\nstandardize = 'no'", "model.standardize is 'no'; expected true or false"),
    ("[model]\nmax_iter = 2.5", "max_iter is 2.5; expected a whole number"),
    ("[model]\nalpha = 'much'", "alpha is 'much'; expected a number"),
    ("[data]\nstore = 1", "data.store is 1; expected str"),
    ("[cluster]\nworkers = 0", "Invalid value for '--workers'"),
    ("[cluster]\nmemory_limit = '1 MB'", "is less than"),
    ("alpha == 1", "is no TOML: "),
]


@pytest.mark.parametrize(("text", "message"), BAD)
def test_what_a_file_should_not_say_is_refused_with_what_is_nearest(
    data: str, tmp_path: Path, text: str, message: str, dsoftmax: Dsoftmax
) -> None:
    (tmp_path / "bad.toml").write_text(text)
    done = dsoftmax("train", "data.zarr", "m.zarr", "--config", "bad.toml")
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["bad.toml", "data.zarr"]


def test_a_dry_run_prints_the_plan_and_writes_nothing(job: Path, dsoftmax: Dsoftmax) -> None:
    before = sorted(job.parent.iterdir())
    done = dsoftmax("train", "--config", "job.toml", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "sgd, at most 3 passes" in done.stdout
    same = dsoftmax("plan", "--config", "job.toml", "--json")
    assert json.loads(same.stdout)["passes"] == 3
    assert sorted(job.parent.iterdir()) == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--x", "Z"], "data.zarr/Z does not exist"),
        (["--solver", "saga"], "solver='saga' is unknown"),
        (["--validation", "val.zarr"], "val.zarr/X does not exist"),
        (["--early-stopping", "--validation-fraction", "2"], "validation_fraction is 2.0"),
        (["--run-folder", "job.toml"], "is a file"),
        (["--run-folder", "data.zarr"], "choose a destination apart from it"),
        (["--run-folder", "/proc/1"], "cannot be written to"),
        (["--plot", "no-folder/p.png"], "no-folder"),
        (["--batch-size", "0"], "batch_size is 0"),
        (["--scheduler", "tcp://127.0.0.1:9"], "no Dask scheduler answers"),
    ],
)
def test_a_dry_run_refuses_what_cannot_work(
    job: Path, options: list[str], message: str, dsoftmax: Dsoftmax
) -> None:
    with dask.config.set({"distributed.comm.timeouts.connect": "1s"}):
        done = dsoftmax("train", "--config", "job.toml", "--dry-run", *options)
    assert done.returncode in (1, 2), done.stdout
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_a_run_is_judged_by_a_store_of_validation_rows(
    job: Path, store: Callable[..., str], digits: tuple[np.ndarray, np.ndarray], dsoftmax: Dsoftmax
) -> None:
    X, y = digits
    store(rows=300, name="val.zarr", X=X[:500].astype("u1"), y=y[:500])
    stops = 'validation = "val.zarr"\n[model]\nearly_stopping = true'
    job.write_text(job.read_text().replace("[model]", stops))
    done = dsoftmax("train", "--config", "job.toml")
    assert done.returncode == 0, done.stderr
    assert "val. loss" in done.stderr
    history = json.loads((job.parent / "run/history.json").read_text())
    found = [record["validation_loss"] for record in history if "validation_loss" in record]
    assert len(found) == 3
    scores = load_model(str(job.parent / "run/model.zarr")).evaluate(X[:500], y[:500])
    assert scores["log_loss"] == pytest.approx(min(found), rel=1e-6)
    again = tomllib.loads((job.parent / "run/config.toml").read_text())
    assert again["data"]["validation"] == str(job.parent / "val.zarr")


def test_without_a_place_for_the_model_there_is_no_run(
    data: str, tmp_path: Path, dsoftmax: Dsoftmax
) -> None:
    done = dsoftmax("train", "data.zarr")
    assert done.returncode == 2
    assert "Missing argument 'MODEL', or --run-folder instead" in done.stderr


def test_the_file_of_the_readme_is_one(data: str, tmp_path: Path, dsoftmax: Dsoftmax) -> None:
    readme = (Path(__file__).parent.parent.parent / "README.md").read_text()
    (text,) = re.findall(r"```toml\n(.*?)```", readme, re.DOTALL)
    (tmp_path / "job.toml").write_text(text.replace("/shared/train.zarr", data))
    done = dsoftmax("train", "--config", "job.toml", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "newton, at most 100 passes" in done.stdout


def test_what_is_stopped_is_gone_on_with_from_the_folder(
    job: Path, dsoftmax: Dsoftmax, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dsoftmax.diagnostics.progress import Progress

    told = Progress.on_event

    def interrupted(self: Progress, event: Event) -> None:
        told(self, event)
        if isinstance(event, PassEnded):
            signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(Progress, "on_event", interrupted)
        done = dsoftmax("train", "--config", "job.toml", "--seed", "1")
    assert done.returncode == 75
    assert "run this again to go on from" in done.stderr
    folder = job.parent / "run"
    assert not (folder / "model.zarr").exists()
    assert json.loads((folder / "history.json").read_text())
    assert dsoftmax("train", "--config", "job.toml", "--seed", "1").returncode == 0
    assert "goes on, after" in (folder / "log.txt").read_text()
    assert (folder / "model.zarr").exists()
