"""Features at the edge of float32 and float64: the model is that of the same features near one."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from sklearn.exceptions import ConvergenceWarning

from dsoftmax import SoftmaxRegression, SoftmaxRegressionCV, load_model
from dsoftmax.errors import DataError

X = np.array([0, 1, 2, 3, 1.5, 1.4])[:, None]
Y = np.array([0, 0, 1, 1, 0, 1])
SOLVERS = [
    {"solver": "newton"},
    {"solver": "lbfgs"},
    {"solver": "sgd"},
    {"solver": "adam"},
    {"solver": "sgd", "batch_size": 1000},  # FISTA
    {"solver": "newton", "l1_ratio": 0.5, "alpha": 1e-2, "standardize": True},
    {"solver": "newton", "alpha": 1e-2, "standardize": True},
    {"solver": "newton", "fit_intercept": False},
]
SCALES = [
    ("f4", 2.0**63),  # 1e19
    ("f4", 2.0**125),  # 4e37
    ("f4", 2.0**-100),
    ("f8", 2.0**512),  # 1e154
    ("f8", 2.0**1021),
    ("f8", 2.0**-548),  # 1e-165
    ("f8", 2.0**-960),
]


def fitted(X: Any, y: Any, **params: Any) -> SoftmaxRegression:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # of Adam, after 20 passes
        return SoftmaxRegression(**{"alpha": 0.0, "random_state": 0, "max_iter": 20, **params}).fit(
            X, y
        )


def three_classes(dtype: str) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(90, 4)).astype(dtype)
    return rows / 4, np.argmax(rows[:, :3] + rng.normal(size=(90, 3)), axis=1)


@pytest.mark.parametrize("params", SOLVERS, ids=lambda p: "-".join(map(str, p.values())))
@pytest.mark.parametrize(("dtype", "scale"), SCALES, ids=lambda s: f"{s:.0e}" if s != str(s) else s)
def test_a_power_of_two_in_the_features_changes_no_digit_of_a_fit(
    dtype: str, scale: float, params: dict[str, Any]
) -> None:
    for rows, y in ((X.astype(dtype), Y), three_classes(dtype)):
        near_one = fitted(rows, y, **params)
        model = fitted(rows * np.dtype(dtype).type(scale), y, **params)
        assert model.loss_ == pytest.approx(near_one.loss_, rel=1e-9)
        np.testing.assert_allclose(model.coef_ * scale, near_one.coef_, rtol=1e-6, atol=1e-9)
        assert model.stop_reason_ == near_one.stop_reason_
        p = model.predict_proba(rows * np.dtype(dtype).type(scale))
        np.testing.assert_allclose(p, near_one.predict_proba(rows), atol=1e-6)
        measured = model.evaluate(rows * np.dtype(dtype).type(scale), y)["log_loss"]
        assert measured == pytest.approx(near_one.evaluate(rows, y)["log_loss"], rel=1e-6)


@pytest.mark.parametrize(
    ("dtype", "scale"),
    [("f4", 1e19), ("f4", 1e38), ("f4", 1e-38), ("f8", 1e154), ("f8", 1e300), ("f8", 1e-165)],
)
def test_the_loss_is_that_of_the_features_near_one(dtype: str, scale: float) -> None:
    model = fitted((X * scale).astype(dtype), Y)
    assert model.loss_ == pytest.approx(0.301303, abs=1e-5)
    assert model.stop_reason_.startswith("converged: the gradient")


@pytest.mark.parametrize(("dtype", "big"), [("f4", 9.97e36), ("f8", 9.97e36), ("f8", 1e200)])
@pytest.mark.parametrize("solver", ["newton", "lbfgs", "sgd"])
def test_one_cell_far_out_spoils_no_other_feature(dtype: str, big: float, solver: str) -> None:
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(300, 5)).astype(dtype)
    y = np.argmax(rows[:, :3] + rng.normal(size=(300, 3)), axis=1)
    rows[17, 3] = big
    divided = rows.astype("f8")
    divided[:, 3] /= big
    model, near_one = fitted(rows, y, solver=solver), fitted(divided, y, solver="newton")
    assert model.loss_ == pytest.approx(near_one.loss_, rel=1e-3)
    assert model.score(rows, y) == pytest.approx(near_one.score(divided, y), abs=0.01)


@pytest.mark.parametrize(("dtype", "scale"), [("f4", 2.0**120), ("f8", 2.0**-600)])
def test_the_units_go_with_a_model_to_every_door(tmp_path: Path, dtype: str, scale: float) -> None:
    rows, y = three_classes(dtype)
    far = rows * np.dtype(dtype).type(scale)
    group = zarr.open_group(tmp_path / "data", mode="w")
    group.create_array("X", data=far, chunks=(16, 4))
    group.create_array("y", data=y, chunks=(16,))
    path = str(tmp_path / "data")
    model, near_one = (SoftmaxRegression(alpha=0.0, random_state=0) for _ in range(2))
    model.fit(f"{path}/X", f"{path}/y", X_val=far[:20], y_val=y[:20])
    near_one.fit(rows, y, X_val=rows[:20], y_val=y[:20])
    assert model.loss_ == pytest.approx(near_one.loss_, rel=1e-7)
    last, expected = (each.history_[-1]["validation_loss"] for each in (model, near_one))
    assert last == pytest.approx(expected, rel=1e-5)
    model.save(tmp_path / "model")
    p = near_one.predict_proba(rows)
    for same in (model, load_model(tmp_path / "model"), model.to_sklearn()):
        np.testing.assert_allclose(same.predict_proba(far), p, atol=1e-6)
    model.predict_to(f"{path}/X", tmp_path / "p")
    np.testing.assert_allclose(zarr.open_array(tmp_path / "p", mode="r")[:], p, atol=1e-6)
    model.set_params(warm_start=True, tol=0.1).fit(far, y)
    assert model.n_iter_ == 1
    assert model.loss_ <= near_one.loss_ * (1 + 1e-6)


@pytest.mark.parametrize(("dtype", "scale"), [("f4", 2.0**120), ("f8", 2.0**-600)])
@pytest.mark.parametrize("solver", ["newton", "lbfgs"])
def test_a_search_scores_features_at_the_edge_as_those_near_one(
    dtype: str, scale: float, solver: str
) -> None:
    rows, y = three_classes(dtype)
    far = rows * np.dtype(dtype).type(scale)
    searches = [
        SoftmaxRegressionCV(
            alphas=[1e-1, 1e-2], cv=3, standardize=True, solver=solver, random_state=0
        ).fit(each, y)
        for each in (rows, far)
    ]
    np.testing.assert_allclose(searches[0].scores_, searches[1].scores_, rtol=1e-6)
    assert searches[0].alpha_ == searches[1].alpha_


@pytest.mark.parametrize(("dtype", "scale"), [("f4", 2.0**120), ("f8", 2.0**-600)])
@pytest.mark.parametrize("solver", ["auto", "adam"])
def test_parts_at_the_edge_are_learned_as_those_near_one(
    dtype: str, scale: float, solver: str
) -> None:
    rows, y = three_classes(dtype)
    losses = []
    for factor in (1.0, scale):
        far = rows * np.dtype(dtype).type(factor)
        model = SoftmaxRegression(alpha=0.0, solver=solver, random_state=0)
        for part in (slice(0, 45), slice(45, 90)):
            model.partial_fit(far[part], y[part], classes=[0, 1, 2])
        losses.append(model.evaluate(far, y)["log_loss"])
    assert losses[1] == pytest.approx(losses[0], rel=1e-6)


def test_a_chunk_at_the_edge_beside_ordinary_ones_is_read_right() -> None:
    """Chunks have units of their own, which are made one when their moments are added."""
    rng = np.random.default_rng(2)
    rows, y = rng.normal(size=(64, 2)), np.arange(64) % 2
    rows[:, 0] += y
    rows[32:, 1] *= 1e180
    rows[:, 0] *= 1e-180
    model = fitted(rows, y)
    near_one = rows * [1e180, 1e-180]
    assert model.loss_ == pytest.approx(fitted(near_one, y).loss_, rel=1e-6)


@pytest.mark.parametrize(("dtype", "big"), [("f4", 3e38), ("f8", 1e308)])
@pytest.mark.parametrize("n_classes", [2, 3])
def test_a_prediction_that_leaves_the_range_is_no_nan(
    dtype: str, big: float, n_classes: int
) -> None:
    rows, y = three_classes(dtype)
    y = y % n_classes
    model = fitted(rows, y, alpha=1e-3)
    model.coef_ = np.array([[1e3, -2e3, 0.0, 0.0], [1e3, 2e3, 0.0, 0.0], [-1e3, 0.0, 0.0, 0.0]])
    model.coef_ = model.coef_[:1] if n_classes == 2 else model.coef_
    far = np.array([[big, 0, 0, 0], [0, big, 0, 0], [0, -big, 0, 0], [-big, -big, 0, 0]], dtype)
    exact = far / big @ model.coef_.T
    expected = exact.argmax(axis=1) if n_classes == 3 else (exact[:, 0] > 0).astype(int)
    np.testing.assert_array_equal(model.predict(far)[1:], expected[1:])
    p = model.predict_proba(far)
    np.testing.assert_array_equal(p.argmax(axis=1)[1:], expected[1:])
    np.testing.assert_allclose(p.sum(axis=1), 1)
    assert np.isfinite(model.decision_function(far)).all()
    scores = model.evaluate(far, expected)
    assert scores["accuracy"] == 1
    assert 0 <= scores["log_loss"] < 1
    assert np.isfinite(scores["brier_score"])


@pytest.mark.parametrize("solver", ["newton", "lbfgs", "adam"])
def test_numbers_that_need_coefficients_beyond_float64_are_refused(solver: str) -> None:
    with pytest.raises(DataError, match=r"column 0 of X .* multiply them"):
        SoftmaxRegression(alpha=0.0, solver=solver).fit(X * 1e-310, Y)


@pytest.mark.parametrize("solver", ["newton", "lbfgs", "sgd", "adam"])
@pytest.mark.parametrize("scale", [1e-100, 1e-165, 1e-300])
def test_a_penalty_on_tiny_features_leaves_the_intercepts_alone(scale: float, solver: str) -> None:
    """The coefficients would have to be as large as the features are small."""
    model = fitted(X * scale, Y, alpha=1e-4, solver=solver, max_iter=10)
    assert model.loss_ == pytest.approx(np.log(2))
    np.testing.assert_allclose(model.predict_proba(X * scale), 0.5)
