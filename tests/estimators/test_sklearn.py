"""In scikit-learn's company: its own checks, and what its users do with an estimator."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import sklearn
import xarray as xr
import zarr
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_iris
from sklearn.exceptions import DataConversionWarning
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from dsoftmax import DataError, SoftmaxRegression, ingest, open_data
from dsoftmax.errors import DtypeError
from dsoftmax.solvers import SOLVERS

Arrays = tuple[np.ndarray, np.ndarray]

# The check has 15 rows: with the default batch_size even "adam" sees them all at once.
SMALL_BATCHES = [
    SoftmaxRegression(solver=name, batch_size=4, random_state=0)
    for name, kind in SOLVERS.items()
    if kind.mini_batch
]
EQUIVALENCE = "check_sample_weight_equivalence_on_dense_data"


def failures_by_nature(model: SoftmaxRegression) -> dict[str, str]:
    """Return which checks cannot pass, and why."""
    if model.solver == "newton" or (model.solver == "auto" and model.l1_ratio == 0):
        return {EQUIVALENCE: "its steps follow a sample of the rows: equal to `tol`, not to 1e-7"}
    if model.solver == "sgd" and model.batch_size == "auto":
        return {EQUIVALENCE: "its steps depend on how many rows a batch has, and so do the bits"}
    if model.batch_size != "auto":
        return {EQUIVALENCE: "a repeated row is in several mini-batches, one with a weight in one"}
    return {}


@parametrize_with_checks(
    [SoftmaxRegression()], expected_failed_checks=failures_by_nature, xfail_strict=True
)
@pytest.mark.filterwarnings("ignore")
def test_checks_of_scikit_learn(estimator: Any, check: Callable[[Any], None]) -> None:
    check(estimator)


@parametrize_with_checks(
    [
        *(SoftmaxRegression(solver=name, random_state=0) for name in SOLVERS),
        SoftmaxRegression(l1_ratio=0.5),  # FISTA
        *SMALL_BATCHES,
    ],
    expected_failed_checks=failures_by_nature,
    xfail_strict=True,
)
@pytest.mark.filterwarnings("ignore")
@pytest.mark.slow
def test_checks_of_scikit_learn_for_each_solver(
    estimator: Any, check: Callable[[Any], None]
) -> None:
    check(estimator)


@pytest.mark.slow
def test_the_check_that_needs_a_setting_of_scipy_passes_too() -> None:
    code = (
        "from sklearn.utils.estimator_checks import check_array_api_input\n"
        "from dsoftmax import SoftmaxRegression\n"
        "check_array_api_input('SoftmaxRegression', SoftmaxRegression(), array_namespace='numpy')"
    )
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        check=True,
        timeout=120,
        env=os.environ | {"SCIPY_ARRAY_API": "1"},
    )


@pytest.fixture(scope="module")
def iris() -> Arrays:
    X, y = load_iris(return_X_y=True)
    return X, y


def test_it_works_in_pipelines_searches_and_cross_validation(iris: Arrays) -> None:
    pipeline = make_pipeline(StandardScaler(), SoftmaxRegression(tol=1e-2))
    search = GridSearchCV(pipeline, {"softmaxregression__alpha": [1e-3, 1e2]}, cv=3)
    assert search.fit(*iris).best_params_ == {"softmaxregression__alpha": 1e-3}
    assert search.best_score_ > 0.9
    assert cross_val_score(pipeline, *iris, scoring="neg_log_loss", cv=3).min() > -0.3


def test_its_probabilities_can_be_calibrated(iris: Arrays) -> None:
    model = CalibratedClassifierCV(SoftmaxRegression(alpha=1.0), cv=3, method="temperature")
    raw = SoftmaxRegression(alpha=1.0).fit(*iris)

    def log_loss(fitted: Any) -> float:
        own = fitted.predict_proba(iris[0])[np.arange(150), iris[1]]
        return float(-np.log(own).mean())

    assert log_loss(model.fit(*iris)) < log_loss(raw) - 0.05


def test_weights_are_routed_through_a_search(iris: Arrays) -> None:
    X, y = iris
    weight = np.where(y == 0, 0.0, 1.0)
    with sklearn.config_context(enable_metadata_routing=True):
        model = SoftmaxRegression(classes=[0, 1, 2], tol=1e-2)
        model.set_fit_request(sample_weight=True).set_score_request(sample_weight=True)
        search = GridSearchCV(model, {"alpha": [1e-2]}, cv=3)
        search.fit(X, y, sample_weight=weight)
    assert search.best_estimator_.predict_proba(X)[:, 0].max() < 1e-3
    assert search.best_score_ > 0.9  # of class 0 alone it would be 0


def test_it_shows_itself_in_a_notebook(iris: Arrays) -> None:
    assert "SoftmaxRegression" in SoftmaxRegression(alpha=0.5).fit(*iris)._repr_html_()
    assert repr(SoftmaxRegression(alpha=0.5)) == "SoftmaxRegression(alpha=0.5)"


def test_a_column_of_labels_is_taken_with_the_usual_warning(iris: Arrays) -> None:
    X, y = iris
    with pytest.warns(DataConversionWarning, match="column-vector y"):
        model = SoftmaxRegression().fit(X, y[:, None])
    np.testing.assert_array_equal(model.coef_, SoftmaxRegression().fit(X, y).coef_)
    with pytest.raises(DataError, match=r"shape \(150, 2\)"):
        SoftmaxRegression().fit(X, np.stack([y, y], axis=1))


def test_values_that_are_not_numbers_raise_a_data_error_and_type_error() -> None:
    with pytest.raises(DtypeError, match="argument must be a string or a real number") as raised:
        SoftmaxRegression().fit(np.array([[{}], [1]], object), [0, 1])
    assert isinstance(raised.value, DataError)
    assert isinstance(raised.value, TypeError)


NAMES = ["sepal length", "sepal width", "petal length", "petal width"]


def named(kind: str, X: np.ndarray, names: list[str], folder: Path) -> Any:
    if kind == "pandas":
        return pd.DataFrame(X, columns=names)
    if kind == "xarray":
        return xr.DataArray(X, dims=("row", "feature"), coords={"feature": names})
    if kind == "xarray on dask":
        return named("xarray", X, names, folder).chunk({"row": 50})
    place = folder / f"{'-'.join(names)}.zarr"
    if not place.exists():
        store = zarr.create_array(place, shape=X.shape, dtype=X.dtype, chunks=(50, 4))
        store[...] = X
        store.attrs["feature_names"] = names
    return place if kind == "zarr" else zarr.open_array(place)


@pytest.mark.parametrize("kind", ["pandas", "xarray", "xarray on dask", "zarr", "open zarr"])
def test_feature_names_are_kept_and_held_against_later_data(
    iris: Arrays, tmp_path: Path, kind: str
) -> None:
    X, y = iris
    data = named(kind, X, NAMES, tmp_path)
    for model in (
        SoftmaxRegression(tol=1e-2).fit(data, y),
        SoftmaxRegression(tol=1e-2).fit(open_data(data, y)),
        SoftmaxRegression(random_state=0).partial_fit(data, y, classes=[0, 1, 2]),
    ):
        assert model.feature_names_in_.tolist() == NAMES
        model.predict(data)
        assert model.score(data, y) == model.score(open_data(data, y)) > 0.3
        with pytest.raises(ValueError, match="same order as they were in fit"):
            model.predict_proba(named(kind, X, NAMES[::-1], tmp_path))
        with pytest.warns(UserWarning, match="does not have valid feature names"):
            model.predict(X)
    with pytest.warns(UserWarning, match="was fitted without feature names"):
        SoftmaxRegression().fit(X, y).evaluate(data, y)


def test_the_columns_of_a_table_are_the_features_of_the_model(iris: Arrays, tmp_path: Path) -> None:
    table = pd.DataFrame(iris[0], columns=NAMES).assign(species=iris[1])
    table.to_csv(tmp_path / "iris.csv", index=False)
    store = ingest(tmp_path / "iris.csv", tmp_path / "iris.zarr", y="species")
    model = SoftmaxRegression().fit(f"{store}/X", f"{store}/y")
    assert model.feature_names_in_.tolist() == NAMES
    assert model.score(table[NAMES], table["species"]) > 0.9


@pytest.mark.parametrize("names", [[0, 1, 2, 3], ["a", "b", "c", 3], ["a", "b"], "abcd"])
def test_column_names_that_are_not_all_strings_are_ignored(
    iris: Arrays, tmp_path: Path, names: Any
) -> None:
    model = SoftmaxRegression().fit(named("zarr", iris[0], NAMES, tmp_path), iris[1])
    zarr.open_array(tmp_path / f"{'-'.join(NAMES)}.zarr").attrs["feature_names"] = names
    model.fit(named("zarr", iris[0], NAMES, tmp_path), iris[1])
    assert not hasattr(model, "feature_names_in_")
