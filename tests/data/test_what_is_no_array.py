"""Whatever is no array, or an array of another library, is one clear error at once, or is read."""

from __future__ import annotations

import json
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import dask.array as da
import fsspec
import ml_dtypes
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import xarray as xr
import zarr
from distributed import Client
from scipy.sparse import csr_matrix
from zarr.storage import FsspecStore

from dsoftmax import DataError, SoftmaxRegression, SoftmaxRegressionCV, inspect_data, open_data

X = np.random.default_rng(0).normal(size=(40, 2))
Y = (X[:, 0] > 0).astype(int)


class AnnData:
    """As that of anndata: a part of it is one again, so NumPy would search it without end."""

    def __len__(self) -> int:
        return 40

    def __getitem__(self, index: Any) -> AnnData:
        return self


class LazyFrame:
    """As that of polars: no array before `collect`."""

    def collect(self) -> None:
        raise AssertionError


class Leaf:
    """As an array of PyTables: a shape and a dtype, but none of NumPy's protocols."""

    shape, dtype = X.shape, X.dtype

    def __len__(self) -> int:
        return len(X)

    def __getitem__(self, index: Any) -> Any:
        raise AssertionError("it would be read row by row")


NO_ARRAYS: list[tuple[Any, str]] = [
    (AnnData(), r"AnnData; pass its matrix, \.X, and as y a column of its \.obs"),
    (LazyFrame(), r"LazyFrame; call X\.collect\(\) first"),
    (Leaf(), r"Leaf; pass X\[\.\.\.\] if it fits in memory, or dask\.array\.from_array\(X\)"),
    (xr.Dataset({"X": (("a", "b"), X)}), "xarray Dataset; expected a DataArray of it"),
    ({"left": X}, r"type dict; pass one of its arrays or columns: 'left'"),
    ((row for row in X), "of the type generator; expected an array: a path, NumPy, Dask, xarray"),
    (None, "X is None; expected an array"),
    (pd.DataFrame(X).groupby(Y), "pandas.DataFrameGroupBy; expected an array"),
    (csr_matrix(X), "sparse csr_matrix; sparse data is not supported"),
    (X.astype(ml_dtypes.bfloat16), "dtype bfloat16; expected real numbers .* with astype"),
    (X.astype(ml_dtypes.int4), "dtype int4; expected real numbers .* with astype"),
]


@pytest.mark.parametrize(("given", "said"), NO_ARRAYS, ids=lambda given: type(given).__name__)
def test_what_is_no_array_is_refused_at_once(given: Any, said: str) -> None:
    with pytest.raises(DataError, match=said):
        SoftmaxRegression().fit(given, Y)
    with pytest.raises(DataError, match=said):
        SoftmaxRegression().fit(X, Y).predict(given)


def test_a_dataset_is_refused_for_labels_too() -> None:
    dataset = xr.Dataset({"y": ("a", Y)})
    with pytest.raises(DataError, match="y is an xarray Dataset; expected a DataArray of it"):
        SoftmaxRegression().fit(xr.DataArray(X, dims=("a", "b")), dataset)
    with pytest.raises(DataError, match="X is an xarray Dataset"):
        SoftmaxRegression().fit(xr.Dataset({"X": (("a", "b"), X)}), dataset["y"])
    with pytest.raises(DataError, match=r"y has dtype int4; labels must be .* with astype"):
        SoftmaxRegression().fit(X, Y.astype(ml_dtypes.int4))


def test_a_file_that_is_no_zarr_array_is_named_with_what_opens_it(tmp_path: Path) -> None:
    np.save(tmp_path / "X.npy", X)
    said = r'X\.npy is a \.npy file, not a Zarr array; pass np\.load\(path, mmap_mode="r"\).*ingest'
    with pytest.raises(DataError, match=said):
        SoftmaxRegression().fit(tmp_path / "X.npy", Y)
    with pytest.raises(DataError, match=said):
        SoftmaxRegression().fit(X, str(tmp_path / "X.npy"))
    for name, remedy in {"t.csv": "dsoftmax ingest", "a.h5": "h5py", "a.nc": "xarray"}.items():
        (tmp_path / name).touch()
        with pytest.raises(DataError, match=rf"{name} is a \.\w+ file, not a Zarr .*{remedy}"):
            open_data(tmp_path / name)
    (tmp_path / "notes").touch()
    with pytest.raises(DataError, match="notes is a file, not a Zarr array"):
        open_data(tmp_path / "notes")
    with pytest.raises(DataError, match=r"X2\.npy does not exist"):
        open_data(tmp_path / "X2.npy")


@pytest.mark.parametrize(("held", "dtype"), [("float16", "bfloat16"), ("int8", "int4")])
def test_a_dtype_that_zarr_does_not_know_is_not_to_be_restored(
    tmp_path: Path, held: str, dtype: str
) -> None:
    group = zarr.open_group(tmp_path / "a.zarr", mode="w")
    group.create_array("X", data=X.astype(held))
    metadata = tmp_path / "a.zarr" / "X" / "zarr.json"
    metadata.write_text(metadata.read_text().replace(held, dtype))
    said = f"'{dtype}'; this version of Zarr does not read that dtype .* as float32 or int8$"
    with pytest.raises(DataError, match=said):
        open_data(tmp_path / "a.zarr" / "X")


TABLES: list[tuple[dict[str, Any], str]] = [
    ({"a": X[:, 0], "site": ["x", "y"] * 20}, "the column 'site' of X holds .* string to float"),
    ({"a": X[:, 0], "kind": pd.Categorical(["x", "y"] * 20)}, "the column 'kind' of X"),
    ({"a": X[:, 0], "when": pd.date_range("2020", periods=40)}, "the column 'when' of X"),
    ({"a": X[:, 0], "mixed": [1, "x"] * 20}, "the column 'mixed' of X"),
]


@pytest.mark.parametrize(("columns", "said"), TABLES)
def test_a_column_that_holds_no_numbers_is_named(columns: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError, match=said + ".*; leave it out, or encode it as numbers first"):
        SoftmaxRegression().fit(pd.DataFrame(columns), Y)


def test_gaps_of_nullable_columns_are_missing_values() -> None:
    gaps = np.arange(40) % 4 == 1
    whole = pd.DataFrame(
        {
            "i": np.arange(40) % 5,
            "f": X[:, 1],
            "b": np.arange(40) % 3 > 0,
            "o": pd.array(list(range(40)), dtype=object),
            "c": pd.Categorical(np.arange(40) % 2),
        }
    )
    dtypes = {"i": "Int64", "f": "Float64", "b": "boolean"}
    table = whole.astype(dtypes)
    for name in ("i", "f", "b", "c"):
        table[name] = table[name].mask(gaps)
    table["o"] = [pd.NA if gap else value for gap, value in zip(gaps, whole["o"], strict=True)]
    with pytest.raises(DataError, match=r"X has the value nan at row 1, column 0.*missing='drop'"):
        SoftmaxRegression().fit(table, Y)
    with pytest.warns(UserWarning, match="10 of 40 rows are left out"):
        model = SoftmaxRegression(alpha=0.1).fit(open_data(table, Y, missing="drop"))
    expected = SoftmaxRegression(alpha=0.1).fit(whole[~gaps].astype(float), Y[~gaps])
    np.testing.assert_allclose(model.coef_, expected.coef_, atol=1e-6)
    assert model.feature_names_in_.tolist() == list("ifboc")
    np.testing.assert_array_equal(model.predict(whole.astype(dtypes)), expected.predict(whole))
    weight = pd.Series([None, *[1.0] * 39], dtype="Float64")
    with pytest.raises(DataError, match="sample_weight has a missing value at row 0"):
        SoftmaxRegression().fit(X, Y, weight)


@pytest.mark.parametrize("kind", [pd.array, pa.array])
def test_a_nullable_column_keeps_integers_that_float64_cannot_hold(kind: Any) -> None:
    dtype = "Int64" if kind is pd.array else pa.int64()
    y = kind([2**53 + 1, 2**53, None] * 13 + [2**53], dtype)
    model = SoftmaxRegression()
    with pytest.warns(UserWarning, match="13 of 40 rows are left out"):
        model.fit(open_data(X, y, missing="drop"))
    assert model.classes_.tolist() == [2**53, 2**53 + 1]


def test_a_data_array_of_pandas_categories_is_labels() -> None:
    y = xr.DataArray(pd.Categorical(np.array(["a", "b"])[Y]), dims="rows")
    model = SoftmaxRegression().fit(xr.DataArray(X, dims=("rows", "bands")), y)
    assert model.classes_.tolist() == ["a", "b"]


def test_sparse_blocks_that_metadata_hide_are_named() -> None:
    meta = np.empty((0, 0))
    lazy = da.from_array(X, chunks=(10, 2)).map_blocks(csr_matrix, meta=meta)
    said = r"blocks of the type csr_matrix; sparse data is not supported: make them dense first"
    with pytest.raises(DataError, match=f"X is a Dask array .*{said}"):
        SoftmaxRegression().fit(lazy, Y)
    with pytest.raises(DataError, match=said):
        SoftmaxRegression().fit(X, Y).predict(lazy).compute()
    cube = lazy.map_blocks(lambda block: block, meta=meta)
    with pytest.raises(DataError, match=said):
        SoftmaxRegression().fit(X, Y).evaluate(cube, Y)


def noisy(block: np.ndarray) -> np.ndarray:
    return block + np.random.default_rng().normal(size=block.shape)


def reordered(block: np.ndarray) -> np.ndarray:
    return np.random.default_rng().permutation(block)


@pytest.mark.parametrize("solver", ["newton", "lbfgs", "sgd", "cv"])
def test_blocks_that_are_not_repeatable_are_refused(solver: str) -> None:
    model: Any = SoftmaxRegressionCV(alphas=[1.0, 0.1]) if solver == "cv" else None
    model = model or SoftmaxRegression(solver=solver)
    lazy, y = da.from_array(X, chunks=(20, 2)), da.from_array(Y, chunks=20)
    for change in (noisy, reordered):
        with pytest.raises(DataError, match=r"two reads of rows 0 to 19 differ in X: .*to_zarr"):
            model.fit(lazy.map_blocks(change, dtype=float), y)
    with pytest.raises(DataError, match=r"two reads of rows 0 to 39 differ in y: "):
        model.fit(X, y.map_blocks(reordered, dtype=int))


def test_random_numbers_with_a_seed_are_repeatable() -> None:
    lazy = da.random.default_rng(0).normal(size=(40, 2), chunks=(20, 2))
    assert SoftmaxRegression().fit(lazy, Y).n_features_in_ == 2


def test_what_cannot_travel_to_a_worker_is_one_error(cluster: Client) -> None:
    lock = threading.Lock()
    lazy = da.from_array(X, chunks=(20, 2)).map_blocks(lambda b: b * lock.locked(), dtype=float)
    with pytest.raises(DataError, match="cannot be sent to the workers, since they hold what can"):
        SoftmaxRegression().fit(lazy, Y)


def test_a_store_of_references_has_its_chunks(tmp_path: Path) -> None:
    group = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=2)
    for name, values in {"X": X, "y": Y}.items():
        chunks = (10, *values.shape[1:])
        group.create_array(name, data=values, chunks=chunks, compressors=None)
    files = [path for path in (tmp_path / "a.zarr").rglob("*") if path.is_file()]
    references = {
        path.relative_to(tmp_path / "a.zarr").as_posix(): path.read_text()
        if path.name.startswith(".z")
        else [str(path)]
        for path in files
    }
    (tmp_path / "references.json").write_text(json.dumps({"version": 1, "refs": references}))
    system = fsspec.filesystem(
        "reference",
        fo=str(tmp_path / "references.json"),
        asynchronous=True,
        remote_protocol="file",
        remote_options={"asynchronous": True},
    )
    virtual = zarr.open_group(FsspecStore(system, read_only=True), mode="r")
    model = SoftmaxRegression().fit(virtual["X"], virtual["y"])  # without a warning
    np.testing.assert_allclose(model.coef_, SoftmaxRegression().fit(X, Y).coef_, atol=1e-4)


class NoListing(SimpleHTTPRequestHandler):
    """Serves files, and refuses to list a folder, as most servers do."""

    def list_directory(self, path: Any) -> None:
        self.send_error(403)

    def log_message(self, *args: Any) -> None:
        pass


def test_a_store_that_cannot_be_listed_is_read(tmp_path: Path) -> None:
    group = zarr.open_group(tmp_path / "a.zarr", mode="w")
    group.create_array("X", data=X, chunks=(10, 2))
    group.create_array("y", data=Y + 1, chunks=(10,))
    handler = partial(NoListing, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/a.zarr"
        model = SoftmaxRegression().fit(f"{url}/X", f"{url}/y")  # without a warning
        report = str(inspect_data(f"{url}/X", f"{url}/y"))
        server.shutdown()
    np.testing.assert_allclose(model.coef_, SoftmaxRegression().fit(X, Y).coef_, atol=1e-4)
    assert "classes        2: 1" in report


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_computed_array_that_is_not_finite_gives_no_warning_of_numpy(value: float) -> None:
    X = np.eye(40)
    X[5, 3] = value
    blocks = da.from_array(X, chunks=20).map_blocks(lambda block: 2 * block)
    with pytest.raises(DataError, match=r"not finite \(NaN or infinity\)"):
        SoftmaxRegression().fit(blocks, np.arange(40) % 2)
