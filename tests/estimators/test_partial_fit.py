from __future__ import annotations

import pickle
import warnings
from typing import Any

import numpy as np
import pytest
from distributed import Client
from sklearn.exceptions import ConvergenceWarning

from dsoftmax import DataError, SoftmaxRegression, load_model

Arrays = tuple[np.ndarray, np.ndarray]
SOLVERS = ["auto", "sgd", "adam"]


def fed(model: SoftmaxRegression, X: np.ndarray, y: np.ndarray, size: int, epochs: int = 1) -> Any:
    for _ in range(epochs):
        for start in range(0, len(y), size):
            part = slice(start, start + size)
            model.partial_fit(X[part], y[part], classes=np.arange(10))
    return model


@pytest.mark.parametrize("solver", SOLVERS)
def test_it_learns_from_parts(digits: Arrays, solver: str) -> None:
    model = SoftmaxRegression(alpha=1e-3, solver=solver, batch_size=32, random_state=0)
    fed(model, *digits, size=300, epochs=5)
    assert model.score(*digits) > 0.95
    assert model.n_iter_ == 30
    assert model.n_steps_ == 5 * (5 * 10 + 10)


def test_the_first_part_may_hold_a_single_class(digits: Arrays) -> None:
    X, y = digits
    model = SoftmaxRegression(alpha=1e-3, batch_size=16, random_state=0)
    model.partial_fit(X[y == 3][:30], y[y == 3][:30], classes=np.arange(10))
    assert model.classes_.tolist() == list(range(10))
    fed(model, X, y, size=300, epochs=5)
    assert model.score(X, y) > 0.8


def test_parts_of_one_row_are_taken(digits: Arrays) -> None:
    X, y = digits
    model = fed(SoftmaxRegression(random_state=0), X[:40], y[:40], size=1, epochs=2)
    assert np.isfinite(model.coef_).all()
    assert model.n_steps_ == 80


def test_it_goes_on_from_a_fit_a_pickle_and_a_model_file(digits: Arrays, tmp_path: Any) -> None:
    model = SoftmaxRegression(alpha=1e-2, tol=1e-2, solver="auto", random_state=0).fit(*digits)
    model.partial_fit(*digits)
    assert model.score(*digits) > 0.9

    pickled = pickle.loads(pickle.dumps(model)).partial_fit(*digits)
    assert pickled.coef_.tobytes() == model.partial_fit(*digits).coef_.tobytes()

    model.save(tmp_path / "m.zarr")
    assert load_model(tmp_path / "m.zarr").partial_fit(*digits).score(*digits) > 0.9


def test_a_new_fit_forgets_earlier_partial_fits(digits: Arrays) -> None:
    X, y = digits
    fresh = SoftmaxRegression(alpha=1e-1, tol=1e-3).fit(X, y)
    used = fed(SoftmaxRegression(alpha=1e-1, tol=1e-3, random_state=0), X, y, size=900)
    np.testing.assert_array_equal(used.fit(X, y).coef_, fresh.coef_)
    assert used.n_iter_ == fresh.n_iter_


def test_weights_of_a_part_count(digits: Arrays) -> None:
    X, y = digits
    weight = (np.arange(len(y)) % 2).astype(float)
    # With a learning rate of its own, a step also depends on how many rows a batch has.
    params: Any = {"batch_size": 10_000, "learning_rate": 1e-3, "shuffle": False}
    models = [SoftmaxRegression(random_state=0, **params) for _ in range(2)]
    models[0].partial_fit(X, y, np.arange(10), weight)
    models[1].partial_fit(X[1::2], y[1::2], np.arange(10))
    np.testing.assert_allclose(models[0].coef_, models[1].coef_, atol=1e-4)


def test_it_runs_inside_a_dask_task(cluster: Client, digits: Arrays) -> None:
    def learn(X: np.ndarray, y: np.ndarray) -> bytes:
        model = SoftmaxRegression(random_state=0).partial_fit(X, y, classes=list(range(10)))
        return bytes(model.coef_.tobytes())

    assert cluster.submit(learn, *digits).result(timeout=60) == learn(*digits)


BAD: list[tuple[dict[str, Any], Any, str]] = [
    ({}, None, "first call of partial_fit needs all labels"),
    ({"standardize": True}, [0, 1], "standardize=True needs all rows"),
    ({"class_weight": "balanced"}, [0, 1], "class_weight='balanced' needs all rows"),
    ({"schedule": "cosine"}, [0, 1], "cosine.*partial_fit does not"),
    ({}, [5, 6], "label 0 at row 0, which is not one of the 2 classes"),
]


@pytest.mark.parametrize(("params", "classes", "message"), BAD)
def test_partial_fit_refuses_what_needs_all_rows(
    params: dict[str, Any], classes: Any, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        SoftmaxRegression(**params).partial_fit([[0.0], [1.0]], [0, 1], classes)


def test_a_solver_without_mini_batches_has_no_partial_fit() -> None:
    assert hasattr(SoftmaxRegression(), "partial_fit")
    assert not hasattr(SoftmaxRegression(solver="lbfgs"), "partial_fit")
    with pytest.raises(AttributeError) as raised:
        SoftmaxRegression(solver="lbfgs").partial_fit([[0.0]], [0], [0, 1])
    assert "'lbfgs' does not; use 'auto' or one of" in str(raised.value.__cause__)


def test_classes_and_features_must_stay_the_same() -> None:
    model = SoftmaxRegression().partial_fit([[0.0], [1.0]], [0, 1], [0, 1])
    with pytest.raises(DataError, match=r"classes are 0, 2, but the earlier calls had 0, 1"):
        model.partial_fit([[0.0]], [0], classes=[0, 2])
    with pytest.raises(DataError, match="label 2 at row 0"):
        model.partial_fit([[0.0]], [2])
    with pytest.raises(DataError, match="features"):
        model.partial_fit([[0.0, 1.0]], [0])


@pytest.mark.slow
def test_l1_by_batches_comes_near_the_optimum(digits: Arrays) -> None:
    X, y = digits
    for l1_ratio in (1.0, 0.5):
        params: dict[str, Any] = {"alpha": 1e-2, "l1_ratio": l1_ratio}
        best = SoftmaxRegression(**params, tol=1e-5, max_iter=2000).fit(X / 16, y)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model = SoftmaxRegression(
                **params, solver="adam", max_iter=300, batch_size=256, random_state=0
            ).fit(X / 16, y)
        assert model.loss_ <= best.loss_ * (1 + 1e-3)
