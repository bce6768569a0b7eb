"""Mini-batches that choose their own steps come near the minimum, on any data."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning

from dsoftmax import SoftmaxRegression
from dsoftmax.objective.gram import MOST_FEATURES

Arrays = tuple[np.ndarray, np.ndarray]


def blobs(n: int = 3000, d: int = 12, K: int = 4, sort: bool = False) -> Arrays:
    """Classes that overlap, of features that are correlated and of very different scales."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, K, n)
    y = np.sort(y) if sort else y
    X = rng.normal(size=(n, d)) + 0.4 * rng.normal(size=(K, d))[y]
    return X @ (np.eye(d) + 0.3 * rng.normal(size=(d, d)) / d**0.5) * np.geomspace(1e-2, 1e2, d), y


def fitted(X: Any, y: Any, **params: Any) -> SoftmaxRegression:
    params = {"alpha": 1e-3, "solver": "sgd", "tol": 0.0, "random_state": 0} | params
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return SoftmaxRegression(**params).fit(X, y)


def above(X: Any, y: Any, max_iter: int, **params: Any) -> float:
    """How far the model is above the minimum, as a share of it."""
    shared = {
        name: value
        for name, value in params.items()
        if name not in ("batch_size", "momentum", "solver", "learning_rate")
    }
    best = fitted(X, y, **shared | {"solver": "newton", "tol": 1e-7}).loss_
    return fitted(X, y, max_iter=max_iter, **params).loss_ / best - 1


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"momentum": 0.0},
        {"fit_intercept": False},
        {"standardize": True},
    ],
    ids=str,
)
def test_it_comes_near_the_minimum_of_every_objective(params: Any) -> None:
    assert above(*blobs(), max_iter=11, **params) < 0.1


@pytest.mark.parametrize("shape", [{"d": 1}, {"K": 2}, {"n": 200, "d": 3}, {"sort": True}], ids=str)
def test_it_comes_near_the_minimum_on_data_of_any_shape(shape: Any) -> None:
    assert above(*blobs(**shape), max_iter=11) < 0.03


def test_features_that_are_too_many_for_a_metric_are_met_by_their_scales() -> None:
    X, y = blobs(n=600, d=MOST_FEATURES + 1, K=3)
    model = fitted(X / np.geomspace(1e-2, 1e2, X.shape[1]), y, max_iter=6, alpha=0.1)
    losses = [record["loss"] for record in model.history_ if record["kind"] == "pass"]
    assert model.loss_ < losses[0] < np.log(3)


@pytest.mark.parametrize("n", [1, 2, 65])
def test_a_few_rows_are_enough_to_begin_with(n: int) -> None:
    X, y = blobs(n=500)
    X = X / X.std(axis=0)  # one row cannot tell
    model = SoftmaxRegression(random_state=0).partial_fit(X[:n], y[:n], classes=range(4))
    for _ in range(5):
        model.partial_fit(X, y)
    assert np.isfinite(model.coef_).all()
    assert model.score(X, y) > 0.5


@pytest.mark.parametrize("dtype", ["f2", "u1", "i2"])
def test_narrow_dtypes_do_not_shorten_the_steps(dtype: str) -> None:
    X, y = blobs()
    X = np.clip(X / X.std(axis=0) * 20 + 100, 0, 200).astype(dtype)
    assert above(X, y, max_iter=11) < 0.03
