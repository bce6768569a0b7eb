from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import namedtuple
from pathlib import Path

import numpy as np
import psutil
import pytest
import zarr
from click.testing import CliRunner, Result

from dsoftmax import load_model
from dsoftmax.cli import demo as module
from dsoftmax.cli import demo_data
from dsoftmax.cli.demo import demo
from dsoftmax.errors import DataError, DsoftmaxError
from dsoftmax.runtime.threads import ThreadExecutor

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no processes on Windows")

MIB = 2**20
SMALL = ("--size", "4MiB", "--max-iter", "1")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty current folder, which also is where temporary folders go."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess]:
    """Run the command as a user does; give its folder and what it printed."""
    folder = tmp_path_factory.mktemp("demo")
    with start(folder, "--size", "9MiB", "--output", "out", "--plot", "fit.png") as process:
        out, err = process.communicate(timeout=60)
    return folder, subprocess.CompletedProcess(process.args, process.returncode, out, err)


def start(folder: Path, *options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "dsoftmax", "demo", *options],
        cwd=folder,
        env=os.environ | {"TMPDIR": str(folder), "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(*options: str) -> Result:
    return CliRunner().invoke(demo, options)


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def files(store: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(store)): file.read_bytes()
        for file in store.rglob("*")
        if file.is_file()
    }


@pytest.mark.slow
def test_a_newcomer_sees_what_happens(
    finished: tuple[Path, subprocess.CompletedProcess],
) -> None:
    folder, done = finished
    assert (done.returncode, done.stderr) == (0, "")
    for line in [
        r"workers   2 processes with 400 MiB of memory each",
        r"data      12 MiB, 0\.0 times their memory: 196,608 rows, made from",
        r"store     out/digits\.zarr: \d+ MiB compressed, in [\d.]+ s",
        r"196,608 rows x 64 features, .*; newton on 2 Dask workers",
        r"dashboard: http://127\.0\.0\.1:\d+/status",
        r" +1 +2\.30\d+ .*",
        r"converged: .*",
        r"memory    worker 1: \d+ MiB at its peak, of 400 MiB",
        r"          worker 2: \d+ MiB at its peak, of 400 MiB",
        r"accuracy  0\.9\d+ on the 360 digits kept for the test",
        r"model     out/demo-model\.zarr: .*",
    ]:
        assert re.search(f"^{line}$", done.stdout, re.MULTILINE), line
    assert names(folder) == ["fit.png", "out"]


@pytest.mark.slow
def test_it_builds_at_least_the_size_asked_for(
    finished: tuple[Path, subprocess.CompletedProcess],
) -> None:
    folder, _ = finished
    X = zarr.open_array(folder / "out/digits.zarr/X", mode="r")
    assert X.chunks == (demo_data.BLOCK_ROWS, 64)
    assert 9 * MIB <= X.nbytes < 13 * MIB


@pytest.mark.slow
def test_by_default_the_data_are_twice_the_memory_of_the_workers(
    monkeypatch: pytest.MonkeyPatch, place: Path
) -> None:
    seen = []
    monkeypatch.setattr(module, "_run", lambda plan, store: seen.append(plan))
    run("--workers", "3", "--memory-limit", "1GiB")
    assert 6 * 2**30 <= seen[0].size < 6 * 2**30 + 4 * MIB


@pytest.mark.slow
def test_the_model_is_a_good_one(finished: tuple[Path, subprocess.CompletedProcess]) -> None:
    folder, _ = finished
    _, test = demo_data.load_split(0)
    model = load_model(folder / "out/demo-model.zarr")
    assert model.score(demo_data.scaled(test.X), test.y) > 0.94


@pytest.mark.slow
def test_the_plot_is_a_png(finished: tuple[Path, subprocess.CompletedProcess]) -> None:
    folder, _ = finished
    assert (folder / "fit.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


def test_no_test_digit_is_in_the_training_set() -> None:
    from sklearn.datasets import load_digits

    X, y = load_digits(return_X_y=True)
    train, test = demo_data.load_split(0)
    parts = [np.column_stack([part.X, part.y]) for part in (train, test)]
    everything = np.concatenate(parts)
    assert sorted(map(tuple, everything)) == sorted(map(tuple, np.column_stack([X, y])))
    assert set(map(tuple, parts[0])).isdisjoint(map(tuple, parts[1]))
    assert np.ptp(np.bincount(test.y)) <= 2


def test_every_row_is_a_shifted_training_digit_and_its_label(
    finished: tuple[Path, subprocess.CompletedProcess],
) -> None:
    folder, _ = finished
    train, _ = demo_data.load_split(0)
    group = zarr.open_group(folder / "out/digits.zarr", mode="r")
    rows = slice(demo_data.BLOCK_ROWS - 100, demo_data.BLOCK_ROWS + 100)
    shifted = demo_data.shifted(train.X).astype(int)
    for row, label in zip(group["X"][rows].astype(int), group["y"][rows], strict=True):
        noise = row - shifted[:, train.y == label]
        assert np.all((noise >= 0) & (noise < 16), axis=-1).any()


@pytest.mark.parametrize(("seed", "same"), [(0, True), (1, False)])
def test_the_same_seed_gives_the_same_bytes_wherever_it_is_built(
    finished: tuple[Path, subprocess.CompletedProcess], tmp_path: Path, seed: int, same: bool
) -> None:
    folder, _ = finished
    train, _ = demo_data.load_split(0)
    with ThreadExecutor() as executor:
        demo_data.enlarge(train, tmp_path / "again.zarr", 3, seed, executor)
    assert (files(tmp_path / "again.zarr") == files(folder / "out/digits.zarr")) is same


@pytest.mark.slow
def test_it_leaves_only_the_model_and_replaces_that_of_an_earlier_demo(place: Path) -> None:
    assert run(*SMALL).exit_code == 0
    result = run(*SMALL)
    assert result.exit_code == 0, result.output
    assert load_model("demo-model.zarr").n_iter_ == 1
    assert names(place) == ["demo-model.zarr"]


@pytest.mark.slow
def test_keep_keeps_the_data(place: Path) -> None:
    result = run(*SMALL, "--keep")
    kept = Path(re.findall(r"^kept      (.*)$", result.stdout, re.MULTILINE)[0])
    assert names(place) == ["demo-model.zarr", kept.name]
    assert zarr.open_array(kept / "digits.zarr/X", mode="r").nbytes == 4 * MIB


@pytest.mark.parametrize(
    ("number", "moment", "code"),
    [
        pytest.param(signal.SIGINT, " pass", 130, marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, "building", 143, marks=pytest.mark.slow),
    ],
)
def test_a_signal_in_the_middle_leaves_no_file_and_no_process(
    tmp_path: Path, number: signal.Signals, moment: str, code: int
) -> None:
    with start(tmp_path, "--size", "400MiB") as process:
        for line in process.stdout:
            if line.startswith(moment):
                break
        family = psutil.Process(process.pid).children(recursive=True)
        time.sleep(0.3)
        process.send_signal(number)
        _, err = process.communicate(timeout=20)
    assert len(family) >= 3
    assert psutil.wait_procs(family, timeout=5)[1] == []
    assert names(tmp_path) == []
    assert (process.returncode, err.strip()) == (code, f"stopped by {number.name}")


@pytest.mark.slow
def test_an_error_in_the_middle_leaves_nothing(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise DsoftmaxError("no luck")

    monkeypatch.setattr(module, "_fit", fail)
    assert isinstance(run(*SMALL).exception, DsoftmaxError)
    assert names(place) == []


@pytest.mark.parametrize("name", ["digits.zarr", "demo-model.zarr"])
def test_what_no_demo_has_written_is_never_replaced(place: Path, name: str) -> None:
    zarr.open_group(place / name, mode="w").attrs["precious"] = True
    result = run(*SMALL, "--output", ".")
    assert isinstance(result.exception, DataError)
    assert str(result.exception).startswith(f"{name} is not of an earlier demo")
    assert names(place) == [name]


def test_a_disk_that_is_too_small_is_noticed_first(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage(3 * MIB))
    result = run(*SMALL)
    assert isinstance(result.exception, DsoftmaxError)
    assert "has 3 MiB left on its disk, and the demo may need 4 MiB" in str(result.exception)


@pytest.mark.parametrize("options", [["--plot", "fit.gif"], ["--plot", "no/such/folder/fit.png"]])
def test_a_plot_that_cannot_be_saved_is_refused_first(place: Path, options: list[str]) -> None:
    result = run(*SMALL, *options)
    assert isinstance(result.exception, DsoftmaxError)
    assert result.stdout == ""


@pytest.mark.parametrize(
    "options",
    [["--size", "much"], ["--size", "0"], ["--memory-limit", "64MiB"], ["--solver", "magic"]],
)
def test_bad_usage_exits_with_2(place: Path, options: list[str]) -> None:
    assert run(*options).exit_code == 2


def test_peak_memory_is_at_least_what_is_in_use() -> None:
    in_use = psutil.Process().memory_info().rss
    assert in_use <= module.peak_memory() < psutil.virtual_memory().total
