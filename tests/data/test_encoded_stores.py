"""Encoded stores in all that a fit does: cubes, faults, resumption, workers, files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import xarray as xr
import zarr
from distributed import Client
from sklearn.exceptions import ConvergenceWarning

from dsoftmax import (
    DataError,
    SoftmaxRegression,
    SoftmaxRegressionCV,
    inspect_data,
    load_model,
    open_data,
)
from dsoftmax.data.cf_encoding import cf_encoding
from dsoftmax.errors import CheckpointError
from dsoftmax.runtime import local_cluster as local
from dsoftmax.runtime import select
from tests.data import encoded
from tests.fits import bits

SHAPE = (12, 9, 3)
UNSIGNED = {"_Unsigned": "true", "_FillValue": -1, "scale_factor": 0.02}

pytestmark = pytest.mark.filterwarnings("ignore:.* rows are left out")


@pytest.fixture
def cube(tmp_path: Path) -> Path:
    """Write X (y, x, band), as bytes that are to be read as unsigned ones, and labels."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, SHAPE[:2])
    stored = (40 * y[..., None] + rng.integers(0, 130, SHAPE)).astype("u1")
    stored[rng.random(SHAPE) < 0.05] = 255
    add(tmp_path / "X", stored.view("i1"), ("y", "x", "band"), (5, 4, 2), UNSIGNED)
    add(tmp_path / "y", y.astype("u1"), ("y", "x"), SHAPE[:2], {"_FillValue": 7})
    zarr.open_group(tmp_path, mode="a")
    return tmp_path


def add(place: Path, values: Any, dims: Any, chunks: Any, attributes: dict[str, Any]) -> None:
    array = zarr.create_array(
        place,
        shape=values.shape,
        dtype=values.dtype,
        chunks=chunks,
        dimension_names=dims,
        attributes=attributes,
        overwrite=True,
    )
    array[...] = values


def coef(*arrays: Any, **options: Any) -> Any:
    options = {"missing": "drop", "dtype": "float64", **options}
    return SoftmaxRegression(alpha=0.05, tol=1e-9).fit(open_data(*arrays, **options)).coef_


def rows_of(cube: Path) -> tuple[Any, Any]:
    """Return the pixels without missing values, as xarray reads them."""
    with xr.open_zarr(cube, consolidated=False, chunks=None) as opened:
        X, y = opened.X.values.astype("f8"), opened.y.values
    kept = np.isfinite(X).all(axis=-1) & np.isfinite(y)
    return X[kept], y[kept].astype(int)


CUBES: dict[str, Callable[[Path], Any]] = {
    "path": lambda path: path,
    "zarr.Array": lambda path: zarr.open_array(path, mode="r"),
    "from_zarr": lambda path: da.from_zarr(zarr.open_array(path, mode="r")),
    "rechunked": lambda path: da.from_zarr(zarr.open_array(path, mode="r")).rechunk(7),
    "sliced": lambda path: da.from_zarr(zarr.open_array(path, mode="r"))[:][:12],
    "DataArray": lambda path: xr.open_zarr(path.parent, consolidated=False)[path.name],
}


@pytest.mark.parametrize("door", CUBES)
def test_a_cube_is_the_rows_of_its_decoded_pixels(cube: Path, door: str) -> None:
    X, y = (CUBES[door](cube / name) for name in "Xy")
    np.testing.assert_allclose(coef(X, y), coef(*rows_of(cube)), rtol=1e-6, atol=1e-6)


def test_what_dask_computes_of_stored_numbers_is_warned_of(cube: Path) -> None:
    lazy = da.from_zarr(zarr.open_array(cube / "X", mode="r")) + 0
    with pytest.warns(UserWarning, match="X is computed with Dask from .*missing where 255"):
        open_data(lazy, cube / "y")
    open_data(lazy, cube / "y", decode=False)  # it is the user's to decode


@pytest.mark.parametrize("door", ["path", "zarr.Array", "from_zarr", "rechunked"])
def test_stored_numbers_are_read_as_they_are_if_so_asked(cube: Path, door: str) -> None:
    stored, y = (zarr.open_array(cube / name, mode="r")[...] for name in "Xy")
    X = CUBES[door](cube / "X")
    assert open_data(X, decode=False).X.encoding is None
    got = coef(X, cube / "y", decode=False)
    np.testing.assert_allclose(got, coef(stored, y), rtol=1e-6, atol=1e-6)


def test_rows_that_cannot_be_read_are_skipped_and_the_rest_decoded(tmp_path: Path) -> None:
    path = encoded.write(tmp_path / "s", "everything", 3)
    X, y, w, _ = encoded.decoded(path)
    kept = encoded.decoded(path).kept & (np.arange(len(y)) < 80)
    damaged = path / "X" / "c" / "1" / "0"
    damaged.write_bytes(damaged.read_bytes()[:-5])
    options = {"on_bad_chunk": "skip", "max_bad_chunks": 1}
    with pytest.warns(UserWarning, match="chunk c/1/0"):
        got = coef(*(path / name for name in "Xyw"), **options)
    np.testing.assert_allclose(got, coef(X[kept], y[kept], w[kept]), rtol=1e-6, atol=1e-6)


@pytest.mark.filterwarnings("ignore:.* not in the store")
@pytest.mark.parametrize("fill_value", [-5, 3])
def test_an_absent_chunk_is_what_the_fill_value_of_its_array_stands_for(
    tmp_path: Path, fill_value: int
) -> None:
    zarr.open_group(tmp_path, mode="w")
    attributes = {"_FillValue": -5, "scale_factor": 0.5, "add_offset": 1.0}
    array = zarr.create_array(
        tmp_path / "X",
        shape=(60, 2),
        dtype="i2",
        chunks=(20, 2),
        fill_value=fill_value,
        dimension_names=("i", "f"),
        attributes=attributes,
    )
    rng = np.random.default_rng(0)
    array[20:] = rng.integers(0, 9, (40, 2))
    y = rng.integers(0, 2, 60)
    X = xr.open_zarr(tmp_path, consolidated=False, chunks=None).X.values
    absent = np.isnan(X[:20]).all() if fill_value == -5 else (X[:20] == 2.5).all()
    assert absent
    kept = np.isfinite(X).all(axis=1)
    got = coef(tmp_path / "X", y)
    np.testing.assert_allclose(got, coef(X[kept], y[kept]), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("zarr_format", encoded.FORMATS)
def test_a_checkpoint_of_the_same_numbers_that_stand_for_others_is_refused(
    tmp_path: Path, zarr_format: int
) -> None:
    path = encoded.write(tmp_path / "s", "packed without fill", zarr_format)
    model = SoftmaxRegression(solver="lbfgs", tol=0, max_iter=2, checkpoint=tmp_path / "state")
    with pytest.warns(ConvergenceWarning):
        model.fit(path / "X", path / "y")
    zarr.open_array(path / "X", mode="r+").attrs["scale_factor"] = 0.002
    with pytest.raises(CheckpointError, match=r"scale_factor 0.001, .*scale_factor 0.002"):
        model.fit(path / "X", path / "y")


def test_workers_and_threads_decode_to_the_same_bits(cube: Path, cluster: Client) -> None:
    with cluster.as_current():
        there = model_of(cube)
    assert "process" not in there.numerics_
    assert bits(model_of(cube)) == bits(there)


@pytest.mark.slow
def test_the_embedded_cluster_decodes_to_the_same_bits(
    cube: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = model_of(cube)
    monkeypatch.setattr(select, "_SMALL", 0)
    there = model_of(cube)
    local.close_embedded_cluster()
    assert bits(here) == bits(there)


def model_of(cube: Path) -> SoftmaxRegression:
    return SoftmaxRegression(alpha=0.05).fit(open_data(cube / "X", cube / "y", missing="drop"))


def test_a_model_records_how_its_data_were_decoded(cube: Path, tmp_path: Path) -> None:
    model_of(cube).save(tmp_path / "model")
    data = load_model(tmp_path / "model").data_
    decoded = "decoded: read as uint8; scale_factor 0.02, add_offset 0.0; missing where 255"
    assert data["X"].endswith(decoded)
    assert data["y"].endswith("decoded: read as uint8; missing where 7")


def test_inspect_says_how_an_array_is_decoded(cube: Path) -> None:
    report = inspect_data(cube / "X", cube / "y")
    assert "decoded: read as uint8; scale_factor 0.02, add_offset 0.0" in str(report)
    facts = json.loads(json.dumps(report.to_dict()))["arrays"]
    assert facts["X"]["decoded"] == {
        "dtype": "uint8",
        "fill_values": [255],
        "scale_factor": 0.02,
        "add_offset": 0.0,
    }
    assert facts["y"]["decoded"] == {"dtype": "uint8", "fill_values": [7]}
    raw = inspect_data(open_data(cube / "X", cube / "y", decode=False))
    assert "decoded:" not in str(raw)


def test_folds_are_decoded_too(cube: Path) -> None:
    folds = np.arange(108).reshape(SHAPE[:2]) % 3
    dims, chunks = ("y", "x"), SHAPE[:2]
    add(cube / "bytes", folds.astype("i1") - 1, dims, chunks, {"_Unsigned": "true"})
    add(cube / "scaled", folds.astype("u1"), dims, chunks, {"scale_factor": 3.0})
    source = open_data(cube / "X", cube / "y", missing="drop", dtype="float64")

    def scores(cv: Any) -> Any:
        return SoftmaxRegressionCV(alphas=[0.01, 1.0], cv=cv, tol=1e-7).fit(source).scores_

    # As bytes, -1 would be in no fold; read as they are meant, it is 255.
    named = np.where(folds == 0, 255, folds - 1)
    np.testing.assert_allclose(scores(cube / "bytes"), scores(named), atol=1e-6)
    np.testing.assert_allclose(scores(cube / "scaled"), scores(folds), atol=1e-6)
    add(cube / "gaps", folds.astype("u1"), dims, chunks, {"_FillValue": 2})
    with pytest.raises(DataError, match=r"gaps has a missing value in 36 rows"):
        scores(cube / "gaps")


def test_predictions_of_numbers_beyond_float32_are_computed_in_float64(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    stored = rng.integers(0, 100, (50, 2)).astype("i2")
    add(tmp_path / "X", stored, ("i", "f"), (20, 2), {"scale_factor": 1e-30})
    y = (stored[:, 0] > 50).astype(int)
    model = SoftmaxRegression(alpha=0.1, standardize=True).fit(stored * 1e-30, y)
    lazy = da.from_zarr(zarr.open_array(tmp_path / "X", mode="r"))[:].rechunk((30, 2))
    expected = model.predict_proba(stored * 1e-30)
    for given in (tmp_path / "X", lazy):
        np.testing.assert_allclose(model.predict_proba(given).compute(), expected, atol=1e-6)


FILLS: list[tuple[str, dict[str, Any], Any]] = [
    ("u1", {"_Unsigned": "false", "_FillValue": 200}, -56),
    ("i2", {"_Unsigned": "true", "_FillValue": -9}, 65527),
    ("i2", {"_FillValue": -9999.0}, -9999),
    ("f4", {"_FillValue": "AAAAAACIw8A="}, -10000.0),
    ("f4", {"missing_value": 1e20}, float(np.float32(1e20))),
    ("i8", {"missing_value": 2**53 + 1}, 2**53 + 1),
    ("S2", {"_FillValue": "YQ=="}, b"a"),
    ("S2", {"missing_value": "no"}, b"no"),
]


@pytest.mark.filterwarnings("ignore:The data type")
@pytest.mark.parametrize(("dtype", "attributes", "fill"), FILLS)
def test_a_fill_value_is_compared_as_it_is_stored(
    dtype: str, attributes: dict[str, Any], fill: Any
) -> None:
    array = zarr.create_array({}, shape=(2,), dtype=dtype, attributes=attributes)
    encoding = cf_encoding("y", array)
    assert encoding is not None
    assert encoding.fill_values == (fill,)
