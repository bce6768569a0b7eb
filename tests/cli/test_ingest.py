from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import zarr
from click.testing import CliRunner

from dsoftmax.cli.ingest import ingest
from dsoftmax.errors import DataError


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "digits.npz"
    np.savez(path, X_train=np.zeros((6000, 784), "u1"), y_train=np.array(["a", "b"] * 3000))
    return path


def test_the_closing_line_says_what_was_written(archive: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(ingest, [str(archive), str(tmp_path / "digits.zarr")])
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith(
        f"{tmp_path}/digits.zarr: X (6000, 784) uint8 in 2 chunks, y (6000,) string; 4.8 MB -> "
    )
    assert result.stderr == ""


def test_every_option_reaches_the_ingestion(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", images=np.eye(6), classes=np.arange(6))
    np.save(tmp_path / "b.npy", np.eye(5))
    np.save(tmp_path / "c.npy", np.arange(5))
    store = str(tmp_path / "out.zarr")
    named = [str(tmp_path / "a.npz"), store, "--x", "images", "--y", "classes"]
    paired = [str(tmp_path / "b.npy"), store, "--labels", str(tmp_path / "c.npy"), "--overwrite"]
    assert CliRunner().invoke(ingest, [*named, "--chunk-rows", "4"]).exit_code == 0
    assert zarr.open_array(f"{store}/X", mode="r").chunks == (4, 6)
    assert CliRunner().invoke(ingest, paired).exit_code == 0
    assert zarr.open_array(f"{store}/X", mode="r").shape == (5, 5)
    assert zarr.open_array(f"{store}/y", mode="r").shape == (5,)


def test_tables_and_seeds_are_passed_on(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    (tmp_path / "table.csv").write_text("a,b,c,kind\n" + "1,2,3,u\n4,5,6,v\n" * 20)
    store = str(tmp_path / "out.zarr")
    options = ["--x", "c,a", "--y", "kind", "--shuffle", "3"]
    result = CliRunner().invoke(ingest, [str(tmp_path / "table.csv"), store, *options])
    assert result.exit_code == 0, result.output
    group = zarr.open_group(store, mode="r")
    labels = {(3, 1): "u", (6, 4): "v"}
    assert [labels[tuple(row)] for row in group["X"][:].tolist()] == group["y"][:].tolist()
    assert group["X"].attrs["feature_names"] == ["c", "a"]
    assert group.attrs["dsoftmax"]["shuffle"] == 3

    again = CliRunner().invoke(ingest, [store, str(tmp_path / "copy.zarr"), "--chunk-rows", "7"])
    assert "X (40, 2) int64 in 6 chunks, y (40,) string" in again.stdout


def test_a_source_can_be_a_url(tmp_path: Path) -> None:
    pytest.importorskip("fsspec")
    group = zarr.open_group("memory://cli/in.zarr", mode="w")
    group["X"], group["y"] = np.eye(4), np.arange(4)
    result = CliRunner().invoke(ingest, ["memory://cli/in.zarr", str(tmp_path / "out.zarr")])
    assert result.exit_code == 0, result.output


def test_quiet_prints_nothing(archive: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(ingest, [str(archive), str(tmp_path / "out.zarr"), "--quiet"])
    assert result.exit_code == 0
    assert result.output == ""


@pytest.mark.skipif(sys.platform == "win32", reason="pseudo-terminals are a POSIX thing")
def test_a_terminal_sees_the_progress(archive: Path, tmp_path: Path) -> None:
    terminal, stderr = os.openpty()
    command = "from dsoftmax.cli.ingest import ingest; ingest()"
    ingesting = subprocess.run(
        [sys.executable, "-c", command, archive, tmp_path / "out.zarr"],
        stdout=subprocess.PIPE,
        stderr=stderr,
        check=True,
    )
    assert b"100%" in os.read(terminal, 100_000)
    assert b"100%" not in ingesting.stdout
    os.close(terminal)
    os.close(stderr)


def test_unusable_data_is_passed_on_to_the_command_group(archive: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(ingest, [str(archive), str(tmp_path / "o.zarr"), "--x", "pixels"])
    assert isinstance(result.exception, DataError)


@pytest.mark.parametrize(
    "options", [["absent.npz", "o.zarr"], ["--chunk-rows", "0"], ["--shuffle", "-1"]]
)
def test_bad_usage_exits_with_2(options: list[str]) -> None:
    assert CliRunner().invoke(ingest, options).exit_code == 2
