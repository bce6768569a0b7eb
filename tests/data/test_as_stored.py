"""Stored numbers keep their meaning on ways that are not the usual one, or are refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import xarray as xr
import zarr

from dsoftmax import SoftmaxRegression, SoftmaxRegressionCV, inspect_data, load_model, open_data
from dsoftmax.errors import DataError

rng = np.random.default_rng(0)
X = rng.uniform(0, 0.6, (60, 4)).round(3)
Y = (X @ rng.normal(size=(4, 3)) * 9 + rng.gumbel(size=(60, 3))).argmax(axis=1)


def fit(X: Any, y: Any = None, **options: Any) -> SoftmaxRegression:
    return SoftmaxRegression(alpha=1e-3, tol=1e-8, **options).fit(X, y)


@pytest.fixture
def packed(tmp_path: Path) -> str:
    """Return a group with X as int16 and labels of which 255 is missing, as xarray writes it."""
    labels = np.where(np.arange(60) % 17 == 0, np.nan, Y)
    data = xr.Dataset({"X": (("i", "f"), X), "y": ("i", labels), "all": ("i", Y)})
    scaling = {"scale_factor": 1e-4, "add_offset": -0.1, "_FillValue": -32768}
    encoding = {
        "X": {"dtype": "i2", "chunks": (20, 4), **scaling},
        "y": {"dtype": "u1", "_FillValue": 255},
    }
    data.to_zarr(tmp_path / "packed", consolidated=False, encoding=encoding)
    return str(tmp_path / "packed")


MOVES: dict[str, Callable[[str], Any]] = {
    "from_zarr": da.from_zarr,
    "inlined": lambda path: da.from_zarr(path, inline_array=True),
    "a part of an inlined one": lambda path: da.from_zarr(path, inline_array=True)[:50].rechunk(
        (30, 4)
    ),
    "from_array": lambda path: da.from_array(zarr.open(path, mode="r"), chunks=(20, 4)),
    "a part of from_array": lambda path: da.from_array(zarr.open(path, mode="r"))[5:],
    "stacked bands": lambda path: da.stack([da.from_zarr(path)[:, i] for i in range(4)], axis=1),
    "transposed": lambda path: da.stack([da.from_zarr(path)[:, i] for i in range(4)]).T,
    "reshaped": lambda path: da.from_zarr(path).reshape(3, 20, 4).reshape(60, 4),
    "blocks": lambda path: da.from_zarr(path).blocks[1:],
}


@pytest.mark.parametrize("move", MOVES)
def test_numbers_that_dask_only_moves_are_decoded_in_a_fit_and_in_predictions(
    packed: str, move: str
) -> None:
    moved = MOVES[move](f"{packed}/X")
    first, last = {"a part of an inlined one": (0, 50), "blocks": (20, 60)}.get(
        move, (5, 60) if move == "a part of from_array" else (0, 60)
    )
    rows, labels = np.asarray(xr.open_zarr(packed, consolidated=False).X)[first:last], Y[first:last]
    expected, found = fit(open_data(rows, labels)), fit(open_data(moved, labels, dtype="float64"))
    np.testing.assert_allclose(found.coef_, expected.coef_, rtol=1e-6)
    p = found.predict_proba(moved).compute()
    np.testing.assert_allclose(p, expected.predict_proba(rows), atol=1e-5)


def test_what_dask_computes_from_packed_numbers_is_warned_of_where_it_is_passed(
    packed: str,
) -> None:
    computed = da.from_zarr(f"{packed}/X") * 1
    beside = da.concatenate([da.from_zarr(f"{packed}/X")[:20], da.from_array(X[20:])])
    model = fit(X, Y)
    for array in (computed, beside):
        for call, rest in ((fit, (Y,)), (model.predict, ())):
            with pytest.warns(UserWarning, match="is computed with Dask from .*scale") as said:
                call(array, *rest)
            assert {warning.filename for warning in said} == {__file__}
    model.predict(open_data(computed, decode=False))  # without a warning


@pytest.mark.parametrize("loaded", [False, True])
def test_a_data_array_that_still_has_its_attributes_is_decoded(packed: str, loaded: bool) -> None:
    raw = xr.open_zarr(packed, consolidated=False, mask_and_scale=False)
    raw = raw.load() if loaded else raw
    with pytest.warns(UserWarning, match="4 of 60 rows are left out"):
        found = fit(open_data(raw.X, raw.y, ignore_label=255, dtype="float64"))
    used = np.arange(60) % 17 > 0
    expected = fit(open_data(X[used], Y[used]))
    assert found.classes_.tolist() == [0, 1, 2]
    np.testing.assert_allclose(found.coef_, expected.coef_, rtol=1e-6)
    p = np.asarray(found.predict_proba(raw.X))
    np.testing.assert_allclose(p, expected.predict_proba(X), atol=1e-5)
    with pytest.raises(DataError, match="whether it has been unpacked is not known"):
        fit(raw.X.astype(float), Y)


@pytest.mark.parametrize("label", [255, float("nan")])
def test_a_missing_label_may_be_ignored_by_the_number_that_is_stored(
    packed: str, label: float
) -> None:
    with pytest.warns(UserWarning, match="4 of 60 rows are left out: 4 with the label"):
        model = fit(open_data(f"{packed}/X", f"{packed}/y", ignore_label=label))
    assert model.classes_.tolist() == [0, 1, 2]
    with pytest.raises(DataError, match=r"missing label \(stored as 255\)"):
        fit(open_data(f"{packed}/X", f"{packed}/y"))


def test_a_model_of_stored_numbers_is_applied_to_stored_numbers(
    packed: str, tmp_path: Path
) -> None:
    path = f"{packed}/X"
    raw = np.asarray(zarr.open(path, mode="r")[:]).astype(float)
    for kind in (SoftmaxRegression, SoftmaxRegressionCV):
        options = {} if kind is SoftmaxRegression else {"alphas": [1e-3, 1.0], "cv": 2}
        model = kind(tol=1e-4, **options).fit(open_data(path, Y, decode=False))
        p = model.predict_proba(raw)
        for other in (path, zarr.open(path, mode="r"), da.from_zarr(path), da.from_zarr(path)[:]):
            np.testing.assert_allclose(np.asarray(model.predict_proba(other)), p, atol=1e-5)
        assert model.score(path, Y) == model.score(raw, Y)
        model.save(tmp_path / "model", overwrite=True)
        assert load_model(tmp_path / "model").score(path, Y) == model.score(raw, Y)
    fitted = SoftmaxRegression(alpha=1e-3).fit(
        open_data(path, Y, decode=False), X_val=path, y_val=Y
    )
    last = fitted.history_[-1]["validation_loss"]
    assert abs(last - fitted.evaluate(raw, Y)["log_loss"]) < 1e-4


def test_options_that_a_source_cannot_take_any_more_are_refused() -> None:
    source = open_data(X, Y)
    for options in ({"decode": False}, {"missing": "drop"}, {"dtype": "float32"}):
        with pytest.raises(DataError, match="read as it was opened"):
            open_data(source, **options)
    with pytest.raises(DataError, match="read as it was opened"):
        inspect_data(source, decode=False)
    assert inspect_data(source).n_samples == 60


def test_features_lie_along_the_same_axis_as_in_the_fit(tmp_path: Path) -> None:
    cube = xr.DataArray(rng.normal(size=(4, 4, 4)), dims=("y", "x", "band"))
    labels = xr.DataArray(rng.integers(0, 2, (4, 4)), dims=("y", "x"))
    turned, turned_labels = cube.transpose("band", "y", "x"), labels.rename(y="band", x="y")
    model = fit(cube, labels)
    model.save(tmp_path / "model")
    for each in (model, load_model(tmp_path / "model")):
        for call, rest in ((each.predict, ()), (each.score, (turned_labels,))):
            with pytest.raises(DataError, match=r"along 'x', and the data of the fit .* 'band'"):
                call(turned, *rest)
    with pytest.raises(DataError, match=r"along 'x', and the data of the fit .* 'band'"):
        SoftmaxRegression().fit(cube, labels, X_val=turned, y_val=turned_labels)


def test_coordinates_that_differ_by_rounding_to_float32_are_the_same() -> None:
    longitude = 140 + np.arange(60) * 1e-4
    for values in (longitude, np.repeat(longitude[:30], 2)):
        rows = xr.DataArray(X, dims=("i", "f"), coords={"i": values})
        fit(rows, xr.DataArray(Y, dims="i", coords={"i": values.astype("f4")}))
        with pytest.raises(DataError, match=r"xarray\.align"):
            fit(rows, xr.DataArray(Y, dims="i", coords={"i": values + 5e-5}))


@pytest.mark.parametrize("door", ["path", "open", "from_zarr", "sliced"])
def test_codes_of_categories_are_never_labels_where_some_are_missing(
    tmp_path: Path, door: str
) -> None:
    group = zarr.open_group(tmp_path / "a", mode="w")
    column = group.create_group("obs/ct", attributes={"encoding-type": "categorical"})
    column.create_array("codes", data=np.resize([0, 1, -1, 2], 60).astype("i1"), chunks=(20,))
    column.create_array("categories", data=np.array([10, 20, 30]))
    path = str(tmp_path / "a" / "obs" / "ct" / "codes")
    labels = {
        "path": path,
        "open": zarr.open(path, mode="r"),
        "from_zarr": da.from_zarr(path),
        "sliced": da.from_zarr(path)[:60].rechunk(25),
    }[door]
    with pytest.raises(DataError, match=r"missing label|AnnData column"):
        fit(X, labels)
