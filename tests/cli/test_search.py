"""`dsoftmax train --alphas`: a path from the command line, as from Python."""

from __future__ import annotations

import json
import re
import signal
import tomllib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dsoftmax import SoftmaxRegressionCV, load_model
from dsoftmax.diagnostics.progress import Progress
from dsoftmax.events import CandidatesJudged, Event
from tests.conftest import Done, Dsoftmax

SMALL = ("--alphas", "1e-2,1,100", "--cv", "3", "--seed", "0", "--tol", "1e-3")


@pytest.fixture
def data(store: Callable[..., str], digits: tuple[np.ndarray, np.ndarray]) -> str:
    X, y = digits
    fold = np.arange(len(y)) // 60 % 4
    return store(rows=300, X=X.astype("u1"), y=y, fold=fold)


def searched(data: str, **params: object) -> SoftmaxRegressionCV:
    given = {"alphas": [1e-2, 1.0, 100.0], "cv": 3, "random_state": 0, "tol": 1e-3} | params
    return SoftmaxRegressionCV(**given).fit(f"{data}/X", f"{data}/y")  # type: ignore[arg-type]


def rows_of(done: Done) -> list[list[str]]:
    lines = done.stdout.splitlines()
    first = next(i for i, line in enumerate(lines) if line.split()[:1] == ["alpha"])
    return [line.split() for line in lines[first + 1 : first + 4]]


def test_the_winner_is_the_model_and_the_path_is_a_table_and_a_picture(
    data: str, tmp_path: Path, dsoftmax: Dsoftmax
) -> None:
    done = dsoftmax("train", data, "m.zarr", *SMALL, "--plot", "path.png")
    assert done.returncode == 0, done.stderr
    expected = searched(data)
    model = load_model(tmp_path / "m.zarr")
    assert model.coef_.tobytes() == expected.coef_.tobytes()
    assert model.alpha == expected.alpha_ == 1e-2
    rows = rows_of(done)
    assert [float(row[0]) for row in rows] == expected.alphas_.tolist()
    losses = -expected.scores_[:, 0]
    assert [float(row[1]) for row in rows] == pytest.approx(losses.mean(axis=0), abs=1e-6)
    errors = losses.std(axis=0, ddof=1) / np.sqrt(3)
    assert [float(row[2]) for row in rows] == pytest.approx(errors, abs=1e-6)
    assert [int(row[4]) for row in rows] == expected.converged_[:, 0].sum(axis=0).tolist()
    assert (rows[0][7:], rows[2][7:]) == (["ruled", "out"], ["chosen"])
    assert done.stdout.endswith("model: m.zarr\n")
    assert "; 9 models" in done.stderr
    assert (tmp_path / "path.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_folds_are_an_array_of_the_store(data: str, tmp_path: Path, dsoftmax: Dsoftmax) -> None:
    done = dsoftmax("train", data, "m.zarr", *SMALL, "--cv", "fold", "--l1-ratios", "0,0.5")
    assert done.returncode == 0, done.stderr
    expected = searched(data, cv=f"{data}/fold", l1_ratios=[0.0, 0.5])
    assert load_model(tmp_path / "m.zarr").coef_.tobytes() == expected.coef_.tobytes()
    assert "24 models" in done.stderr
    assert "l1_ratio" in done.stdout


@pytest.mark.slow
def test_rows_apart_choose_where_there_are_no_folds(
    data: str,
    tmp_path: Path,
    store: Callable[..., str],
    dsoftmax: Dsoftmax,
    digits: tuple[np.ndarray, np.ndarray],
) -> None:
    X, y = digits
    store(rows=300, name="val.zarr", X=X[:500].astype("u1"), y=y[:500])
    options = ("--alphas", "1e-2,1,100", "--validation", "val.zarr", "--seed", "0")
    done = dsoftmax("train", data, "m.zarr", *options, "--no-prune")
    assert done.returncode == 0, done.stderr
    assert [row[4:7] for row in rows_of(done)] == [["1", "of", "1"]] * 3
    assert load_model(tmp_path / "m.zarr").alpha == 1e-2
    both = dsoftmax("train", data, "n.zarr", *options, "--cv", "3")
    assert both.returncode == 2
    assert "--cv is 3, and --validation is val.zarr; give the one to choose by" in both.stderr


def test_a_file_describes_a_search_and_the_folder_repeats_it(
    data: str, tmp_path: Path, dsoftmax: Dsoftmax
) -> None:
    (tmp_path / "job.toml").write_text("""
[data]
store = "data.zarr"
[model]
alphas = [1.0, 1e-2]
cv = "fold"
refit = false
tol = 1e-2
[output]
folder = "run"
""")
    done = dsoftmax("train", "--config", "job.toml")
    assert done.returncode == 0, done.stderr
    assert "8 models" in (tmp_path / "run/plan.txt").read_text()
    assert "  chosen" in (tmp_path / "run/log.txt").read_text()
    used = tomllib.loads((tmp_path / "run/config.toml").read_text())["model"]
    assert used.pop("random_state") >= 0
    assert used == {"alphas": [1.0, 1e-2], "cv": "fold", "refit": False, "tol": 1e-2}
    again = dsoftmax("train", "--config", "run/config.toml", "--run-folder", "two")
    assert again.returncode == 0, again.stderr
    models = [load_model(tmp_path / name / "model.zarr") for name in ("run", "two")]
    assert models[0].coef_.tobytes() == models[1].coef_.tobytes()


def test_a_search_that_is_stopped_ends_with_75_and_goes_on_to_the_same_bits(
    data: str, tmp_path: Path, dsoftmax: Dsoftmax, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = Progress.on_event

    def interrupted(self: Progress, event: Event) -> None:
        told(self, event)
        if isinstance(event, CandidatesJudged) and 0 < sum(event.running) < 9:
            signal.raise_signal(signal.SIGTERM)

    command = ("train", data, "m.zarr", *SMALL, "--checkpoint", "state")
    with monkeypatch.context() as patch:
        patch.setattr(Progress, "on_event", interrupted)
        stopped = dsoftmax(*command)
    assert stopped.returncode == 75, stopped.stderr
    assert "run this again to go on from state" in stopped.stderr
    assert not (tmp_path / "m.zarr").exists()
    done = dsoftmax(*command)
    assert done.returncode == 0, done.stderr
    assert "goes on, after" in done.stderr
    expected = searched(data)
    assert load_model(tmp_path / "m.zarr").coef_.tobytes() == expected.coef_.tobytes()
    finished = dsoftmax(*command, "--overwrite")
    assert "is finished, after" in finished.stderr
    assert rows_of(finished) == rows_of(done)


def test_events_of_a_search_are_lines_of_json(data: str, dsoftmax: Dsoftmax) -> None:
    done = dsoftmax("train", data, "m.zarr", *SMALL, "--json", "--log", "run.jsonl")
    assert (done.returncode, done.stderr) == (0, "")
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert events[0]["n_models"] == 9
    found = [event for event in events if event["event"] == "candidates"]
    assert found[-1]["alphas"] == [100.0, 1.0, 1e-2]
    assert found[-1]["best"] == 2
    assert (found[-1]["ruled_out"][0], found[-1]["ruled_out"][2]) == (True, False)
    assert Path("run.jsonl").read_text() == done.stdout


@pytest.mark.slow
def test_a_quiet_search_prints_nothing(data: str, dsoftmax: Dsoftmax) -> None:
    done = dsoftmax("train", data, "m.zarr", *SMALL, "--quiet")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_dry_run_of_a_search_says_how_many_models_there_are(
    data: str, tmp_path: Path, dsoftmax: Dsoftmax
) -> None:
    before = sorted(tmp_path.iterdir())
    done = dsoftmax("train", data, "m.zarr", *SMALL, "--dry-run")
    assert re.search(r"search +9 models, at first a pass for a step of each", done.stdout)
    same = dsoftmax("plan", data, "--alphas", "20", "--cv", "fold", "--json")
    assert json.loads(same.stdout)["n_models"] == 80
    huge = dsoftmax("plan", data, "--alphas", "20000000")
    assert huge.returncode == 1
    assert "a search of 100,000,000 models" in huge.stderr
    assert sorted(tmp_path.iterdir()) == before


SEARCH = ("--alphas", "2")
REFUSED = [
    ((*SEARCH, "--alpha", "1"), r"--alpha is given, .*; drop it"),
    ((*SEARCH, "--l1-ratio", "1"), r"--l1-ratio is given, .*--l1-ratios says which"),
    ((*SEARCH, "--early-stopping"), r"--early-stopping is given, .*followed to their minima"),
    ((*SEARCH, "--batch-size", "8"), r"--batch-size is given, .*no mini-batches"),
    ((*SEARCH, "--validation-fraction", "0.5"), r"--validation-fraction is given"),
    ((*SEARCH, "--solver", "adam"), r"solver='adam' takes mini-batches"),
    (("--cv", "5"), r"--cv is given, and only a search has it, by --alphas N; drop it"),
    (("--no-prune",), r"--no-prune is given, and only a search has it"),
    (("--scoring", "accuracy"), r"--scoring is given, and only a search has it"),
    ((*SEARCH, "--cv", "1"), r"cv is 1; expected at least 2 folds"),
    ((*SEARCH, "--cv", "nofold"), r"data\.zarr/nofold does not exist"),
    ((*SEARCH, "--cv", "X"), r"shape \(1797, 64\); expected one fold for each row"),
    ((*SEARCH, "--scoring", "f1"), r"scoring is 'f1'; expected one of"),
    (("--alphas", "0"), r"alphas is 0; expected how many, at least 1"),
    (("--alphas", "1e-3,much"), r"'1e-3,much' is not how many, or numbers such as"),
    (("--alphas", "-1.0"), r"alphas is \[-1.0\]; expected how many, .* numbers of at least 0"),
]


@pytest.mark.parametrize(("options", "message"), REFUSED)
def test_what_does_not_go_together_is_refused_before_anything_is_read(
    data: str, tmp_path: Path, dsoftmax: Dsoftmax, options: tuple[str, ...], message: str
) -> None:
    for chunk in Path(data, "X").glob("c/**/*"):
        if chunk.is_file():
            chunk.write_bytes(b"not to be read")
    done = dsoftmax("train", data, "m.zarr", *options)
    assert done.returncode == 2
    assert re.search(message, done.stderr)
    assert not (tmp_path / "m.zarr").exists()
