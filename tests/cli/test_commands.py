from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import zarr

from dsoftmax.cli.commands import COMMANDS

Store = Callable[..., str]
Done = subprocess.CompletedProcess[str]


def dsoftmax(*arguments: str | Path, cwd: Path | None = None) -> Done:
    command = [sys.executable, "-m", "dsoftmax", *map(str, arguments)]
    environment = os.environ | {"DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "3s"}
    return subprocess.run(
        command, capture_output=True, text=True, cwd=cwd, timeout=120, env=environment
    )


@pytest.fixture
def data(store: Store, digits: tuple[np.ndarray, np.ndarray]) -> str:
    X, y = digits
    return store(rows=300, X=X.astype("u1"), y=y)


@pytest.mark.slow
def test_train_evaluate_predict_is_a_whole_story(data: str, tmp_path: Path) -> None:
    model, out = tmp_path / "model.zarr", tmp_path / "p.zarr"
    trained = dsoftmax("train", data, model, "--alpha", "0.01", "--max-iter", "30", "--workers", 2)
    assert trained.returncode == 0, trained.stderr
    assert "1,797 rows x 64 features, 10 classes" in trained.stderr
    assert "dashboard: http://127.0.0.1:" in trained.stderr
    assert "\x1b" not in trained.stderr  # plain lines where there is no terminal
    assert trained.stdout == f"model: {model}\n"

    table = dsoftmax("evaluate", model, data, "--plot", tmp_path / "scores.png")
    assert table.stdout.splitlines()[1].startswith("accuracy           0.9")
    assert (tmp_path / "scores.png").stat().st_size > 10_000
    metrics = json.loads(dsoftmax("evaluate", model, data, "--json").stdout)
    assert metrics["accuracy"] > 0.97
    assert metrics["n_samples"] == 1797
    assert np.shape(metrics["confusion_matrix"]) == (10, 10)
    fewer = dsoftmax("evaluate", model, data, "--json", "--ignore-label", "3", "--drop-missing")
    assert json.loads(fewer.stdout)["n_samples"] == 1797 - 183

    predicted = dsoftmax("predict", model, data, out, "--method", "predict")
    assert predicted.returncode == 0, predicted.stderr
    y = zarr.open_array(f"{data}/y")[:]
    assert np.mean(zarr.open_array(out)[:] == y) == pytest.approx(metrics["accuracy"])


@pytest.mark.slow
def test_quiet_prints_nothing(data: str, tmp_path: Path) -> None:
    done = dsoftmax("train", data, tmp_path / "m.zarr", "--alpha", 10, "--tol", 0.1, "--quiet")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_events_are_lines_of_json_for_machines(data: str, tmp_path: Path) -> None:
    model, log = tmp_path / "m.zarr", tmp_path / "run.jsonl"
    options = ("--alpha", 10, "--tol", 0.1, "--json", "--log", log)
    done = dsoftmax("train", data, model, *options)
    assert (done.returncode, done.stderr) == (0, "")
    events = [json.loads(line) for line in done.stdout.splitlines()]
    kinds = [event["event"] for event in events]
    assert (kinds[0], kinds[-1]) == ("started", "ended")
    assert kinds.count("pass") == events[-1]["passes"]
    assert [json.loads(line)["event"] for line in log.read_text().splitlines()] == kinds


@pytest.mark.slow
def test_inspect_says_what_is_there(data: str) -> None:
    table = dsoftmax("inspect", data)
    assert table.returncode == 0, table.stderr
    assert "(1797, 64) uint8" in table.stdout
    assert "6 chunks of (300, 64)" in table.stdout
    assert "10 to 10 classes in a chunk" in table.stdout
    assert "y has no checksum" in table.stdout
    found = json.loads(dsoftmax("inspect", data, "--y", "y", "--json", "--workers", 2).stdout)
    assert found["class_counts"]["3"] == 183
    assert found["constant_features"] == [0, 32, 39]
    assert found["arrays"]["X"]["stored"]["codecs"] == ["bytes", "zstd"]
    only = dsoftmax("inspect", f"{data}/X")
    assert "classes" not in only.stdout
    assert "1,797 of 64 features" in only.stdout


BAD = [
    (["inspect", "nowhere.zarr"], "nowhere.zarr does not exist"),
    (["inspect", "{data}", "--x", "Z"], "data.zarr/Z does not exist"),
    (["inspect", "{data}/X", "--y", "y"], "is an array"),
    (["train", "nowhere.zarr", "m.zarr"], "nowhere.zarr/X does not exist"),
    (["train", "{data}", "m.zarr", "--y", "X"], "expected one dimension"),
    (["train", "{data}", "m.zarr", "--solver", "saga"], "solver='saga' is unknown"),
    (["train", "{data}", "m.zarr", "--batch-size", "some"], "neither a number nor 'auto'"),
    (["train", "{data}", "{data}"], "already holds a Zarr store"),
    (["train", "{data}", "m.zarr", "--scheduler", "a:1", "--workers", "2"], "drop them"),
    (["predict", "m.zarr"], "Missing argument"),
    (["shout"], "No such command 'shout'"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD)
def test_bad_usage_and_bad_data_exit_with_2_and_one_message(
    data: str, tmp_path: Path, arguments: list[str], message: str
) -> None:
    done = dsoftmax(*(a.format(data=data) for a in arguments), cwd=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["data.zarr"]


FAILURES = [
    (["evaluate", "nowhere.zarr", "{data}"], "nowhere.zarr is not a readable model"),
    pytest.param(
        ["train", "{data}", "m.zarr", "--scheduler", "tcp://127.0.0.1:9"],
        "no Dask scheduler",
        marks=pytest.mark.slow,
    ),
]


@pytest.mark.parametrize(("arguments", "message"), FAILURES)
def test_what_fails_exits_with_1_and_one_message(
    data: str, tmp_path: Path, arguments: list[str], message: str
) -> None:
    done = dsoftmax(*(a.format(data=data) for a in arguments), cwd=tmp_path)
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str) -> None:
    done = dsoftmax(command, "--help")
    assert done.returncode == 0
    assert "Usage: dsoftmax" in done.stdout
