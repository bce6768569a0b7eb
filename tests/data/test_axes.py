from __future__ import annotations

import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pandas as pd
import pytest
import xarray as xr
import zarr
from zarr.storage import MemoryStore

from dsoftmax import SoftmaxRegression, SoftmaxRegressionCV, inspect_data, open_data
from dsoftmax.errors import DataError
from tests.object_store import Bucket

SIZE = 6
rng = np.random.default_rng(0)
CUBE = rng.normal(size=(SIZE, SIZE, SIZE))
LABELS = (CUBE.mean(0) > 0).astype("i4") + 1
BANDS = [f"B{band}" for band in range(SIZE)]

Form = Callable[[Path, str, xr.DataArray], Any]


def written(place: Any, name: str, values: xr.DataArray, **options: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Zarr's, of strings of fixed length
        values.rename(name).to_dataset().to_zarr(place, consolidated=False, **options)


def stored(zarr_format: int, *, opened: bool = False) -> Form:
    def form(folder: Path, name: str, values: xr.DataArray) -> Any:
        place = folder / f"{name}.zarr"
        written(place, name, values, zarr_format=zarr_format)
        return zarr.open_array(f"{place}/{name}", mode="r") if opened else f"{place}/{name}"

    return form


def in_memory(folder: Path, name: str, values: xr.DataArray) -> zarr.Array[Any]:
    store = MemoryStore()
    written(store, name, values)
    return zarr.open_array(store, path=name, mode="r")


def dask_of_zarr(folder: Path, name: str, values: xr.DataArray) -> da.Array:
    return da.from_zarr(stored(3)(folder, name, values))


FORMS: dict[str, Form] = {
    "DataArray": lambda folder, name, values: values,
    "chunked DataArray": lambda folder, name, values: values.chunk(3),
    "format 2": stored(2),
    "format 3": stored(3),
    "zarr.Array": stored(3, opened=True),
    "zarr.Array in memory": in_memory,
    "dask of zarr": dask_of_zarr,
}
MIXTURES = [(form, form) for form in FORMS] + [
    ("DataArray", "format 3"),
    ("format 2", "DataArray"),
    ("zarr.Array", "chunked DataArray"),
    ("zarr.Array in memory", "format 2"),
]


def cube(**coords: Any) -> xr.DataArray:
    """Return an image whose bands are its first axis."""
    return xr.DataArray(CUBE, dims=("band", "y", "x"), coords=coords)


def labels(values: np.ndarray = LABELS, dims: Any = ("y", "x"), **coords: Any) -> xr.DataArray:
    return xr.DataArray(values, dims=dims, coords=coords)


@pytest.mark.parametrize(("x_form", "y_form"), MIXTURES)
def test_labels_with_other_axes_than_the_rows_are_refused_and_transposed_ones_learned(
    x_form: str, y_form: str, tmp_path: Path
) -> None:
    X, y = FORMS[x_form](tmp_path, "X", cube()), FORMS[y_form](tmp_path, "y", labels())
    wrong = r"has the axes \('y', 'x'\) where those of .* are \('band', 'y'\).*features along 'x'"
    with pytest.raises(DataError, match=rf"{wrong}; transpose .*X.* to \('y', 'x', 'band'\)"):
        open_data(X, y)
    with pytest.raises(DataError, match=wrong):
        open_data(X, sample_weight=y)
    right = FORMS[x_form](tmp_path, "R", cube().transpose("y", "x", "band"))
    assert SoftmaxRegression().fit(right, y).score(right, y) > 0.9


@pytest.mark.parametrize("shape", [(4, 5, 6), (5, 5, 6), (5, 6, 5)])
def test_axes_are_compared_whatever_the_sizes(shape: tuple[int, ...]) -> None:
    X = xr.DataArray(rng.normal(size=shape), dims=("band", "y", "x"))
    with pytest.raises(DataError, match="transpose X to"):
        open_data(X, X.max("band") > 1)


CALLS: dict[str, Callable[[Any, Any], Any]] = {
    "fit": lambda X, y: SoftmaxRegression().fit(X, y),
    "weights": lambda X, y: SoftmaxRegression().fit(X, y.values % 2, y),
    "validation": lambda X, y: SoftmaxRegression().fit(
        X.transpose("y", "x", "band"), y, X_val=X, y_val=y
    ),
    "cv": lambda X, y: SoftmaxRegressionCV(cv=y).fit(X, y.values),
    "partial_fit": lambda X, y: SoftmaxRegression().partial_fit(X, y, [1, 2]),
    "score": lambda X, y: SoftmaxRegression().fit(CUBE, LABELS).score(X, y),
    "inspect": inspect_data,
}


@pytest.mark.parametrize("call", CALLS)
def test_every_call_refuses_other_axes(call: str) -> None:
    with pytest.raises(DataError, match=r"has the axes \('y', 'x'\) where those of X are \('band'"):
        CALLS[call](cube(), labels())


def test_labels_in_transposed_order_are_refused_by_path_with_the_call_that_helps(
    tmp_path: Path,
) -> None:
    X = stored(3)(tmp_path, "X", cube().transpose("y", "x", "band"))
    y = stored(3)(tmp_path, "labels", labels().transpose())
    with pytest.raises(DataError, match=r"transpose it to that order, with xarray\.open") as got:
        open_data(X, y)
    call = str(got.value).partition(", with ")[2]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of metadata that are not consolidated
        transposed = eval(call, {"xarray": xr})  # what the message says is what helps
    assert transposed.dims == ("y", "x")
    assert SoftmaxRegression().fit(X, transposed).score(X, transposed) > 0.9


NAMELESS: list[tuple[Any, Any]] = [
    (cube(), LABELS),
    (CUBE, labels()),
    (xr.DataArray(CUBE), labels()),  # xarray calls its axes dim_0, dim_1, dim_2
    (cube(), xr.DataArray(LABELS)),
    (xr.DataArray(CUBE), xr.DataArray(LABELS)),
    (cube(), labels(dims=("phony_dim_0", "phony_dim_1"))),
]


@pytest.mark.parametrize(("X", "y"), NAMELESS)
def test_axes_without_names_are_not_compared(X: Any, y: Any) -> None:
    assert open_data(X, y).n_samples == SIZE**2


def test_an_axis_without_a_name_leaves_the_others_to_be_compared(tmp_path: Path) -> None:
    X = zarr.create_array(tmp_path / "X", data=CUBE, dimension_names=("band", None, "x"))
    for names, refused in (((None, "x"), False), (("y", "x"), True), (("band", "x"), False)):
        y = zarr.create_array(
            tmp_path / "y", data=LABELS, dimension_names=names, overwrite=True, chunks=(2, 2)
        )
        if refused:
            with pytest.raises(DataError, match=r"\('y', 'x'\) where those of"):
                open_data(X, y)
        else:
            assert open_data(X, y).shape == (SIZE, SIZE)


ROWS = np.arange(8.0)
TABLE = rng.normal(size=(8, 2))
CLASSES = np.arange(8) % 2 + 1
TIMES = pd.date_range("2024-01-01", periods=8)

OTHER_ROWS: dict[str, tuple[Any, Any]] = {
    "reversed": (ROWS, ROWS[::-1]),
    "shifted": (ROWS, ROWS + 1),
    "half a step": (ROWS, ROWS + 0.5),
    "disjoint": (ROWS, ROWS + 100),
    "one differs": (ROWS, np.r_[ROWS[:-1], 9]),
    "integers": (np.arange(8), np.arange(8)[::-1]),
    "text": (list("abcdefgh"), list("hgfedcba")),
    "times": (TIMES, TIMES + pd.Timedelta(1, "D")),
    "numbers and text": (ROWS, list("abcdefgh")),
}
SAME_ROWS: dict[str, tuple[Any, Any]] = {
    "the same": (ROWS, ROWS),
    "rounded": (ROWS / 3, (ROWS / 3).astype("f4")),
    "of another dtype": (ROWS, np.arange(8)),
    "text": (list("abcdefgh"), list("abcdefgh")),
    "times": (TIMES, TIMES.as_unit("s")),
    "none": (ROWS, None),
}
COORDINATE_FORMS = ["DataArray", "format 2", "format 3", "zarr.Array in memory"]


def row_coords(values: Any) -> dict[str, Any]:
    return {} if values is None else {"row": values}


def rows_of(forms: tuple[str, str], rows: Any, other_rows: Any, folder: Path) -> tuple[Any, Any]:
    X = xr.DataArray(TABLE, dims=("row", "f"), coords=row_coords(rows))
    y = labels(CLASSES, ("row",), **row_coords(other_rows))
    return FORMS[forms[0]](folder, "X", X), FORMS[forms[1]](folder, "y", y)


PAIRS = [(form, form) for form in COORDINATE_FORMS] + [
    ("DataArray", "format 3"),
    ("format 2", "DataArray"),
    ("zarr.Array in memory", "format 3"),
]


@pytest.mark.parametrize("case", OTHER_ROWS)
@pytest.mark.parametrize("forms", PAIRS)
def test_labels_of_other_coordinates_are_refused(
    forms: tuple[str, str], case: str, tmp_path: Path
) -> None:
    X, y = rows_of(forms, *OTHER_ROWS[case], tmp_path)
    found = r"other coordinates along 'row' than .*X.*at index \d.*xarray\.align\(X, y\)"
    with pytest.raises(DataError, match=found):
        open_data(X, y)
    with pytest.raises(DataError, match=found):
        open_data(X, CLASSES, y)


@pytest.mark.parametrize("case", SAME_ROWS)
@pytest.mark.parametrize("forms", PAIRS)
def test_labels_of_the_same_coordinates_are_paired(
    forms: tuple[str, str], case: str, tmp_path: Path
) -> None:
    X, y = rows_of(forms, *SAME_ROWS[case], tmp_path)
    assert open_data(X, y).n_samples == 8


def test_aligned_labels_are_learned_right() -> None:
    x = np.r_[0.0, 1, 2, 3][:, None]
    X = xr.DataArray(x, dims=("row", "f"), coords={"row": [0, 1, 2, 3]})
    y = xr.DataArray([0, 0, 1, 1], dims="row", coords={"row": [0, 1, 2, 3]})
    with pytest.raises(DataError, match="in reverse order"):
        SoftmaxRegression().fit(X, y[::-1])
    X, aligned = xr.align(X, y[::-1])
    assert SoftmaxRegression().fit(X, aligned).score(X, y) == 1.0


def test_stacked_samples_are_compared_by_all_levels() -> None:
    image = cube(y=np.arange(SIZE), x=np.arange(SIZE)).stack(s=("y", "x")).transpose("s", "band")
    y = labels(y=np.arange(SIZE), x=np.arange(SIZE))
    assert open_data(image, y.stack(s=("y", "x"))).n_samples == SIZE**2
    with pytest.raises(DataError, match="other coordinates along 's'"):
        open_data(image, y[::-1].stack(s=("y", "x")))
    with pytest.raises(DataError, match=r"stacked from the axes \('x', 'y'\) where X is from"):
        open_data(image, y.stack(s=("x", "y")))


def test_times_are_compared_as_their_units_say(tmp_path: Path) -> None:
    def of(name: str, data: np.ndarray, units: str) -> str:
        group = zarr.open_group(tmp_path / f"{name}.zarr", mode="w")
        dims = ("time", "f")[: data.ndim]
        group.create_array(name, data=data, dimension_names=dims)
        time = group.create_array("time", data=np.arange(8), dimension_names=("time",))
        time.attrs["units"] = units
        return str(tmp_path / f"{name}.zarr" / name)

    X = of("X", TABLE, "days since 2024-01-01")
    assert open_data(X, of("y", CLASSES, "days since 2024-01-01")).n_samples == 8
    for units in ("days since 2024-01-02", "hours since 2024-01-01"):  # of the same numbers
        with pytest.raises(DataError, match=r"other coordinates along 'time'.*2024-01-01"):
            open_data(X, of("y", CLASSES, units))


ENCODED: dict[str, dict[str, Any]] = {
    "packed": {"dtype": "i2", "scale_factor": 0.5, "_FillValue": -1},
    "unsigned": {"dtype": "i1", "_Unsigned": "true", "_FillValue": -1},
    "marked": {"dtype": "i4", "_FillValue": -9},
    "float": {"dtype": "f4", "_FillValue": -9.0},
    "two marks": {"dtype": "i4", "missing_value": -9, "_FillValue": -9},
}


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("encoding", ENCODED)
def test_coordinates_are_compared_as_xarray_decodes_them(
    encoding: str, zarr_format: int, tmp_path: Path
) -> None:
    rows = np.r_[np.arange(7) * 35.0, np.nan]  # int8 holds the larger ones as unsigned numbers
    X = xr.DataArray(TABLE, dims=("row", "f"), coords={"row": rows})
    options: Any = {"encoding": {"row": ENCODED[encoding]}, "zarr_format": zarr_format}
    written(tmp_path / "X", "X", X, **options)
    decoded = xr.open_zarr(tmp_path / "X", consolidated=False)["X"]
    for other, refused in ((rows, False), (np.r_[rows[:7], 999.0], True)):
        y = labels(CLASSES, ("row",), row=other)
        for given in (str(tmp_path / "X" / "X"), decoded):
            if refused:
                with pytest.raises(DataError, match="at index 7"):
                    open_data(given, y)
            else:
                assert open_data(given, y).n_samples == 8


def test_times_that_are_missing_are_compared_as_such(tmp_path: Path) -> None:
    times = TIMES.to_numpy().copy()
    times[3] = np.datetime64("NaT")
    X = xr.DataArray(TABLE, dims=("row", "f"), coords={"row": times})
    encoding = {"dtype": "i8", "_FillValue": -1, "units": "seconds since 2000-01-01"}
    written(tmp_path / "X", "X", X, encoding={"row": encoding})
    path = str(tmp_path / "X" / "X")
    assert open_data(path, labels(CLASSES, ("row",), row=times)).n_samples == 8
    with pytest.raises(DataError, match="at index 3"):
        open_data(path, labels(CLASSES, ("row",), row=TIMES))


def test_long_coordinates_are_compared_at_their_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dsoftmax.data.axes._MOST_COORDINATES", 4)
    for forms in (("format 3", "format 2"), ("DataArray", "format 3"), ("format 3", "DataArray")):
        for number, (rows, other) in enumerate([(ROWS, ROWS + 1), (ROWS, np.r_[ROWS[:-1], 9])]):
            folder = tmp_path / "-".join((*forms, str(number)))
            with pytest.raises(DataError, match=f"at index {[0, 7][number]}"):
                open_data(*rows_of(forms, rows, other, folder))


def test_arrays_of_one_group_share_their_coordinates(tmp_path: Path, reads: list[str]) -> None:
    dataset = xr.Dataset(
        {"X": (("row", "f"), TABLE), "y": (("row",), CLASSES)}, coords={"row": ROWS}
    )
    dataset.to_zarr(tmp_path / "d.zarr", consolidated=False)
    reads.clear()
    open_data(tmp_path / "d.zarr" / "X", tmp_path / "d.zarr" / "y")
    assert not [read for read in reads if "row" in read]


@pytest.mark.parametrize("form", ["format 2", "format 3", "zarr.Array", "zarr.Array in memory"])
def test_a_model_fitted_by_path_has_the_feature_names_that_xarray_has(
    form: str, tmp_path: Path
) -> None:
    image = cube(band=BANDS).transpose("y", "x", "band")
    by_path, y = FORMS[form](tmp_path, "X", image), labels().values
    model = SoftmaxRegression().fit(by_path, y)
    assert model.feature_names_in_.tolist() == BANDS
    lazily = SoftmaxRegression().fit(image.chunk(3), y)
    assert lazily.feature_names_in_.tolist() == BANDS
    np.testing.assert_array_equal(lazily.predict(by_path), model.predict(image))
    with pytest.raises(ValueError, match="feature names"):
        model.predict(image.isel(band=slice(None, None, -1)))


def test_bands_that_are_numbers_are_no_feature_names(tmp_path: Path) -> None:
    image = cube(band=np.arange(SIZE)).transpose("y", "x", "band")
    assert open_data(stored(3)(tmp_path, "X", image)).feature_names is None


def test_axes_and_coordinates_at_a_url_are_compared(bucket: Bucket) -> None:
    options: Any = {"storage_options": bucket.options}
    X = xr.DataArray(TABLE, dims=("row", "f"), coords={"row": ROWS, "f": ["a", "b"]})
    written(f"{bucket.url}/a", "X", X, **options)
    y = labels(CLASSES, ("row",), row=ROWS[::-1])
    written(f"{bucket.url}/b", "y", y, **options)
    with pytest.raises(DataError, match=r"reverse order.*xarray\.align"):
        open_data(f"{bucket.url}/a/X", f"{bucket.url}/b/y")
    assert open_data(f"{bucket.url}/a/X").feature_names == ("a", "b")
    opened = zarr.open_array(f"{bucket.url}/a/X", mode="r", **options)
    with pytest.raises(DataError, match="reverse order"):
        open_data(opened, y)


def test_what_is_known_of_axes_does_not_travel_to_workers() -> None:
    X = xr.DataArray(np.zeros((5000, 2)), dims=("row", "f"), coords={"row": np.arange(5000.0)})
    source = open_data(X.chunk({"row": 2500}))
    assert source.axes is not None
    assert pickle.loads(pickle.dumps(source)).axes is None
