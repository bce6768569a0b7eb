from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import zarr
from distributed import Client

from dsoftmax import DataError, SoftmaxRegression, SoftmaxRegressionCV, inspect_data, open_data
from dsoftmax.data.anndata_column import open_stored
from dsoftmax.data.store_changes import (
    listed_digests,
    require_unchanged,
    warn_of_absent_chunks,
)
from dsoftmax.errors import CheckpointError
from tests.callbacks import StopAfter, StopError

CELL_TYPES = np.array(["B", "NK", "T"])
Door = Callable[[Path, str], Any]
# A path of format 2, an open node of format 3.
DOORS: dict[int, Door] = {
    2: lambda store, column: f"{store}/obs/{column}",
    3: lambda store, column: zarr.open(store, mode="r")[f"obs/{column}"],
}


def cells(rows: int = 400) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return features, the codes of cell types, and which of them are missing."""
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 3, rows)
    X = rng.normal(size=(rows, 4)).astype("f4")
    X[:, :3] += np.eye(3, dtype="f4")[codes]
    return X, codes, rng.random(rows) < 0.1


def put(group: zarr.Group, name: str, values: np.ndarray, **attributes: Any) -> None:
    dtype = "string" if values.dtype.kind == "U" else values.dtype
    array = group.create_array(
        name, shape=values.shape, dtype=dtype, chunks=(64,), attributes=attributes
    )
    array[...] = values


@pytest.fixture(params=[2, 3])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Write columns as AnnData does: by hand, from its on-disk format."""
    X, codes, missing = cells()
    root = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=request.param)
    root.create_array("X", data=X, chunks=(50, 4))
    obs = root.create_group("obs", attributes={"encoding-type": "dataframe"})
    column = obs.create_group("ct", attributes={"encoding-type": "categorical", "ordered": False})
    put(column, "codes", np.where(missing, -1, codes).astype("i1"))
    put(column, "categories", CELL_TYPES)
    numbers = obs.create_group("batch", attributes={"encoding-type": "nullable-integer"})
    put(numbers, "values", np.where(missing, 1, codes * 5))
    put(numbers, "mask", missing)
    flags = obs.create_group("is_T", attributes={"encoding-type": "nullable-boolean"})
    put(flags, "values", codes == 2)
    put(flags, "mask", missing)
    strings = obs.create_group("name", attributes={"encoding-type": "nullable-string-array"})
    put(strings, "values", CELL_TYPES[codes])
    put(strings, "mask", missing)
    put(obs, "plain", CELL_TYPES[codes])
    old = obs.create_group("__categories")
    put(old, "old", CELL_TYPES)
    put(obs, "old", np.where(missing, -1, codes).astype("i1"), categories="__categories/old")
    return tmp_path / "a.zarr"


COLUMNS: list[tuple[str, Callable[[np.ndarray], np.ndarray]]] = [
    ("ct", lambda codes: CELL_TYPES[codes]),
    ("old", lambda codes: CELL_TYPES[codes]),
    ("name", lambda codes: CELL_TYPES[codes]),
    ("batch", lambda codes: codes * 5),
    ("is_T", lambda codes: codes == 2),
    ("ct/codes", lambda codes: codes),
    ("batch/values", lambda codes: codes * 5),
]


@pytest.mark.parametrize(("column", "labels"), COLUMNS)
def test_a_column_is_read_as_anndata_means_it(
    store: Path, column: str, labels: Callable[[np.ndarray], np.ndarray]
) -> None:
    X, codes, missing = cells()
    expected = SoftmaxRegression(alpha=0.01).fit(X[~missing], labels(codes)[~missing])
    y = DOORS[zarr.open(store).metadata.zarr_format](store, column)
    with pytest.raises(DataError, match=rf"obs/{column} has a missing label at row \d+ .*ignore_l"):
        SoftmaxRegression().fit(store / "X", y)
    for policy in ({"missing": "drop"}, {"ignore_label": np.nan}):
        source = open_data(store / "X", y, **policy)
        with pytest.warns(UserWarning, match=rf"{missing.sum()} of 400 rows are left out"):
            model = SoftmaxRegression(alpha=0.01).fit(source)
        np.testing.assert_array_equal(model.classes_, expected.classes_)
        np.testing.assert_allclose(model.coef_, expected.coef_, atol=1e-4)
    assert model.evaluate(source)["n_samples"] == (~missing).sum()
    counts = inspect_data(source).to_dict()["class_counts"]
    assert list(counts) == [str(label) for label in expected.classes_.tolist()]


def test_codes_behind_dask_have_their_missing_ones(store: Path) -> None:
    X, _, missing = cells()
    codes = da.from_zarr(zarr.open(store, mode="r")["obs/ct/codes"])
    with pytest.raises(DataError, match="has a missing label"):
        SoftmaxRegression().fit(X, codes)
    with pytest.warns(UserWarning, match=f"{missing.sum()} of 400 rows are left out"):
        model = SoftmaxRegression().fit(open_data(X, codes, missing="drop"))
    assert model.classes_.tolist() == [0, 1, 2]


def test_weights_may_be_nullable_and_folds_categories(store: Path) -> None:
    X, codes, missing = cells()
    weight = f"{store}/obs/batch"
    with pytest.raises(DataError, match=r"obs/batch has a missing value at row"):
        SoftmaxRegression().fit(X, codes, weight)
    with pytest.warns(UserWarning, match=f"{missing.sum()} of 400 rows are left out"):
        model = SoftmaxRegression(alpha=0.01).fit(open_data(X, codes, weight, missing="drop"))
    kept = ~missing & (codes > 0)  # a weight of zero is that of the first class
    expected = SoftmaxRegression(alpha=0.01, classes=[0, 1, 2])
    expected.fit(X[kept], codes[kept], (codes * 5.0)[kept])
    np.testing.assert_allclose(model.coef_, expected.coef_, atol=1e-4)
    search = SoftmaxRegressionCV(alphas=[0.1, 0.01], cv=f"{store}/obs/ct")
    said = rf"obs/ct has a missing value in {missing.sum()} rows; expected the fold of each row"
    with pytest.raises(DataError, match=said):
        search.fit(X, np.arange(400) % 2)
    zarr.open(store)["obs/ct/codes"][...] = codes
    assert search.fit(X, np.arange(400) % 2).n_features_in_ == 4


def test_a_cluster_reads_a_column(cluster: Client, store: Path) -> None:
    source = open_data(store / "X", store / "obs" / "ct", missing="drop")
    assert len(pickle.dumps(source)) < 2000
    with pytest.warns(UserWarning, match="rows are left out"):
        model = SoftmaxRegression().fit(source)
    assert model.classes_.tolist() == CELL_TYPES.tolist()


def test_a_column_that_is_damaged_is_named(store: Path) -> None:
    X = cells()[0]
    root = zarr.open(store)
    root["obs/ct/codes"][70] = 3
    with pytest.raises(DataError, match=r"obs/ct has the code 3, and 3 categories; restore"):
        SoftmaxRegression().fit(open_data(X, store / "obs" / "ct", missing="drop"))
    del root["obs/ct/categories"]
    with pytest.raises(DataError, match=r"obs/ct is an AnnData column .* has no categories"):
        open_data(X, store / "obs" / "ct")
    del root["obs/batch/mask"]
    root["obs/batch"].create_array("mask", data=np.zeros(3, bool))
    with pytest.raises(DataError, match=r"values of shape \(400,\) and a mask of shape \(3,\)"):
        open_data(X, root["obs/batch"])


def first_chunk(place: Path) -> Path:
    """Return the file of the first chunk of an array, of either format."""
    return next(place / name for name in ("c/0", "0") if (place / name).exists())


def touch_later(place: Path) -> None:
    """Give the first chunk of an array a later time: coarse clocks tell no two writes apart."""
    now = first_chunk(place).stat().st_mtime_ns
    os.utime(first_chunk(place), ns=(now + 10**9, now + 10**9))


@pytest.mark.parametrize(
    ("column", "array"),
    [
        ("ct", "ct/codes"),
        ("ct", "ct/categories"),
        ("old", "old"),
        ("old", "__categories/old"),
        ("batch", "batch/values"),
        ("batch", "batch/mask"),
    ],
)
def test_every_array_of_a_column_is_compared_with_what_it_was(
    column: str, array: str, store: Path
) -> None:
    path = f"{store}/obs/{column}"
    before, source = listed_digests(open_stored(path)), open_data(f"{store}/X", path)
    place = store / "obs" / array
    touch_later(place)
    after = listed_digests(open_stored(path))
    changed = [url for url, digest in before.items() if after[url] != digest]
    assert changed == [str(place)]
    with pytest.raises(DataError, match=rf"{array} has changed .*1 chunk\(s\) were replaced"):
        require_unchanged(source)


def test_a_part_of_a_column_knows_of_its_absent_chunks_only(store: Path) -> None:
    codes = zarr.open(store, mode="a")["obs/ct/codes"]
    codes[64:192] = 0  # chunks 1 and 2 are left out
    column = open_stored(f"{store}/obs/ct")
    assert [array.absent.tolist() for array in column.stored] == [[1, 2], []]
    part = column.part(128, 256)
    assert [array.absent.tolist() for array in part.stored] == [[2]]
    np.testing.assert_array_equal(part.read(128, 192), ["B"] * 64)


def test_categories_that_are_absent_are_warned_of(store: Path) -> None:
    place = store / "obs" / "ct" / "categories"
    first_chunk(place).unlink()
    source = open_data(f"{store}/X", f"{store}/obs/ct")
    with pytest.warns(UserWarning, match=r"1 chunk\(s\) of .*ct/categories are not in the store"):
        warn_of_absent_chunks(source, stacklevel=1)


@pytest.mark.filterwarnings("ignore:54 of 400 rows are left out")
@pytest.mark.usefixtures("checkpoint_always")
@pytest.mark.parametrize("array", ["codes", "categories"])
def test_a_fit_does_not_go_on_with_a_column_that_was_written_since(
    array: str, store: Path, tmp_path: Path
) -> None:
    def model(**params: Any) -> SoftmaxRegression:
        return SoftmaxRegression(solver="lbfgs", checkpoint=tmp_path / "checkpoint", **params)

    source = open_data(f"{store}/X", f"{store}/obs/ct", missing="drop")
    with pytest.raises(StopError):
        model(callbacks=[StopAfter(8)]).fit(source)
    touch_later(store / "obs" / "ct" / array)
    with pytest.raises(CheckpointError, match="chunks of y were written, or removed, since"):
        model().fit(open_data(f"{store}/X", f"{store}/obs/ct", missing="drop"))
