"""In dask-ml's company: its transformers, splits, wrappers and searches."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import dask.array as da
import numpy as np
import pytest
from dask_ml.datasets import make_blobs
from dask_ml.model_selection import (
    GridSearchCV,
    HyperbandSearchCV,
    IncrementalSearchCV,
    InverseDecaySearchCV,
    SuccessiveHalvingSearchCV,
    _incremental,
    train_test_split,
)
from dask_ml.preprocessing import MinMaxScaler, StandardScaler
from dask_ml.wrappers import Incremental, ParallelPostFit
from distributed import Client
from sklearn.pipeline import make_pipeline

from dsoftmax import SoftmaxRegression
from dsoftmax.estimators.dask_ml import dask_ml_searches

Lazy = tuple[da.Array, da.Array]
CLASSES = [0, 1, 2]


@pytest.fixture
def blobs(cluster: Client) -> Lazy:
    X, y = make_blobs(2000, 20, centers=3, cluster_std=9, chunks=500, random_state=0)
    return X * np.logspace(-2, 2, 20), y


@pytest.mark.parametrize("scaler", [StandardScaler, MinMaxScaler])
def test_a_pipeline_scales_and_learns_lazily(blobs: Lazy, scaler: type) -> None:
    X, y = blobs
    model = make_pipeline(scaler(), SoftmaxRegression(tol=1e-2)).fit(X, y)
    assert model.score(X, y) > 0.9
    p = model.predict_proba(X)
    assert isinstance(p, da.Array)
    assert p.chunks == (X.chunks[0], (3,))
    np.testing.assert_allclose(p.sum(axis=1).compute(), 1, rtol=1e-12)


def test_a_lazy_split_is_learned_from_and_scored(blobs: Lazy) -> None:
    X, X_test, y, y_test = train_test_split(*blobs, test_size=0.25, random_state=0, shuffle=True)
    assert isinstance(X, da.Array)
    assert SoftmaxRegression(tol=1e-2).fit(X, y).score(X_test, y_test) > 0.85


@pytest.mark.slow
def test_wrappers_predict_and_learn_by_blocks(blobs: Lazy) -> None:
    X, y = blobs
    wrapped = ParallelPostFit(SoftmaxRegression(tol=1e-2), scoring="accuracy")
    wrapped.fit(X.compute(), y.compute())
    assert wrapped.score(X, y) > 0.9
    assert wrapped.predict_proba(X).compute().shape == (2000, 3)
    incremental = Incremental(SoftmaxRegression(random_state=0), scoring="accuracy")
    assert incremental.fit(X, y, classes=CLASSES).score(X, y) > 0.9


@pytest.mark.slow
def test_a_grid_of_pipelines_is_searched(blobs: Lazy) -> None:
    pipeline = make_pipeline(StandardScaler(), SoftmaxRegression(tol=1e-2))
    search = GridSearchCV(pipeline, {"softmaxregression__alpha": [1e-2, 1e4]}, cv=3)
    assert search.fit(*blobs).best_params_ == {"softmaxregression__alpha": 1e-2}


SEARCHES: list[tuple[Any, dict[str, Any]]] = [
    (HyperbandSearchCV, {"max_iter": 9}),
    (SuccessiveHalvingSearchCV, {"n_initial_parameters": 4, "n_initial_iter": 2}),
    (IncrementalSearchCV, {"n_initial_parameters": 4, "max_iter": 6, "decay_rate": None}),
    (InverseDecaySearchCV, {"n_initial_parameters": 4, "max_iter": 6}),
]


@pytest.mark.slow
@pytest.mark.parametrize(("search", "params"), SEARCHES)
def test_searches_over_partial_fit_run(blobs: Lazy, search: Any, params: dict[str, Any]) -> None:
    X, y = blobs
    model = SoftmaxRegression(random_state=0)
    found = search(model, {"alpha": np.logspace(-4, 3, 20)}, random_state=0, **params)
    with dask_ml_searches():
        found.fit(X, y, classes=CLASSES)
    assert found.best_score_ > 0.85
    assert found.best_estimator_.score(X, y) > 0.85


class Upstream(ModuleType):
    """The module `dask`, of a version whose `persist` returns, or refuses."""

    def __init__(self, error: Exception | None) -> None:
        super().__init__("dask")
        self.error = error

    def persist(self, *collections: Any) -> Any:
        if self.error is not None:
            raise self.error
        return "by upstream", *collections

    def delayed(self) -> str:
        return "untouched"


def test_the_workaround_does_nothing_where_upstream_works(monkeypatch: pytest.MonkeyPatch) -> None:
    upstream = Upstream(None)
    monkeypatch.setattr(_incremental, "dask", upstream)
    with dask_ml_searches():
        assert _incremental.dask.persist(1, 2) == ("by upstream", 1, 2)
        assert _incremental.dask.delayed() == "untouched"
    assert _incremental.dask is upstream
    monkeypatch.delattr(_incremental, "dask")
    with dask_ml_searches():
        assert not hasattr(_incremental, "dask")


def test_the_workaround_hides_no_other_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_incremental, "dask", Upstream(RuntimeError("no memory")))
    with dask_ml_searches(), pytest.raises(RuntimeError, match="no memory"):
        _incremental.dask.persist(1)
    assert isinstance(_incremental.dask, Upstream)


def test_the_workaround_persists_by_the_client(
    monkeypatch: pytest.MonkeyPatch, cluster: Client
) -> None:
    refusal = RuntimeError("Attempting to use an asynchronous Client in a synchronous context")
    monkeypatch.setattr(_incremental, "dask", Upstream(refusal))
    with dask_ml_searches():
        held, nested = _incremental.dask.persist(da.ones(4, chunks=2), {"a": da.zeros(2)})
    assert len(cluster.futures_of(held)) == 2
    np.testing.assert_array_equal(nested["a"].compute(), 0)
