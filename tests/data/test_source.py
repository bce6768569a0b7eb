from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from dsoftmax import ChunkError, DataError, SoftmaxRegression, ingest, open_data
from dsoftmax.objective.kernel import compute_dtype

Store = Callable[..., str]


def test_rows_are_computed_in_the_narrowest_dtype_that_holds_them() -> None:
    narrow = ["?", "u1", "i2", "u2", "f2", "f4"]
    assert {compute_dtype(dtype) for dtype in narrow} == {np.dtype("f4")}
    assert {compute_dtype(dtype) for dtype in ["i4", "u8", "f8"]} == {np.dtype("f8")}
    assert open_data(np.zeros((2, 2), "u1"), dtype="float64").dtype == np.float64
    with pytest.raises(DataError, match="float32 or float64"):
        open_data(np.zeros((2, 2)), dtype="float16")


def test_a_source_travels_as_its_address_without_its_data(store: Store) -> None:
    path = store(X=np.zeros((100, 50)), y=np.zeros(100))
    source = open_data(f"{path}/X", f"{path}/y")
    assert len(pickle.dumps(source)) < 1500
    again = pickle.loads(pickle.dumps(source))
    np.testing.assert_array_equal(again.read(10, 20).X, np.zeros((10, 50)))


def test_a_relative_path_is_made_absolute(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store(X=np.zeros((10, 2)))
    monkeypatch.chdir(tmp_path)
    assert open_data("data.zarr/X").X.name == f"{tmp_path}/data.zarr/X"


def test_an_opened_source_brings_its_own_labels() -> None:
    source = open_data(np.eye(4), [0, 1, 0, 1])
    assert SoftmaxRegression().fit(source).score(source) == 1.0
    with pytest.raises(DataError, match="carries its own y"):
        SoftmaxRegression().fit(source, [0, 1, 0, 1])


def test_a_store_that_was_written_anew_is_read_anew(store: Store) -> None:
    rng = np.random.default_rng(0)
    for rows, dtype in ((1000, "f4"), (3000, "f4"), (3000, "f8"), (3000, "i4")):
        y = rng.integers(0, 2, rows)
        X = (100 * (y[:, None] + rng.random((rows, 3)))).astype(dtype)
        path = store(rows=100, X=X, y=y)
        model = SoftmaxRegression(alpha=1.0).fit(f"{path}/X", f"{path}/y")
        assert model.evaluate(f"{path}/X", f"{path}/y")["n_samples"] == rows
        np.testing.assert_allclose(
            model.coef_, SoftmaxRegression(alpha=1.0).fit(X, y).coef_, rtol=1e-3
        )
        np.testing.assert_array_equal(model.predict(f"{path}/X").compute(), model.predict(X))


def test_labels_in_large_chunks_are_decoded_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 1000)
    zarr.create_array(tmp_path / "X", data=rng.normal(size=(1000, 2)), chunks=(10, 2))
    zarr.create_array(tmp_path / "y", data=y, chunks=(400,))
    source = open_data(tmp_path / "X", tmp_path / "y")
    reads: list[Any] = []
    read = zarr.Array.__getitem__
    monkeypatch.setattr(zarr.Array, "__getitem__", lambda a, k: reads.append(a.ndim) or read(a, k))
    found = [source.read_targets(start, start + 10).y for start in range(0, 1000, 10)]
    np.testing.assert_array_equal(np.concatenate(found), y)
    assert len(reads) == 3


def test_errors_call_arrays_by_their_names(store: Store) -> None:
    path = store(rows=10, X=np.ones((40, 3)), y=np.arange(40) % 2 + 0.5)
    with pytest.raises(DataError, match=r"data\.zarr/y has the value 0\.5 at row 0"):
        SoftmaxRegression().fit(f"{path}/X", f"{path}/y")


def test_a_chunk_lost_from_a_store_of_ours_is_not_read_as_zeros(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", X=np.ones((300, 3)), y=np.arange(300) % 2)
    ingest(tmp_path / "d.npz", tmp_path / "d.zarr", chunk_rows=100)
    (tmp_path / "d.zarr" / "X" / "c" / "1" / "0").unlink()
    with pytest.raises(ChunkError, match=r"d\.zarr/X has lost 1 of its 3 chunks"):
        open_data(tmp_path / "d.zarr" / "X", tmp_path / "d.zarr" / "y")
