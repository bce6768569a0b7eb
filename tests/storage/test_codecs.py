"""No codec of a store runs code, whatever the door by which it comes in."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import zarr
from click.testing import CliRunner
from numcodecs.pickles import Pickle
from numcodecs.registry import codec_registry

from dsoftmax import SoftmaxRegression, inspect_data, load_model, open_data, plan_fit
from dsoftmax.cli.commands import cli
from dsoftmax.errors import CheckpointError, DataError

CODECS = {
    "a filter": {"filters": [{"id": "vlen-utf8"}, {"id": "pickle"}], "compressor": None},
    "the compressor": {"filters": [{"id": "vlen-utf8"}], "compressor": {"id": "pickle"}},
    "another name": {"filters": [{"id": "vlen-utf8"}, {"id": "jar"}], "compressor": None},
}


class _Attack:
    def __init__(self, canary: Path) -> None:
        self._canary = canary

    def __reduce__(self) -> tuple[Any, tuple[str, ...]]:
        return os.mkdir, (str(self._canary),)


def plant(array: Path, codecs: dict[str, Any], shape: tuple[int, ...], canary: Path) -> None:
    """Write an array of format 2 whose only chunk makes the canary when it is unpickled."""
    array.mkdir(parents=True)
    metadata = {"zarr_format": 2, "shape": shape, "chunks": shape, "dtype": "|O", "order": "C"}
    (array / ".zarray").write_text(json.dumps(metadata | {"fill_value": None} | codecs))
    (array / ".zattrs").write_text("{}")
    (array / ".".join("0" for _ in shape)).write_bytes(pickle.dumps(_Attack(canary)))


@pytest.fixture(params=CODECS)
def attacked(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """Return a folder with a good X, and a y, an X, a group and a model that attack."""
    monkeypatch.setitem(codec_registry, "jar", Pickle)
    codecs, canary = CODECS[request.param], tmp_path / "canary"
    zarr.create_array(tmp_path / "good", shape=(4, 2), dtype="f4")[:] = np.eye(4, 2)
    SoftmaxRegression().fit(np.eye(4, 2), [0, 1, 2, 1]).save(tmp_path / "model")
    shutil.rmtree(tmp_path / "model" / "classes_")
    zarr.open_group(tmp_path / "group", mode="w", zarr_format=2)
    for name, shape in {
        "y": (4,),
        "X": (4, 2),
        "group/y": (4,),
        "group/X": (4, 2),
        "model/classes_": (3,),
    }.items():
        plant(tmp_path / name, codecs, shape, canary)
    return tmp_path


def _ingest(folder: Path) -> None:
    arguments = ["ingest", str(folder / "group"), str(folder / "out.zarr")]
    result = CliRunner().invoke(cli, arguments)
    assert result.exception is not None
    raise result.exception


DOORS: dict[str, Callable[[Path], Any]] = {
    "fit, y by path": lambda at: SoftmaxRegression().fit(str(at / "good"), str(at / "y")),
    "fit, X by path": lambda at: SoftmaxRegression().fit(str(at / "X"), [0, 1, 0, 1]),
    "fit, y open": lambda at: SoftmaxRegression().fit(np.eye(4, 2), zarr.open(at / "y")),
    "fit, y by Dask": lambda at: SoftmaxRegression().fit(np.eye(4, 2), da.from_zarr(at / "y")),
    "fit, a part of y by Dask": lambda at: SoftmaxRegression().fit(
        np.eye(4, 2), da.from_zarr(at / "y")[:4].rechunk(2)
    ),
    "weights": lambda at: open_data(np.eye(4, 2), [0, 1, 0, 1], str(at / "y")),
    "plan_fit": lambda at: plan_fit(str(at / "good"), str(at / "y")),
    "inspect_data": lambda at: inspect_data(str(at / "good"), str(at / "y")),
    "predict": lambda at: (
        SoftmaxRegression().fit(np.eye(4, 2), [0, 1, 2, 1]).predict(str(at / "X"))
    ),
    "ingest": _ingest,
    "load_model": lambda at: load_model(at / "model"),
}


@pytest.mark.parametrize("door", DOORS)
def test_a_codec_that_runs_code_is_refused_by_name(attacked: Path, door: str) -> None:
    with pytest.raises((DataError, CheckpointError), match=r"pickle|jar|Zarr format 3"):
        DOORS[door](attacked)
    assert not (attacked / "canary").exists()


def test_a_pickle_within_a_shard_is_refused(tmp_path: Path) -> None:
    array = zarr.create_array(
        tmp_path / "X", shape=(4, 2), dtype="f4", chunks=(2, 2), shards=(4, 2)
    )
    array[:] = 1
    metadata = json.loads((tmp_path / "X" / "zarr.json").read_text())
    metadata["codecs"][0]["configuration"]["codecs"].append({"name": "numcodecs.pickle"})
    (tmp_path / "X" / "zarr.json").write_text(json.dumps(metadata))
    with pytest.raises(DataError, match="pickle"):
        SoftmaxRegression().fit(str(tmp_path / "X"), [0, 1, 0, 1])


@pytest.mark.parametrize("codec", ["numcodecs.lzma", "numcodecs.pickle", "made_up"])
def test_a_model_has_codecs_of_a_list_only(tmp_path: Path, codec: str) -> None:
    SoftmaxRegression().fit(np.eye(4, 2), [0, 1, 2, 1]).save(tmp_path / "model")
    path = tmp_path / "model" / "coef_" / "zarr.json"
    metadata = json.loads(path.read_text())
    metadata["codecs"].append({"name": codec, "configuration": {}})
    path.write_text(json.dumps(metadata))
    with pytest.raises(CheckpointError, match=f"coef_ is encoded with '{codec}'"):
        load_model(tmp_path / "model")


@pytest.mark.slow
def test_a_numcodecs_that_unpickles_is_never_reached(tmp_path: Path) -> None:
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target"]
    subprocess.run([*pip, str(tmp_path / "old"), "numcodecs==0.16.5"], check=True)
    path = os.pathsep.join([str(tmp_path / "old"), *filter(None, [os.environ.get("PYTHONPATH")])])
    run = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__]
    version = [sys.executable, "-c", "import numcodecs; print(numcodecs.__version__)"]
    environment = os.environ | {"PYTHONPATH": path}
    found = subprocess.run(version, env=environment, check=True, capture_output=True, text=True)
    assert found.stdout.strip() == "0.16.5"
    result = subprocess.run(run, env=environment, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stdout
