"""Each recipe, run as a user would, on little data."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil
import pytest
import xarray as xr
import zarr
from sklearn.datasets import load_digits

from dsoftmax import load_model

PIPELINES = Path(__file__).parents[2] / "pipelines"

pytestmark = pytest.mark.slow


def run(recipe: str, *arguments: str | int | Path) -> str:
    command = [sys.executable, "-W", "error", PIPELINES / recipe, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=170, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def number(name: str, text: str) -> float:
    (found,) = re.findall(rf"{name} +([\d.,]+)", text)
    return float(found.strip(".,").replace(",", ""))


def test_the_probe_learns_a_thousand_classes_of_float16(tmp_path: Path) -> None:
    out = run("linear_probe.py", 20_000, tmp_path)
    assert number("accuracy", out) > 0.1  # from 20 rows a class; by chance it is 0.001
    assert number("top 5", out) > number("accuracy", out)
    model = load_model(tmp_path / "probe.zarr")
    assert model.coef_.shape == (1000, 384)
    assert zarr.open_array(tmp_path / "train.zarr" / "X").dtype == np.float16
    rows = {row.tobytes() for row in zarr.open_array(tmp_path / "train.zarr" / "X")[:]}
    assert not any(
        row.tobytes() in rows for row in zarr.open_array(tmp_path / "test.zarr" / "X")[:]
    )
    assert (tmp_path / "scores.png").read_bytes().startswith(b"\x89PNG")


def test_land_cover_is_predicted_better_from_all_dates_than_from_one(tmp_path: Path) -> None:
    out = run("land_cover.py", 120, tmp_path)
    (right,) = re.findall(r"(0\.\d+) are right", out)
    assert float(right) > max(0.9, number("\naccuracy", out))
    mapped = xr.open_zarr(tmp_path / "map.zarr", consolidated=False, chunks=None)["cover"]
    assert mapped.shape == (120, 180)
    assert mapped.x[1] - mapped.x[0] == 10
    assert set(np.unique(mapped)) == set(range(6))
    assert (tmp_path / "map.png").read_bytes().startswith(b"\x89PNG")


def test_a_table_goes_through_the_scaler_into_the_model(tmp_path: Path) -> None:
    out = run("table.py", 10_000, tmp_path)
    assert number("rows", out.splitlines()[0]) == 2000
    assert number("\naccuracy", f"\n{out}") > 0.7
    assert zarr.open_array(tmp_path / "table.zarr" / "X").attrs["feature_names"][0] == "var0"


def test_scores_are_written_once(tmp_path: Path) -> None:
    first = run("score_into_zarr.py", 60_000, tmp_path)
    made = (tmp_path / "probabilities.zarr" / "zarr.json").stat().st_mtime_ns
    assert "60,000 rows, 8 classes" in first
    assert run("score_into_zarr.py", 60_000, tmp_path) == first
    assert (tmp_path / "probabilities.zarr" / "zarr.json").stat().st_mtime_ns == made


@contextmanager
def resubmitted(folder: Path) -> Iterator[tuple[subprocess.Popen[str], psutil.Process]]:
    """Start the recipe for long jobs; yield it, and its first job when that has a checkpoint."""
    X, y = load_digits(return_X_y=True)
    rows = np.arange(60_000) % len(y)
    noise = np.random.default_rng(0).normal(0, 4, (len(rows), 64))
    group = zarr.open_group(folder / "data.zarr", mode="w")
    group.create_array("X", data=(X[rows] + noise).astype("f4"), chunks=(5000, 64))
    group.create_array("y", data=y[rows], chunks=(60_000,))
    command = [sys.executable, PIPELINES / "resubmit.py"]
    command += [folder / "data.zarr", folder / "model.zarr", "150"]
    both = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    with subprocess.Popen(command, **both, text=True) as process:
        while not list(folder.glob("model.zarr.checkpoint/checkpoint-*")):
            assert process.poll() is None
            time.sleep(0.02)
        (job,) = psutil.Process(process.pid).children()
        yield process, job


def test_a_job_that_is_stopped_is_submitted_again_until_it_is_done(tmp_path: Path) -> None:
    with resubmitted(tmp_path) as (process, job):
        job.terminate()
        out, _ = process.communicate(timeout=150)
    assert process.returncode == 0
    assert re.search("submission 1: exit code 75\n(.*\n)*submission 2: exit code 0\nloss ", out)
    assert load_model(tmp_path / "model.zarr").stop_reason_.startswith("converged")


def test_a_job_that_is_cancelled_is_not_submitted_again(tmp_path: Path) -> None:
    with resubmitted(tmp_path) as (process, job):
        process.terminate()
        out, _ = process.communicate(timeout=150)
        assert not job.is_running()
    assert process.returncode == 1
    assert "cancelled" in out
    assert "submission" not in out


def test_the_penalty_is_chosen_by_folds_of_images_and_not_of_their_copies(tmp_path: Path) -> None:
    out = run("choose_penalty.py", tmp_path)
    assert number("test accuracy", out) > 0.85
    assert number("rows of", out) == 1437
    store = zarr.open_group(tmp_path / "train.zarr", mode="r")
    X, fold = np.asarray(store["X"][:]), np.asarray(store["fold"][:])
    assert len(X) == 2 * 1437
    folds_of: dict[bytes, set[int]] = {}
    for row, own in zip(np.sort(X, axis=1), fold.tolist(), strict=True):
        folds_of.setdefault(row.tobytes(), set()).add(own)  # a copy has the pixels of its image
    assert len(folds_of) > 1400
    assert all(len(folds) == 1 for folds in folds_of.values())
    assert load_model(tmp_path / "model.zarr").alpha == pytest.approx(
        number("alpha", out), rel=1e-3
    )
    assert (tmp_path / "path.png").read_bytes().startswith(b"\x89PNG")
