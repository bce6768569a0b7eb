"""What scikit-learn's tests of LogisticRegression claim of a fitted model, of ours in its place."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_iris, make_classification
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from sklearn.utils.class_weight import compute_class_weight

from dsoftmax import SoftmaxRegression

FULL_BATCH: list[dict[str, Any]] = [
    {"solver": "newton"},
    {"solver": "lbfgs"},
    {"solver": "sgd", "batch_size": 10**6},  # FISTA
]
each_solver = pytest.mark.parametrize("solver", FULL_BATCH, ids=["newton", "lbfgs", "fista"])


def iris(n_classes: int = 3) -> tuple[np.ndarray, np.ndarray]:
    X, y = load_iris(return_X_y=True)
    X = StandardScaler().fit_transform(X[y < n_classes])
    return X, y[y < n_classes]


def precise(C: float, n: float, **params: Any) -> SoftmaxRegression:
    """Return our model of scikit-learn's C, for a total weight of n."""
    return SoftmaxRegression(alpha=1 / (C * n), **{"tol": 1e-8, "max_iter": 2000} | params)


@each_solver
@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("n_classes", [2, 3])
def test_solvers_agree_with_one_another_and_with_scikit_learn(
    solver: dict[str, Any], fit_intercept: bool, n_classes: int
) -> None:
    X, y = iris(n_classes)
    ours = precise(1.0, len(y), fit_intercept=fit_intercept, **solver).fit(X, y)
    theirs = LogisticRegression(tol=1e-8, max_iter=2000, fit_intercept=fit_intercept).fit(X, y)
    np.testing.assert_allclose(ours.coef_, theirs.coef_, atol=1e-5)
    np.testing.assert_allclose(ours.intercept_, theirs.intercept_, atol=1e-5)


@each_solver
def test_a_weight_of_two_is_a_row_twice(solver: dict[str, Any]) -> None:
    X, y = iris()
    twice = np.arange(len(y)) % 3 == 0
    weight = np.where(twice, 2.0, 1.0)
    rows = np.concatenate([np.arange(len(y)), np.flatnonzero(twice)])
    weighed = precise(1.0, weight.sum(), **solver).fit(X, y, weight)
    repeated = precise(1.0, len(rows), **solver).fit(X[rows], y[rows])
    np.testing.assert_allclose(weighed.coef_, repeated.coef_, atol=1e-5)


@each_solver
def test_weights_of_classes_are_weights_of_their_rows(solver: dict[str, Any]) -> None:
    X, y = iris()
    X, y = X[40:], y[40:]  # 10 rows of the first class
    factors = dict(
        zip(range(3), compute_class_weight("balanced", classes=np.arange(3), y=y), strict=True)
    )
    by_row = np.array([factors[label] for label in y.tolist()])
    models = [
        precise(1.0, len(y), class_weight="balanced", **solver).fit(X, y),
        precise(1.0, len(y), class_weight=factors, **solver).fit(X, y),
        precise(1.0, len(y), **solver).fit(X, y, by_row),
    ]
    for model in models[1:]:
        np.testing.assert_allclose(model.coef_, models[0].coef_, atol=1e-5)


@pytest.mark.parametrize("l1_ratio", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("C", [1e-2, 1.0])
def test_the_elastic_net_lowers_its_own_objective_most(C: float, l1_ratio: float) -> None:
    X, y = make_classification(300, 10, n_informative=5, n_classes=2, random_state=0)
    X = StandardScaler().fit_transform(X)
    params: dict[str, Any] = {"solver": "newton", "tol": 1e-5}
    net, lasso, ridge = (
        precise(C, len(y), l1_ratio=share, **params).fit(X, y) for share in (l1_ratio, 1, 0)
    )

    def objective(model: SoftmaxRegression) -> float:
        log_p = model.predict_log_proba(X)[np.arange(len(y)), y]
        coef = model.coef_
        penalty = l1_ratio * np.abs(coef).sum() + (1 - l1_ratio) / 2 * (coef**2).sum()
        return float(-C * log_p.sum() + penalty)

    assert objective(net) <= min(objective(lasso), objective(ridge)) * (1 + 1e-7)
    assert np.count_nonzero(net.coef_) >= np.count_nonzero(lasso.coef_)


def test_noise_features_get_coefficients_of_zero_from_l1() -> None:
    rng = np.random.default_rng(42)
    X, y = make_classification(20, 20, random_state=0)
    X = np.concatenate((rng.normal(scale=0.1, size=(20, 3)), X, np.ones((20, 2))), axis=1)
    model = precise(1.0, len(y), l1_ratio=1.0, solver="newton", fit_intercept=False).fit(X, y)
    theirs = LogisticRegression(
        C=1.0, l1_ratio=1, solver="saga", fit_intercept=False, tol=1e-9, max_iter=100_000
    ).fit(X, y)
    assert not model.coef_[0, :3].any()
    np.testing.assert_allclose(model.coef_[0, :-2], theirs.coef_[0, :-2], atol=1e-4)


@each_solver
@pytest.mark.parametrize("fit_intercept", [True, False])
def test_a_second_fit_of_one_pass_keeps_the_model_only_with_a_warm_start(
    solver: dict[str, Any], fit_intercept: bool
) -> None:
    X, y = load_iris(return_X_y=True)
    model = SoftmaxRegression(
        alpha=1 / len(y),
        fit_intercept=fit_intercept,
        warm_start=True,
        max_iter=300,
        tol=1e-3,
        **solver,
    ).fit(X, y)
    coef, loss = model.coef_, model.loss_
    model.set_params(max_iter=1).fit(X, y)
    assert np.abs(model.coef_ - coef).sum() < 2.0
    assert model.loss_ <= loss * (1 + 1e-9)
    if solver["solver"] != "newton":  # whose single pass reads all of these rows into memory
        with pytest.warns(ConvergenceWarning):
            cold = model.set_params(warm_start=False).fit(X, y)
        assert np.abs(cold.coef_ - coef).sum() > 2.0


def test_fits_of_few_passes_go_on_to_the_minimum_by_warm_starts() -> None:
    X, y = iris()
    minimum = precise(1.0, len(y), solver="lbfgs").fit(X, y).loss_
    model = precise(1.0, len(y), solver="lbfgs", warm_start=True, max_iter=12)
    losses = []
    for _ in range(6):
        with pytest.warns(ConvergenceWarning):
            losses.append(model.fit(X, y).loss_)
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] == pytest.approx(minimum, rel=1e-6)


def test_without_a_penalty_a_huge_c_is_no_different() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 5))
    y = (X[:, 0] + rng.normal(size=300) > 0).astype(int)
    none = SoftmaxRegression(alpha=0.0, tol=1e-8).fit(X, y)
    tiny = SoftmaxRegression(alpha=1e-12, tol=1e-8).fit(X, y)
    np.testing.assert_allclose(none.coef_, tiny.coef_, rtol=1e-5)
    np.testing.assert_array_equal(none.predict(X), tiny.predict(X))


@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("alpha", [0.0, 1e-3])
def test_what_may_be_added_to_all_classes_is_centred(alpha: float, fit_intercept: bool) -> None:
    X, y = load_iris(return_X_y=True)
    y = np.where(np.arange(len(y)) % 7 == 0, (y + 1) % 3, y)  # not separable
    for solver in FULL_BATCH:
        model = SoftmaxRegression(
            alpha=alpha, fit_intercept=fit_intercept, max_iter=300, tol=1e-2, **solver
        ).fit(X, y)
        np.testing.assert_allclose(model.intercept_.sum(), 0, atol=1e-9)
        np.testing.assert_allclose(model.coef_.sum(axis=0), 0, atol=1e-5)


def test_probabilities_and_labels_are_those_of_each_other() -> None:
    X, y = iris()
    names = np.array(["setosa", "versicolor", "virginica"])[y]
    model = precise(1.0, len(y)).fit(X, names)
    p = model.predict_proba(X)
    np.testing.assert_allclose(p.sum(axis=1), 1, rtol=1e-12)
    np.testing.assert_array_equal(model.predict(X), model.classes_[p.argmax(axis=1)])
    assert np.mean(model.predict(X) == names) > 0.95
    uniform = -np.log(np.full(len(y), 1 / 3)).mean()
    assert -np.log(p[np.arange(len(y)), y]).mean() < uniform


def test_weights_and_labels_that_are_passed_stay_as_they_were() -> None:
    X, y = iris()
    weight = np.ones(len(y))
    before = X.copy(), y.copy(), weight.copy()
    SoftmaxRegression(class_weight={0: 1.0, 1: 10.0, 2: 1.0}).fit(X, y, weight)
    SoftmaxRegression(class_weight="balanced", solver="sgd", tol=0.1).fit(X, y, weight)
    for given, kept in zip((X, y, weight), before, strict=True):
        np.testing.assert_array_equal(given, kept)


@each_solver
def test_float32_rows_give_the_model_of_float64_rows(solver: dict[str, Any]) -> None:
    X, y = iris()
    X = X.astype("f4").astype("f8")
    wide, narrow = (
        SoftmaxRegression(alpha=1e-2, tol=1e-4, max_iter=300, **solver).fit(rows, y)
        for rows in (X, X.astype("f4"))
    )
    np.testing.assert_allclose(narrow.coef_, wide.coef_, atol=1e-2)
    assert narrow.loss_ == pytest.approx(wide.loss_, rel=1e-6)


def test_rows_of_one_huge_feature_are_learned() -> None:
    """Where liblinear has been stuck, or has refused values beyond 1e30."""
    X, y = iris(2)
    X = X.copy()
    X[:, 0] *= 1e35
    model = SoftmaxRegression(alpha=1e-3).fit(X, y)
    assert model.score(X, y) == 1.0
