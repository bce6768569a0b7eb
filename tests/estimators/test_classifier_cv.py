"""A search in scikit-learn's company, from all kinds of arrays, and what it refuses."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pandas as pd
import pytest
import xarray as xr
import zarr
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GroupKFold, StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from dsoftmax import DataError, SoftmaxRegression, SoftmaxRegressionCV, load_model, open_data

Store = Callable[..., str]
X, Y = load_iris(return_X_y=True)
FOLD = np.arange(150) % 3
NAMES = ["sepal length", "sepal width", "petal length", "petal width"]


def search(**params: Any) -> SoftmaxRegressionCV:
    given: dict[str, Any] = {"alphas": [1e-3, 1e-1], "cv": FOLD, "random_state": 0, "tol": 1e-2}
    return SoftmaxRegressionCV(**(given | params))


def failures_by_nature(model: SoftmaxRegressionCV) -> dict[str, str]:
    """Return which checks cannot pass, and why."""
    name = "check_sample_weight_equivalence_on_dense_data"
    return {name: "it passes the splits of a splitter as cv, and cv is the fold of each row"}


@parametrize_with_checks(
    [SoftmaxRegressionCV(alphas=[1e-3, 1e-1], cv=2, tol=1e-3, random_state=0)],
    expected_failed_checks=failures_by_nature,
    xfail_strict=True,
)
@pytest.mark.filterwarnings("ignore")
@pytest.mark.slow
def test_checks_of_scikit_learn_for_a_search(estimator: Any, check: Callable[[Any], None]) -> None:
    check(estimator)


def test_a_weight_is_as_good_as_repeating_a_row() -> None:
    weight = np.random.default_rng(0).integers(0, 4, len(X))
    weighted = search(tol=1e-9, prune=False).fit(X, Y, weight)
    repeated = search(tol=1e-9, prune=False, cv=FOLD.repeat(weight))
    repeated.fit(X.repeat(weight, axis=0), Y.repeat(weight))
    np.testing.assert_allclose(weighted.objectives_, repeated.objectives_, rtol=1e-7)
    np.testing.assert_allclose(weighted.scores_, repeated.scores_, rtol=1e-4)
    np.testing.assert_allclose(weighted.coef_, repeated.coef_, rtol=1e-2, atol=1e-3)


def test_it_is_cloned_pickled_and_shown_with_its_parameters() -> None:
    model = search(l1_ratios=(0.0, 0.5), class_weight={0: 2.0}).fit(X, Y)
    other = clone(model)
    assert other.get_params()["l1_ratios"] == (0.0, 0.5)
    with pytest.raises(NotFittedError):
        other.predict(X)
    again = pickle.loads(pickle.dumps(model))
    assert again.coefs_paths_.tobytes() == model.coefs_paths_.tobytes()
    assert np.array_equal(again.predict_proba(X), model.predict_proba(X))
    assert model.set_params(alphas=3).alphas == 3
    assert "SoftmaxRegressionCV" in model._repr_html_()


def test_it_works_in_pipelines_and_cross_validation() -> None:
    pipeline = make_pipeline(StandardScaler(), search(cv=2))
    assert pipeline.fit(X, Y).score(X, Y) > 0.9
    assert cross_val_score(pipeline, X, Y, cv=2).min() > 0.9


def test_the_winner_is_saved_and_exported_as_any_model(tmp_path: Path) -> None:
    model = search().fit(X, Y)
    model.save(tmp_path / "m.zarr")
    loaded = load_model(tmp_path / "m.zarr")
    assert type(loaded) is SoftmaxRegression
    assert loaded.alpha == model.alpha_ == model.best_estimator_.alpha
    assert np.array_equal(loaded.predict_proba(X), model.predict_proba(X))
    np.testing.assert_allclose(
        model.to_sklearn().predict_proba(X), model.predict_proba(X), rtol=1e-9
    )
    with pytest.raises(NotFittedError):
        search().save(tmp_path / "n.zarr")


def test_the_names_of_features_are_kept_and_held_against_later_data(tmp_path: Path) -> None:
    table = pd.DataFrame(X, columns=NAMES)
    model = search(cv=pd.Series(FOLD)).fit(table, pd.Series(Y))
    assert model.feature_names_in_.tolist() == NAMES
    model.save(tmp_path / "m.zarr")
    assert load_model(tmp_path / "m.zarr").feature_names_in_.tolist() == NAMES
    with pytest.raises(ValueError, match="same order as they were in fit"):
        model.predict(table[NAMES[::-1]])


WAYS: dict[str, Callable[[np.ndarray], Any]] = {
    "list": lambda values: values.tolist(),
    "pandas": pd.Series,
    "pandas categories": lambda values: pd.Series(values).astype("category"),
    "objects": lambda values: values.astype(object),
    "dask": lambda values: da.from_array(values, chunks=70),
    "xarray": lambda values: xr.DataArray(values, dims=("row",)),
}


@pytest.mark.parametrize(
    "names", [FOLD, np.array(["c", "a", "b"])[FOLD], FOLD == 1], ids=["int", "str", "bool"]
)
@pytest.mark.parametrize("way", WAYS)
def test_folds_are_the_same_in_arrays_of_any_kind(way: str, names: np.ndarray) -> None:
    expected = search(cv=names).fit(X, Y)
    assert len(expected.scores_) == len(np.unique(names))
    found = search(cv=WAYS[way](names)).fit(X, Y)
    assert found.coefs_paths_.tobytes() == expected.coefs_paths_.tobytes()
    assert found.scores_.tobytes() == expected.scores_.tobytes()


@pytest.mark.parametrize("names", [FOLD, np.array(["c", "a", "b"])[FOLD]], ids=["int", "str"])
def test_folds_in_a_store_may_have_any_chunks(store: Store, names: np.ndarray) -> None:
    path = store(rows=40, X=X, y=Y + 1)
    fold = store(rows=33, name="folds.zarr", fold=names)
    expected = search(cv=names).fit(f"{path}/X", f"{path}/y")
    for cv in (f"{fold}/fold", Path(fold, "fold"), zarr.open_array(f"{fold}/fold")):
        found = search(cv=cv).fit(open_data(f"{path}/X", f"{path}/y"))
        assert found.coefs_paths_.tobytes() == expected.coefs_paths_.tobytes()


def test_dask_arrays_are_searched_as_they_are() -> None:
    lazy = search(cv=da.from_array(FOLD, chunks=40)).fit(
        da.from_array(X, chunks=(50, 2)), da.from_array(Y, chunks=70)
    )
    np.testing.assert_allclose(lazy.scores_, search().fit(X, Y).scores_, rtol=1e-6)
    assert isinstance(lazy.predict(da.from_array(X, chunks=50)), da.Array)


def test_folds_have_the_axes_of_the_samples() -> None:
    cube, labels, fold = (values.reshape(10, 15, -1) for values in (X, Y, FOLD))
    model = search(cv=fold[..., 0]).fit(cube, labels[..., 0])
    assert model.scores_.tobytes() == search().fit(X, Y).scores_.tobytes()
    assert model.predict(cube).shape == (10, 15)
    with pytest.raises(DataError, match=r"expected one fold for each row of X, of shape \(10, 15"):
        search().fit(cube, labels[..., 0])


def test_two_classes_one_feature_and_strings_as_labels() -> None:
    names = np.array(["setosa", "versicolor", "virginica"])
    model = search().fit(X, names[Y])
    assert model.classes_.tolist() == names.tolist()
    assert model.coefs_paths_.shape == (3, 1, 2, 3, 5)
    two = search(cv=FOLD[:100]).fit(X[:100], names[Y[:100]])
    assert two.coefs_paths_.shape == (3, 1, 2, 1, 5)
    assert two.coef_.shape == (1, 4)
    assert two.score(X[:100], names[Y[:100]]) == 1
    one = search(alphas=3).fit(X[:, :1], Y)
    assert one.coefs_paths_.shape == (3, 1, 3, 3, 2)
    assert np.isfinite(one.scores_).all()


def test_features_that_tell_nothing_have_a_path_all_the_same() -> None:
    model = search(alphas=3).fit(np.ones((150, 2)), Y)
    assert (np.diff(model.alphas_) < 0).all()
    np.testing.assert_allclose(model.coef_, 0, atol=1e-12)


Call = Callable[[], Any]
MISTAKES: list[tuple[Call, str]] = [
    (lambda: search(cv=FOLD[1:]).fit(X, Y), r"cv has shape \(149,\); expected one fold for each"),
    (lambda: search(cv=FOLD * 1.0).fit(X, Y), "cv has dtype float64; folds are whole numbers or"),
    (lambda: search(cv=0 * FOLD).fit(X, Y), r"cv names 1 fold\(s\) \(0\); expected at least 2"),
    (lambda: search(cv=-FOLD).fit(X, Y), r"cv names 1 fold\(s\) \(0\); .*negative numbers are in"),
    (lambda: search(cv=1).fit(X, Y), "cv is 1; expected at least 2 folds"),
    (lambda: search(cv=True).fit(X, Y), "cv is True; expected how many folds, or the fold of each"),
    (lambda: search(cv=2.5).fit(X, Y), r"cv has shape \(\)"),
    (lambda: search(cv=51).fit(X, Y), "cv is 51 folds, and no class has more than 50 rows"),
    (lambda: search(cv=StratifiedKFold(3)).fit(X, Y), "cv is StratifiedKFold.*fold of each row"),
    (lambda: search(cv=list(GroupKFold(3).split(X, Y, FOLD))).fit(X, Y), "cv"),
    (lambda: search(cv=[([0, 1], [2]), ([2], [0])]).fit(X, Y), "cv is a list that makes no array"),
    (lambda: search(cv="nowhere").fit(X, Y), "nowhere does not exist or is not a Zarr array"),
    (lambda: search(cv=pd.Series(["a", "b", 1] * 50)).fit(X, Y), "cv mixes labels of the"),
    (lambda: search(cv=None).fit(X, Y), "cv is None, and there is no X_val to choose by"),
    (lambda: search(cv=3).fit(X, Y, X_val=X, y_val=Y), "cv is 3, and X_val is given too"),
    (lambda: search(cv=None, select="1se").fit(X, Y, X_val=X, y_val=Y), "select='1se' needs the"),
    (lambda: search(alphas=[]).fit(X, Y), r"alphas is \[\]; expected how many, at least 1, or"),
    (lambda: search(alphas=[1, np.nan]).fit(X, Y), r"alphas is \[1, nan\]; expected"),
    (lambda: search(alphas=[1, -1]).fit(X, Y), r"alphas is \[1, -1\]; expected"),
    (lambda: search(alphas=[1, 1]).fit(X, Y), r"alphas is \[1, 1\]; expected each number once"),
    (lambda: search(alphas=0).fit(X, Y), "alphas is 0; expected how many"),
    (lambda: search(alphas=0.1).fit(X, Y), "alphas is 0.1; expected how many"),
    (lambda: search(alphas="many").fit(X, Y), "alphas is 'many'; expected how many"),
    (lambda: search(l1_ratios=[2]).fit(X, Y), r"l1_ratios is \[2\]; .* and at most 1"),
    (lambda: search(l1_ratios=0.5).fit(X, Y), "l1_ratios is 0.5; expected numbers"),
    (lambda: search(solver="sgd").fit(X, Y), "solver='sgd' takes mini-batches"),
    (lambda: search(solver="lbfgs", l1_ratios=[0.5]).fit(X, Y), "minimises smooth penalties only"),
    (lambda: search(scoring="f1").fit(X, Y), "scoring is 'f1'; expected one of"),
    (lambda: search(scoring=None).fit(X, Y), "scoring is None; expected one of"),
    (lambda: search(select="2se").fit(X, Y), "select is '2se'; expected one of"),
    (lambda: search(prune="no").fit(X, Y), "prune is 'no'; expected True or False"),
    (lambda: search(max_iter=0).fit(X, Y), "max_iter is 0; expected"),
    (lambda: search().fit(X), "y is missing"),
    (lambda: search().fit(X[:50], Y[:50]), "expected one fold for each row|holds 1 class"),
    (lambda: search().fit(X, Y, FOLD != 1), "no row that counts is in the fold 1; give it some"),
]


@pytest.mark.parametrize(("call", "message"), MISTAKES, ids=[text for _, text in MISTAKES])
def test_a_mistake_gets_one_clear_error(call: Call, message: str) -> None:
    with pytest.raises(DataError, match=message):
        call()


def test_mistakes_that_metadata_show_are_refused_before_reading(store: Store) -> None:
    path = store(rows=40, X=X, y=Y)
    for chunk in Path(path).glob("*/c/**/*"):
        if chunk.is_file():
            chunk.write_bytes(b"not to be read")
    for params, message in (
        ({"cv": FOLD[1:]}, "shape"),
        ({"cv": f"{path}/X"}, "shape"),
        ({"alphas": [-1]}, "alphas"),
        ({"cv": FOLD * 1.0}, "dtype"),
        ({"cv": None}, "X_val"),
        ({"solver": "adam"}, "solver"),
    ):
        with pytest.raises(DataError, match=message):
            search(**params).fit(f"{path}/X", f"{path}/y")


def test_a_class_whose_rows_are_all_in_one_fold_is_named_in_a_warning() -> None:
    fold = np.where(Y == 2, 1, FOLD)
    with pytest.warns(UserWarning, match=r"all rows of the class\(es\) 2 are in the fold 1"):
        model = search(cv=fold).fit(X, Y)
    assert model.score(X, Y) > 0.9
    with pytest.raises(DataError, match=r"without the fold 0, rows of 1 class\(es\) are left"):
        search(cv=(Y == 0).astype(int)).fit(X, Y)
