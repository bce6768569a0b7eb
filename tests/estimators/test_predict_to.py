"""Predictions that are stopped, and gone on with."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from dsoftmax import ChunkError, DataError, SoftmaxRegression
from dsoftmax.objective.linear_model import LinearModel
from dsoftmax.storage.urls import storage_options

Arrays = tuple[np.ndarray, np.ndarray]
Store = Callable[..., str]


@pytest.fixture
def made(digits: Arrays, store: Store) -> tuple[SoftmaxRegression, np.ndarray, str]:
    X, y = digits
    return SoftmaxRegression(alpha=0.1, tol=1e-2).fit(X, y), X, store(rows=100, X=X, y=y)


@pytest.fixture
def applied(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The first rows of all chunks that are predicted in this process."""
    rows: list[int] = []
    apply = LinearModel.apply

    def watched(self: LinearModel, chunk: Any, method: str, dtype: Any) -> Any:
        rows.append(chunk.start)
        return apply(self, chunk, method, dtype)

    monkeypatch.setattr(LinearModel, "apply", watched)
    return rows


def read(place: str) -> np.ndarray:
    found = zarr.open_array(place, mode="r", storage_options=storage_options(place))
    return np.asarray(found[...])


@pytest.mark.usefixtures("small_spans")
@pytest.mark.parametrize("method", ["predict_proba", "predict"])
def test_a_prediction_that_was_stopped_resumes_where_it_was(
    made: tuple[SoftmaxRegression, np.ndarray, str], place: str, applied: list[int], method: str
) -> None:
    model, X, path = made
    out = f"{place}/p.zarr"
    broken = Path(path, "X", "c", "12", "0")
    whole = broken.read_bytes()
    broken.write_bytes(whole[:20])
    with pytest.raises(ChunkError, match="cannot be read"):
        model.predict_to(f"{path}/X", out, method, resume=True)
    assert 1200 not in applied
    first = len(applied)
    assert 10 <= first <= 17

    broken.write_bytes(whole)
    model.predict_to(f"{path}/X", out, method, resume=True)
    assert len(set(applied)) == 18
    assert len(applied) <= 19  # a chunk that was read but not yet written when the other failed
    np.testing.assert_allclose(read(out), getattr(model, method)(X), rtol=1e-9, atol=1e-12)
    model.predict_to(f"{path}/X", out, method, resume=True)
    assert len(applied) <= 19
    with pytest.raises(DataError, match=r"already holds|another prediction"):
        SoftmaxRegression(alpha=1).fit(X, X[:, 20] > 8).predict_to(
            f"{path}/X", out, method, resume=True
        )


def test_a_partial_prediction_of_another_model_is_not_resumed(
    made: tuple[SoftmaxRegression, np.ndarray, str], tmp_path: Path
) -> None:
    model, X, path = made
    broken = Path(path, "X", "c", "17", "0")
    whole = broken.read_bytes()
    broken.write_bytes(whole[:20])
    out = tmp_path / "p.zarr"
    with pytest.raises(ChunkError):
        model.predict_to(f"{path}/X", out, resume=True)
    broken.write_bytes(whole)
    other = SoftmaxRegression(alpha=10.0, tol=1e-2).fit(f"{path}/X", f"{path}/y")
    for change in (
        lambda: other.predict_to(f"{path}/X", out, resume=True),
        lambda: model.predict_to(f"{path}/X", out, "predict_log_proba", resume=True),
    ):
        with pytest.raises(DataError, match="beginning of another prediction"):
            change()
    other.predict_to(f"{path}/X", out, resume=True, overwrite=True)
    np.testing.assert_allclose(read(str(out)), other.predict_proba(X), rtol=1e-9)
    assert not (tmp_path / "p.zarr.partial").exists()


def test_resuming_never_replaces_an_array_that_predict_to_did_not_write(
    made: tuple[SoftmaxRegression, np.ndarray, str], tmp_path: Path
) -> None:
    model, _, path = made
    notes = tmp_path / "p.zarr.partial" / "notes.txt"
    notes.parent.mkdir()
    notes.write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(DataError, match="never replaced"):
            model.predict_to(f"{path}/X", tmp_path / "p.zarr", resume=True, overwrite=overwrite)
    assert notes.read_text() == "mine"


def test_a_prediction_of_an_array_in_memory_cannot_be_resumed(
    made: tuple[SoftmaxRegression, np.ndarray, str], tmp_path: Path
) -> None:
    model, X, _ = made
    with pytest.raises(DataError, match="in memory"):
        model.predict_to(X, tmp_path / "p.zarr", resume=True)
    model.predict_to(X, tmp_path / "p.zarr")
    assert read(str(tmp_path / "p.zarr")).shape == (1797, 10)


def test_an_array_at_a_url_is_replaced_when_asked(
    made: tuple[SoftmaxRegression, np.ndarray, str], place: str
) -> None:
    model, X, path = made
    for method in ("predict_proba", "predict"):
        model.predict_to(f"{path}/X", f"{place}/p.zarr", method, overwrite=True)
    np.testing.assert_array_equal(read(f"{place}/p.zarr"), model.predict(X))


def test_many_classes_are_predicted_in_tasks_of_bounded_size(
    store: Store, tmp_path: Path, applied: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    X = np.arange(4000, dtype="u1").reshape(2000, 2)
    y = np.arange(2000) % 500
    model = SoftmaxRegression(tol=0.5).fit(X, y)
    path = store(rows=100, X=X)
    monkeypatch.setattr("dsoftmax.runtime.spans._SPAN_BYTES", 4 * 500 * 200)
    model.predict_to(f"{path}/X", tmp_path / "p.zarr")
    assert sorted(applied) == list(range(0, 2000, 200))


_SLOW = """
import sys, time
from dsoftmax import load_model
from dsoftmax.objective.linear_model import LinearModel
apply = LinearModel.apply
def slowly(self, chunk, method, dtype):
    print(chunk.start, flush=True)
    time.sleep(0.1)
    return apply(self, chunk, method, dtype)
LinearModel.apply = slowly
import dsoftmax.runtime.spans as spans
spans._SPAN_BYTES = 1
load_model(sys.argv[1]).predict_to(sys.argv[2], sys.argv[3], resume=True)
"""


@pytest.mark.slow
@pytest.mark.usefixtures("small_spans")
def test_a_prediction_whose_process_is_killed_resumes_from_its_chunks(
    made: tuple[SoftmaxRegression, np.ndarray, str], tmp_path: Path, applied: list[int]
) -> None:
    model, X, path = made
    model.save(tmp_path / "m.zarr")
    out = tmp_path / "p.zarr"
    command = [sys.executable, "-c", _SLOW, str(tmp_path / "m.zarr"), f"{path}/X", str(out)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for _ in range(8):
            process.stdout.readline()
        process.kill()
    assert not out.exists()
    applied.clear()
    model.predict_to(f"{path}/X", out, resume=True)
    assert 10 <= len(applied) <= 17
    np.testing.assert_allclose(read(str(out)), model.predict_proba(X), rtol=1e-9, atol=1e-12)
