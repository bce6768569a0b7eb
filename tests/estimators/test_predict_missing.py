"""Missing in, missing out: what is predicted for rows with missing values."""

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
from dask_ml.wrappers import ParallelPostFit
from distributed import Client
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from dsoftmax import DataError, SoftmaxRegression, SoftmaxRegressionCV, open_data
from dsoftmax.objective.linear_model import METHODS

Store = Callable[..., str]

SHAPE = (7, 30, 5)
AT = [(0, 0, 1), (2, 9, 0), (2, 10, 4), (6, 29, 2)]  # at both ends, and on both sides of a cut
FILL = -9999


def as_missing(values: np.ndarray, value: Any) -> np.ndarray:
    found = np.array(values)
    found[tuple(np.transpose(AT))] = value
    return found


def through_path(X: np.ndarray, place: Path) -> str:
    group = zarr.open_group(place, mode="a")
    array = group.create_array("X", shape=X.shape, dtype=X.dtype, chunks=(3, 10, X.shape[-1]))
    array[...] = as_missing(X, np.nan)
    return f"{place}/X"


def through_encoding(X: np.ndarray, place: Path) -> str:
    """Write X as integers, of which attributes say what they stand for: X is a multiple of 1/8."""
    group = zarr.open_group(place, mode="a")
    chunks = (3, 10, X.shape[-1])
    array = group.create_array("X", shape=X.shape, dtype="i2", chunks=chunks)
    array[...] = as_missing(np.round((X - 1) * 8), FILL)
    array.attrs.update({"scale_factor": 0.125, "add_offset": 1.0, "_FillValue": FILL})
    return f"{place}/X"


def masked(X: np.ndarray) -> Any:
    return np.ma.masked_array(as_missing(X, 1e6), as_missing(np.zeros(X.shape, bool), True))


DOORS: dict[str, Callable[[np.ndarray, Path], Any]] = {
    "NumPy": lambda X, _: as_missing(X, np.nan),
    "infinite": lambda X, _: as_missing(X, -np.inf),
    "masked": lambda X, _: masked(X),
    "path": through_path,
    "zarr": lambda X, place: zarr.open_array(through_path(X, place)),
    "encoded": through_encoding,
    "encoded, from_zarr": lambda X, place: da.from_zarr(through_encoding(X, place)),
    "Dask": lambda X, _: da.from_array(as_missing(X, np.nan), chunks=(3, 10, 2)),
    "masked blocks": lambda X, _: da.from_array(masked(X), chunks=(3, 10, 5)).map_blocks(
        lambda b: b, meta=np.empty((0,) * 3)
    ),
    "xarray": lambda X, _: xr.DataArray(as_missing(X, np.nan), dims=("time", "x", "band")),
    "lazy xarray": lambda X, place: xr.DataArray(
        da.from_zarr(through_path(X, place)), dims=("time", "x", "band")
    ),
    "opened": lambda X, place: open_data(through_path(X, place), missing="drop"),
    "opened Dask": lambda X, _: open_data(
        da.from_array(as_missing(X, np.nan), chunks=(3, 10, 5)), missing="drop"
    ),
}
CLASSES = {2: np.array(["no", "yes"]), 3: np.array([0, 4, 9], "u1")}
LABEL = {2: "unknown", 3: -1}
PREDICTED = {2: "<U7", 3: "<i2"}


@pytest.fixture(scope="module", params=[2, 3])
def fitted(request: pytest.FixtureRequest) -> tuple[SoftmaxRegression, np.ndarray]:
    """Return a model, and rows that eighths hold exactly."""
    X = np.round(np.random.default_rng(0).normal(size=SHAPE) * 8).astype("f4") / 8
    codes = X[..., : request.param].argmax(axis=-1)
    labels = CLASSES[request.param][codes]
    return SoftmaxRegression(alpha=1e-2, tol=1e-2).fit(X, labels), X


def predicted(model: Any, X: Any, method: str, **label: Any) -> Any:
    return getattr(model, method)(X, **(label if method == "predict" else {}))


@pytest.mark.parametrize("door", DOORS)
def test_missing_in_is_missing_out(
    fitted: tuple[SoftmaxRegression, np.ndarray], tmp_path: Path, door: str
) -> None:
    model, X = fitted
    label = LABEL[len(model.classes_)]
    given = DOORS[door](X, tmp_path / "data.zarr")
    rows = tuple(np.transpose(AT)[:2])
    for method in METHODS:
        expected = getattr(model, method)(X)
        got = predicted(model, given, method, missing_label=label)
        values = np.asarray(got)
        assert values.dtype == got.dtype  # which a lazy result has told without computing
        assert values.shape == expected.shape
        is_out = np.zeros(SHAPE[:2], bool)
        is_out[rows] = True
        if method == "predict":
            assert values.dtype == PREDICTED[len(model.classes_)]
            assert (values[is_out] == label).all()
            np.testing.assert_array_equal(values[~is_out], expected[~is_out])
        else:
            assert np.isnan(values[is_out]).all()
            # To the bit but for what another length of blocks and other chunks round otherwise.
            np.testing.assert_allclose(values[~is_out], expected[~is_out], rtol=2e-5, atol=2e-6)
    with pytest.raises(DataError, match=r"missing_label=(-1|'missing')") as refused:
        np.asarray(model.predict(given))
    assert "open_data" not in str(refused.value)


def test_rows_that_are_not_missing_keep_their_bits(tmp_path: Path) -> None:
    """Whether other rows are missing or not, and a large mean is subtracted in the kernel."""
    rng = np.random.default_rng(1)
    X = rng.integers(-3000, 3000, (200, 5)).astype("i2")
    group = zarr.open_group(tmp_path / "data.zarr")
    with_gaps = X.copy()
    with_gaps[[0, 77, 199], 2] = FILL
    for name, values in (("whole", X), ("gaps", with_gaps)):
        array = group.create_array(name, shape=X.shape, dtype="i2", chunks=(64, 5))
        array[...] = values
        array.attrs.update({"scale_factor": 1e-4, "add_offset": 500.0, "_FillValue": FILL})
    whole, gaps = (f"{tmp_path}/data.zarr/{name}" for name in ("whole", "gaps"))
    model = SoftmaxRegression(tol=1e-2).fit(whole, X[:, :3].argmax(axis=1))
    rest = np.delete(np.arange(200), [0, 77, 199])
    for given in ((whole, gaps), (da.from_zarr(whole), da.from_zarr(gaps))):
        expected, got = (np.asarray(model.predict_proba(rows)) for rows in given)
        assert np.isnan(got[[0, 77, 199]]).all()
        assert got[rest].tobytes() == expected[rest].tobytes()


def test_packed_numbers_that_float32_does_not_hold_are_predicted_alike(tmp_path: Path) -> None:
    array = zarr.create_array(tmp_path / "X", data=np.array([[0], [1], [2], [FILL]], "i2"))
    array.attrs.update({"scale_factor": 1e39, "_FillValue": FILL})
    model = SoftmaxRegression().fit([[0.0], [1.0]], [0, 1])
    model.coef_ = model.coef_ * 1e-39
    expected = model.predict_proba(array).compute()
    assert np.isnan(expected).any(axis=1).tolist() == [False, False, False, True]
    got = model.predict_proba(da.from_zarr(array))
    assert got.dtype == expected.dtype == np.float64
    np.testing.assert_array_equal(got.compute(), expected)


TWO, THREE = [0, 1], [0, 1, 2]
LABELS: list[tuple[Any, Any, Any, str]] = [
    (THREE, "i8", -1, "i8"),
    (THREE, "u1", 255, "u1"),
    (THREE, "u1", -1, "i2"),
    (THREE, "u1", 0, "u1"),  # one of the classes, if that is what is asked for
    (THREE, "i8", np.nan, "f8"),
    (THREE, "f4", np.nan, "f4"),
    (TWO, "?", False, "?"),
    (TWO, "?", -1, "i1"),
    (["a", "b"], "U1", "missing", "U7"),
    (["north", "south"], "U5", "", "U5"),
    ([b"a", b"b"], "S1", b"none", "S4"),
]


@pytest.mark.parametrize(("classes", "kind", "label", "expected"), LABELS)
def test_the_dtype_holds_the_classes_and_the_label(
    classes: Any, kind: str, label: Any, expected: str
) -> None:
    y = np.array(classes).astype(kind)
    X = np.arange(len(y), dtype=float)[:, None]
    model = SoftmaxRegression(tol=1e-2).fit(np.vstack([X, X]), np.concatenate([y, y]))
    rows = np.vstack([X, [[np.nan]]])
    got = model.predict(rows, missing_label=label)
    lazy = model.predict(da.from_array(rows, chunks=(1, 1)), missing_label=label)
    assert got.dtype == lazy.dtype == lazy.compute().dtype == np.dtype(expected)
    np.testing.assert_array_equal(got[:-1].astype(kind), model.predict(X))
    np.testing.assert_array_equal(got[-1:], np.array([label], expected))
    np.testing.assert_array_equal(lazy.compute(), got)


REFUSED: list[tuple[Any, Any, str]] = [
    (["a", "b"], np.nan, "expected one label of that kind, such as 'missing'"),
    (["a", "b"], b"none", "expected one label of that kind"),
    ([0, 1], "none", "expected one label of that kind, such as -1"),
    ([-1, 1], [0], "such as -2"),
    ([0, 1], np.ma.masked, "expected one label of that kind"),
    ([0, 2**53 + 1], np.nan, "no dtype holds both without loss"),
]


@pytest.mark.parametrize(("classes", "label", "message"), REFUSED)
def test_a_label_that_the_classes_cannot_take_is_refused_before_anything_is_read(
    classes: Any, label: Any, message: str, tmp_path: Path
) -> None:
    model = SoftmaxRegression().fit([[0.0], [1.0]], classes)
    for given in (np.zeros((1, 1)), da.zeros((1, 1))):
        with pytest.raises(DataError, match=message):
            model.predict(given, missing_label=label)
    with pytest.raises(DataError, match=message):
        model.predict_to([[0.0]], tmp_path / "p.zarr", "predict", missing_label=label)


@pytest.mark.parametrize("n_classes", [2, 3])
def test_all_rows_or_the_only_one_may_be_missing_and_blocks_empty(n_classes: int) -> None:
    model = SoftmaxRegression().fit(np.arange(6.0).reshape(3, 2)[:n_classes], range(n_classes))
    for n_rows in (1, 5000):  # of more than a block
        X = np.full((n_rows, 2), np.inf)
        assert np.isnan(model.predict_proba(X)).all()
        assert (model.predict(X, missing_label=-1) == -1).all()
    lazy = da.concatenate([da.zeros((0, 2)), da.from_array([[0.0, np.nan]]), da.zeros((0, 2))])
    assert model.predict(lazy, missing_label=-1).compute().tolist() == [-1]
    assert np.isnan(model.decision_function(lazy).compute()).all()


def test_what_is_too_large_to_compute_is_not_missing() -> None:
    """Neither a feature that float32 does not hold, nor a raw prediction."""
    X = np.array([[1.0], [-1.0], [np.nan]])
    source = open_data(np.array([[1e39], [np.nan]]), dtype="float32")
    for classes in (TWO, THREE):
        model = SoftmaxRegression().fit([[0.0], [1.0], [2.0]][: len(classes)], classes)
        with pytest.raises(DataError, match=r"1e\+39 at row 0, column 0, which is too large"):
            model.predict_proba(source)
        ends = np.array([classes[-1], 0])
        model.coef_ = model.coef_ * 1e30
        for rows in (
            (X * 1e20).astype("f4"),
            X * 1e300,
        ):  # beyond float32, and float64
            assert model.predict(rows, missing_label=-1).tolist() == [*ends, -1]
            p = model.predict_proba(rows)
            np.testing.assert_array_equal(p[:2], (ends[:, None] == classes).astype(float))
            assert np.isnan(p[2]).all()
            assert not np.isnan(model.decision_function(rows)[:2]).any()
    model.coef_ = model.coef_ * np.nan
    with pytest.raises(DataError, match="the model is not finite: its coefficients"):
        model.predict(X, missing_label=-1)


def test_a_search_a_pipeline_and_a_wrapper_do_the_same() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(90, 3))
    y = X.argmax(axis=1)
    gaps = X.copy()
    gaps[[0, 45, 89], 1] = np.nan
    model = SoftmaxRegression(tol=1e-2).fit(X[1:45], y[1:45])
    search = SoftmaxRegressionCV(alphas=[0.1, 1.0], cv=2, tol=1e-2).fit(X[1:45], y[1:45])
    pipeline = make_pipeline(FunctionTransformer(), model)
    missing = np.isnan(gaps).any(axis=1)
    for each in (model, search, pipeline):
        assert (np.isnan(each.predict_proba(gaps)) == missing[:, None]).all()
        assert ((each.predict(gaps, missing_label=-1) == -1) == missing).all()
        with pytest.raises(DataError, match="missing_label"):
            each.predict(gaps)
    lazy = da.from_array(gaps, chunks=(30, 3))
    p = ParallelPostFit(model).predict_proba(lazy).compute(scheduler="synchronous")
    assert (np.isnan(p) == missing[:, None]).all()


@pytest.mark.usefixtures("small_spans")
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("door", ["masked", "path", "encoded", "masked blocks", "opened"])
def test_missing_rows_stay_in_their_places_in_a_store(
    fitted: tuple[SoftmaxRegression, np.ndarray], tmp_path: Path, door: str, method: str
) -> None:
    model, X = fitted
    label = LABEL[len(model.classes_)]
    given = DOORS[door](X, tmp_path / "data.zarr")
    model.predict_to(given, tmp_path / "p.zarr", method, missing_label=label)
    expected = predicted(model, given, method, missing_label=label)
    written = zarr.open_array(tmp_path / "p.zarr")
    assert written.shape == expected.shape
    if written.dtype.kind == "f":
        np.testing.assert_allclose(written[...], expected, rtol=2e-5, atol=2e-6)
    else:
        np.testing.assert_array_equal(written[...], np.asarray(expected))
    if method == "predict":
        with pytest.raises(DataError, match="missing_label"):
            model.predict_to(given, tmp_path / "q.zarr", method)
        assert not list(tmp_path.glob("q.zarr*"))


def test_readers_know_which_stored_labels_are_missing(tmp_path: Path) -> None:
    """By an attribute, but not if the label is a class, nor where xarray fails by it."""
    X = np.array([[0.0], [1.0], [2.0], [np.nan]])
    found = {}
    for name, classes, label in (
        ("codes", [0, 1, 2], -1),
        ("a class", [0, 1, 2], 0),
        ("float", [0, 1, 2], np.nan),
        ("text", ["a", "b", "c"], "none"),
    ):
        model = SoftmaxRegression(alpha=1e-3).fit(X[:3], classes)
        model.predict_to(X, tmp_path / name / "p", "predict", missing_label=label)
        found[name] = zarr.open_array(tmp_path / name / "p").attrs.get("_FillValue")
    assert found == {"codes": -1, "a class": None, "float": None, "text": None}

    document = tmp_path / "codes" / "p" / "zarr.json"  # xarray wants names of the axes there
    document.write_text(json.dumps(json.loads(document.read_text()) | {"dimension_names": ["i"]}))
    zarr.open_group(tmp_path / "codes")
    labels = xr.open_zarr(tmp_path / "codes", consolidated=False)["p"]
    np.testing.assert_array_equal(labels.values, [0, 1, 2, np.nan])
    with pytest.raises(DataError, match="missing label"):
        SoftmaxRegression().fit(np.zeros((4, 1)), str(tmp_path / "codes" / "p"))


def test_a_prediction_with_another_missing_label_is_not_resumed(
    store: Store, tmp_path: Path
) -> None:
    X = np.arange(600.0).reshape(300, 2) / 100
    model = SoftmaxRegression(tol=1e-2).fit(X, np.arange(300) // 100)
    X[250] = np.nan
    path, out = f"{store(rows=100, X=X)}/X", tmp_path / "p.zarr"
    with pytest.raises(DataError, match="missing_label"):
        model.predict_to(path, out, "predict", resume=True)
    for label in (-1, -2, -1.0):
        with pytest.raises(DataError, match="beginning of another prediction"):
            model.predict_to(path, out, "predict", resume=True, missing_label=label)
    model.predict_to(path, out, "predict", resume=True, overwrite=True, missing_label=np.int8(-1))
    model.predict_to(path, out, "predict", resume=True, missing_label=-1)
    assert zarr.open_array(out)[250] == -1
    with pytest.raises(DataError, match="already holds"):
        model.predict_to(path, out, "predict", resume=True, missing_label=-2)
    for label in (-1, -2):  # of which probabilities know nothing
        model.predict_to(path, tmp_path / "q.zarr", resume=True, missing_label=label)
    p = zarr.open_array(tmp_path / "q.zarr")[...]
    assert np.isnan(p).any(axis=1).nonzero()[0].tolist() == [250]


def test_a_score_leaves_rows_with_missing_values_out_and_says_how_many(store: Store) -> None:
    X = np.random.default_rng(0).normal(size=(300, 3))
    y = X.argmax(axis=1)
    model = SoftmaxRegression(tol=1e-2).fit(X, y)
    expected = model.evaluate(X[2:], y[2:])
    X[:2, 1] = np.nan, np.inf
    path = store(rows=100, X=X, y=y)
    for given in ((X, y), (f"{path}/X", f"{path}/y")):
        with pytest.raises(DataError, match="nan at row 0"):
            model.score(*given)
        with pytest.warns(UserWarning, match=r"^2 of 300 rows are left out, by missing='drop'$"):
            found = model.evaluate(open_data(*given, missing="drop"))
        assert found["n_samples"] == 298
        assert found["accuracy"] == expected["accuracy"]
        assert found["log_loss"] == pytest.approx(expected["log_loss"], rel=1e-6)
    with pytest.raises(DataError, match="all 2 rows are left out"):
        model.evaluate(open_data(X[:2], y[:2], missing="drop"))


def test_workers_of_a_cluster_give_missing_rows_the_same(
    cluster: Client, fitted: tuple[SoftmaxRegression, np.ndarray], tmp_path: Path
) -> None:
    model, X = fitted
    label = LABEL[len(model.classes_)]
    path = through_encoding(X, tmp_path / "data.zarr")
    expected = model.predict(as_missing(X, np.nan), missing_label=label)
    lazy = model.predict(path, missing_label=label)
    np.testing.assert_array_equal(lazy.compute(), expected)
    model.predict_to(path, tmp_path / "p.zarr", "predict", missing_label=label)
    np.testing.assert_array_equal(zarr.open_array(tmp_path / "p.zarr")[...], expected)
    with pytest.raises(DataError, match="missing_label"):
        model.predict(path).compute()
