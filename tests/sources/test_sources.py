from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from dsoftmax import ChunkError, DataError, SoftmaxRegression, ingest, open_data
from dsoftmax.loss import compute_dtype

Store = Callable[..., str]


def as_path(array: zarr.Array[Any], path: str) -> Any:
    return Path(path)


def as_text(array: zarr.Array[Any], path: str) -> Any:
    return path


def as_file_url(array: zarr.Array[Any], path: str) -> Any:
    return f"file://{path}"


def as_zarr(array: zarr.Array[Any], path: str) -> Any:
    return array


def as_numpy(array: zarr.Array[Any], path: str) -> Any:
    return array[...]


FORMS = [as_path, as_text, as_file_url, as_zarr, as_numpy]
DTYPES = ["?", "u1", "i1", "u2", "i2", "i4", "u8", "i8", "f2", "f4", "f8", ">f4", ">i2"]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("zarr_format", [2, 3])
def test_every_form_and_dtype_gives_the_model_of_the_same_numbers(
    tmp_path: Path, dtype: str, zarr_format: int
) -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 200)
    X = (rng.integers(0, 40, (200, 4)) + 20 * (y[:, None] == np.arange(4))).astype(dtype)
    expected = SoftmaxRegression(alpha=0.1, tol=1e-6).fit(X.astype("f8"), y)
    array = zarr.create_array(tmp_path / "X", data=X, chunks=(30, 4), zarr_format=zarr_format)  # type: ignore[arg-type]
    for form in FORMS:
        model = SoftmaxRegression(alpha=0.1, tol=1e-6).fit(form(array, f"{tmp_path}/X"), y)
        np.testing.assert_allclose(model.coef_, expected.coef_, atol=2e-5)


def test_sharded_arrays_and_arrays_chunked_along_features_are_read_whole(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(100, 6)), rng.integers(0, 3, 100)
    expected = SoftmaxRegression(alpha=0.1).fit(X, y)
    sharded = zarr.create_array(tmp_path / "s", data=X, chunks=(5, 6), shards=(20, 6))
    tiled = zarr.create_array(tmp_path / "t", data=X, chunks=(30, 4))
    assert open_data(sharded).chunks == (0, 20, 40, 60, 80, 100)
    for array in (sharded, tiled):
        model = SoftmaxRegression(alpha=0.1).fit(array, y)
        np.testing.assert_allclose(model.coef_, expected.coef_, atol=1e-9)


@pytest.mark.parametrize("labels", [["b", "a", "ccc"], [5, -1, 300]])
def test_labels_in_a_store_may_be_strings_or_any_integers(store: Store, labels: list[Any]) -> None:
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 3, 120)
    path = store(rows=50, X=np.eye(3)[codes], y=np.array(labels)[codes])
    model = SoftmaxRegression(alpha=1e-3).fit(f"{path}/X", f"{path}/y")
    assert model.classes_.tolist() == sorted(labels)
    assert model.score(f"{path}/X", f"{path}/y") == 1.0


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


def test_a_damaged_chunk_is_an_error_that_names_array_key_and_rows(store: Store) -> None:
    path = store(rows=50, X=np.random.default_rng(0).normal(size=(100, 3)), y=np.arange(100) % 2)
    chunk = Path(path, "X", "c", "1", "0")
    chunk.write_bytes(chunk.read_bytes()[:20])
    with pytest.raises(
        ChunkError, match=r"data\.zarr/X: chunk c/1/0 \(rows 50 to 99\) cannot be read"
    ):
        SoftmaxRegression().fit(f"{path}/X", f"{path}/y")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros((4, 2), "c8"), "complex64; expected real numbers"),
        (np.array([["a", "b"]] * 4), "expected real numbers"),
        (np.zeros((4,)), "expected at least two dimensions"),
    ],
)
def test_what_metadata_tells_is_refused_before_anything_is_read(
    tmp_path: Path, values: np.ndarray, message: str
) -> None:
    dtype = "string" if values.dtype.kind == "U" else values.dtype
    zarr.create_array(tmp_path / "X", shape=values.shape, dtype=dtype, chunks=values.shape)
    with pytest.raises(DataError, match=message):
        open_data(tmp_path / "X", [0, 1, 0, 1])


def test_an_opened_source_brings_its_own_labels() -> None:
    source = open_data(np.eye(4), [0, 1, 0, 1])
    assert SoftmaxRegression().fit(source).score(source) == 1.0
    with pytest.raises(DataError, match="carries its own y"):
        SoftmaxRegression().fit(source, [0, 1, 0, 1])


def test_a_sparse_matrix_is_refused_with_the_remedy() -> None:
    from scipy.sparse import csr_array

    with pytest.raises(DataError, match="toarray"):
        SoftmaxRegression().fit(csr_array(np.eye(4)), [0, 1, 0, 1])


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


def test_a_store_that_changes_while_it_is_read_is_refused(store: Store) -> None:
    path = store(rows=10, X=np.zeros((100, 3)), y=np.arange(100) % 2)
    source = open_data(f"{path}/X", f"{path}/y")
    store(rows=10, X=np.zeros((50, 3)), y=np.arange(50) % 2)
    with pytest.raises(DataError, match=r"has changed since it was opened: it is now \(50,"):
        SoftmaxRegression().fit(source)


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
    path = store(rows=10, X=np.zeros((40, 3)), y=np.arange(40) % 2 + 0.5)
    with pytest.raises(DataError, match=r"data\.zarr/y has the value 0\.5 at row 0"):
        SoftmaxRegression().fit(f"{path}/X", f"{path}/y")


def test_a_chunk_lost_from_a_store_of_ours_is_not_read_as_zeros(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", X=np.ones((300, 3)), y=np.arange(300) % 2)
    ingest(tmp_path / "d.npz", tmp_path / "d.zarr", chunk_rows=100)
    (tmp_path / "d.zarr" / "X" / "c" / "1" / "0").unlink()
    with pytest.raises(ChunkError, match=r"d\.zarr/X has lost 1 of its 3 chunks"):
        open_data(tmp_path / "d.zarr" / "X", tmp_path / "d.zarr" / "y")
