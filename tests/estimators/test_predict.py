from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import zarr
from distributed import Client
from sklearn.datasets import load_breast_cancer, load_digits

from dsoftmax import ChunkError, DataError, SoftmaxRegression
from dsoftmax.objective.linear_model import METHODS

Store = Callable[..., str]


@pytest.fixture(scope="module", params=["ten classes", "two classes"])
def fitted(request: pytest.FixtureRequest) -> tuple[SoftmaxRegression, np.ndarray]:
    load = load_digits if request.param == "ten classes" else load_breast_cancer
    X, y = load(return_X_y=True)
    names = np.array([f"class {label}" for label in range(10)])
    return SoftmaxRegression(alpha=0.1, tol=1e-3).fit(X, names[y]), X


def assert_same(got: Any, expected: np.ndarray) -> None:
    """Compare labels exactly, and numbers up to the order of a sum."""
    if expected.dtype.kind == "U":
        assert got.tolist() == expected.tolist()
    else:
        np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_lazy_in_is_lazy_out_with_the_same_values_and_chunks(
    fitted: tuple[SoftmaxRegression, np.ndarray], store: Store, method: str
) -> None:
    model, X = fitted
    path = store(rows=100, X=X)
    expected = getattr(model, method)(X)
    for lazy in (f"{path}/X", zarr.open_array(f"{path}/X"), da.from_array(X, chunks=(100, 20))):
        result = getattr(model, method)(lazy)
        assert isinstance(result, da.Array)
        assert result.shape == expected.shape
        assert result.dtype == expected.dtype
        assert set(result.chunks[0][:-1]) == {100}
        assert_same(result.compute(), expected)


@pytest.mark.parametrize("method", METHODS)
def test_predictions_stream_into_a_store(
    fitted: tuple[SoftmaxRegression, np.ndarray], store: Store, tmp_path: Path, method: str
) -> None:
    model, X = fitted
    path, out = store(rows=100, X=X), tmp_path / "out.zarr" / method
    model.predict_to(f"{path}/X", out, method)
    written = zarr.open_array(out)
    assert written.chunks[0] == 100
    assert_same(written[...], getattr(model, method)(X))
    with pytest.raises(DataError, match="already holds a Zarr store"):
        model.predict_to(f"{path}/X", out, method)
    model.predict_to(f"{path}/X", out, method, overwrite=True)
    assert [entry.name for entry in out.parent.iterdir()] == [method]


def test_predictions_run_on_the_workers_of_a_cluster(
    cluster: Client, fitted: tuple[SoftmaxRegression, np.ndarray], store: Store, tmp_path: Path
) -> None:
    model, X = fitted
    path = store(rows=100, X=X)
    np.testing.assert_array_equal(model.predict(f"{path}/X").compute(), model.predict(X))
    model.predict_to(f"{path}/X", tmp_path / "p.zarr")
    assert_same(zarr.open_array(tmp_path / "p.zarr")[...], model.predict_proba(X))


def test_a_failed_prediction_leaves_nothing_behind(
    fitted: tuple[SoftmaxRegression, np.ndarray], store: Store, tmp_path: Path
) -> None:
    model, X = fitted
    path = store(rows=100, X=X)
    chunk = Path(path, "X", "c", "3", "0")
    chunk.write_bytes(chunk.read_bytes()[:20])
    with pytest.raises(Exception, match="cannot be read"):
        model.predict_to(f"{path}/X", tmp_path / "out" / "p.zarr")
    assert not list(tmp_path.glob("out/*"))


def test_probabilities_add_up_and_the_labels_are_the_likeliest(
    fitted: tuple[SoftmaxRegression, np.ndarray],
) -> None:
    model, X = fitted
    p = model.predict_proba(X)
    np.testing.assert_allclose(p.sum(axis=1), 1, rtol=1e-12)
    np.testing.assert_array_equal(model.predict(X), model.classes_[p.argmax(axis=1)])
    np.testing.assert_allclose(np.exp(model.predict_log_proba(X)), p, rtol=1e-12)


def test_log_probabilities_do_not_underflow() -> None:
    model = SoftmaxRegression().fit([[0.0], [1.0]], [0, 1])
    model.coef_ = model.coef_ * 0 + 1e4
    log_p = model.predict_log_proba([[1.0], [-1.0]])
    assert np.isfinite(log_p).all()
    assert log_p.min() < -9000


BAD: list[tuple[Any, str]] = [
    (np.zeros((3, 5)), "5 features, but SoftmaxRegression is expecting 2 features"),
    (np.zeros(2), "expected at least two dimensions"),
    (np.array([[0, np.nan]]), "nan at row 0, column 1"),
    (da.zeros((3, 5)), "is expecting 2 features"),
    (da.zeros((3, 2), dtype=complex), "complex128"),
    ("nowhere.zarr", "does not exist"),
]


@pytest.mark.parametrize(("X", "message"), BAD)
def test_rows_that_do_not_fit_the_model_are_refused(X: Any, message: str) -> None:
    model = SoftmaxRegression().fit([[0.0, 1], [1, 0]], [0, 1])
    with pytest.raises(DataError, match=message):
        model.predict(X)


def test_one_row_is_enough() -> None:
    model = SoftmaxRegression().fit([[0.0], [1.0]], [0, 1])
    assert model.predict([[1]]).tolist() == [1]
    assert model.predict_proba(np.array([[1]], "u1")).shape == (1, 2)


def test_a_row_with_a_missing_value_is_never_scored_or_labelled_unasked(
    store: Store, tmp_path: Path
) -> None:
    X, y = np.random.default_rng(0).normal(size=(300, 2)), np.arange(300) % 2
    model = SoftmaxRegression().fit(X, y)
    X[217, 1] = np.nan
    path = store(rows=100, X=X, y=y)
    lazy = da.from_array(X, chunks=(100, 2))
    for predict in (
        lambda: model.evaluate(X, y),
        lambda: model.evaluate(f"{path}/X", f"{path}/y"),
        lambda: model.predict(X),
        lambda: model.predict(f"{path}/X").compute(scheduler="synchronous"),
        lambda: model.predict(lazy).compute(scheduler="synchronous"),
        lambda: model.predict_to(f"{path}/X", tmp_path / "out.zarr", "predict"),
    ):
        with pytest.raises(DataError, match="nan at row 217, column 1"):
            predict()
    assert not (tmp_path / "out.zarr").exists()


def test_predictions_are_never_written_over_what_they_are_made_from(store: Store) -> None:
    path = store(rows=100, X=np.random.default_rng(0).normal(size=(300, 2)), y=np.arange(300) % 2)
    model = SoftmaxRegression().fit(f"{path}/X", f"{path}/y")
    for place in (path, f"{path}/X", f"{path}/X/p"):
        with pytest.raises(DataError, match="would be written over"):
            model.predict_to(f"{path}/X", place, overwrite=True)
    model.predict_to(f"{path}/X", f"{path}/p")
    with pytest.raises(DataError, match="no model"):
        model.save(path, overwrite=True)
    assert model.score(f"{path}/X", f"{path}/y") > 0


@pytest.mark.parametrize("shape", [(600, 3), (30, 40, 3)])
def test_a_block_of_a_lazy_prediction_carries_its_own_absent_chunks_only(
    shape: tuple[int, ...], tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(50, 3))
    model = SoftmaxRegression().fit(X, np.arange(50) % 2)
    chunks = (2,) * (len(shape) - 1) + (3,)
    stored = zarr.create_array(tmp_path / "X", shape=shape, chunks=chunks, dtype="f8")
    stored[:4] = rng.normal(size=(4, *shape[1:]))
    with pytest.warns(UserWarning, match=r"2\d\d chunk\(s\) of .* are not in the store"):
        lazy = model.predict_proba(tmp_path / "X")
    tasks = dict(lazy.__dask_graph__())
    assert len(tasks) == lazy.npartitions >= 300
    assert max(len(pickle.dumps(task)) for task in tasks.values()) < 2000
    rows = np.asarray(stored[:6])
    expected = model.predict_proba(rows.reshape(-1, 3)).reshape(*rows.shape[:-1], 2)
    np.testing.assert_allclose(np.asarray(lazy[:6]), expected, rtol=1e-12)
    lost = tmp_path / "X" / "c" / "1" / Path(*"0" * (len(shape) - 1))
    lost.unlink()
    with pytest.raises(ChunkError, match=r"chunk c/1/0.* is not in the store"):
        lazy[:4].compute()
    np.asarray(lazy[4:6])
