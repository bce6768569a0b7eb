"""What a fit reports: a loss that was evaluated or can be, and no worse a model than before."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_iris, load_wine

from dsoftmax import SoftmaxRegression, SoftmaxRegressionCV, load_model
from tests.fits import SOLVERS, model_of

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


def objective(model: Any, X: np.ndarray, y: np.ndarray) -> float:
    log_p = model.predict_log_proba(X)[np.arange(len(y)), y]
    share, coef = model.l1_ratio, model.coef_
    penalty = share * np.abs(coef).sum() + (1 - share) / 2 * (coef**2).sum()
    return float(-log_p.mean() + model.alpha * penalty)


def penalty_of(model: SoftmaxRegression) -> float:
    share, coef = model.l1_ratio, model.coef_
    return model.alpha * (share * np.abs(coef).sum() + (1 - share) / 2 * (coef**2).sum())


@pytest.mark.parametrize("max_iter", [1, 2, 3])
@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("sample_size", [100, "auto"])
def test_the_loss_is_that_of_the_coefficients_or_an_estimate_that_can_be(
    digits: tuple[np.ndarray, np.ndarray], solver: str, max_iter: int, sample_size: Any
) -> None:
    X, y = digits[0][::2], digits[1][::2]
    model = model_of(solver, alpha=1e-3, max_iter=max_iter, sample_size=sample_size).fit(X, y)
    true = objective(model, X, y)
    if model.loss_evaluated_:
        assert model.loss_ == pytest.approx(true, rel=1e-6)
    assert model.loss_ >= penalty_of(model)
    intercepts_alone = np.log(10)
    assert true <= intercepts_alone * (1 + 1e-3)


@pytest.mark.parametrize("alpha", [0.0, 1e-4, 1e-2])
@pytest.mark.parametrize("load", [load_iris, load_wine])
def test_no_promise_is_below_the_penalty(load: Any, alpha: float) -> None:
    X, y = load(return_X_y=True)
    for max_iter in (1, 2, 3, 4):
        model = SoftmaxRegression(
            alpha=alpha, solver="newton", sample_size=100, max_iter=max_iter, random_state=0
        ).fit(X, y)
        assert model.loss_ >= penalty_of(model)
        assert objective(model, X, y) <= model.loss_ * 1.05


def test_labels_that_nothing_tells_are_not_fitted_by_the_sample_alone() -> None:
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(6000, 30)), rng.integers(0, 10, 6000)
    intercepts_alone = SoftmaxRegression(alpha=1e9, solver="lbfgs").fit(X, y).loss_
    for sample_size in (100, 1000, 2000):
        model = SoftmaxRegression(
            solver="newton", sample_size=sample_size, max_iter=1, random_state=0
        ).fit(X, y)
        assert objective(model, X, y) <= intercepts_alone + 1e-6


@pytest.mark.parametrize("max_iter", [1, 2])
@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("mean", [0.0, 1e4])
def test_a_warm_start_ends_no_worse_than_it_began(
    digits: tuple[np.ndarray, np.ndarray], solver: str, max_iter: int, mean: float
) -> None:
    X, y = digits[0][::3] + mean, digits[1][::3]
    model = model_of(solver, alpha=1e-3, sample_size=150, max_iter=5, warm_start=True).fit(X, y)
    before = objective(model, X, y)
    for _ in range(2):
        model.set_params(max_iter=max_iter).fit(X, y)
        after = objective(model, X, y)
        assert after <= before + 1e-9
        assert model.n_iter_ <= max_iter
        if model.loss_evaluated_:
            assert model.loss_ == pytest.approx(after, rel=1e-6)
        before = after


@pytest.mark.parametrize("solver", ["newton", "lbfgs", "fista"])
def test_the_first_pass_of_a_warm_start_is_its_evaluation(
    digits: tuple[np.ndarray, np.ndarray], solver: str
) -> None:
    X, y = digits
    model = model_of(solver, alpha=1e-2, max_iter=200, tol=1e-3, warm_start=True).fit(X, y)
    loss, coef = model.loss_, model.coef_
    model.fit(X, y)
    assert model.n_iter_ == 1
    assert model.stop_reason_.startswith("converged: the gradient")
    np.testing.assert_allclose(model.coef_, coef, rtol=1e-9, atol=1e-12)
    assert model.loss_ == pytest.approx(loss, rel=1e-9)
    assert model.history_[0]["loss"] == pytest.approx(loss, rel=1e-9)


def test_a_start_that_is_worse_than_the_intercepts_is_left_for_them() -> None:
    X, y = load_iris(return_X_y=True)
    for solver in SOLVERS:
        model = model_of(solver, warm_start=True, max_iter=1, alpha=1e-3).fit(X, y)
        model.coef_ = np.full_like(model.coef_, 3.0) * np.array([[1], [-1], [1]])
        model.fit(X, y)
        assert objective(model, X, y) <= np.log(3) * (1 + 1e-6)


def test_a_part_after_a_fit_does_not_forget_it() -> None:
    X, y = load_iris(return_X_y=True)
    model = SoftmaxRegression(alpha=1e-3).fit(X, y)
    before = objective(model, X, y)
    model.set_params(solver="adam", learning_rate=100.0).partial_fit(X, y)  # steps far too long
    assert objective(model, X, y) <= before + 1e-9


def test_whether_the_loss_was_evaluated_goes_with_the_model(tmp_path: Any) -> None:
    X, y = load_iris(return_X_y=True)
    model = SoftmaxRegression(solver="sgd", max_iter=1, random_state=0).fit(X, y)
    assert not model.loss_evaluated_
    model.save(tmp_path / "model")
    assert load_model(tmp_path / "model").loss_evaluated_ is False
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        model.fit(X, y)
    assert "an estimated loss of" in str(said[0].message)


@pytest.mark.parametrize("solver", ["newton", "lbfgs"])
@pytest.mark.parametrize("max_iter", [1, 2, 4, 30])
def test_a_search_reports_a_loss_that_can_be(
    digits: tuple[np.ndarray, np.ndarray], solver: str, max_iter: int
) -> None:
    X, y = digits[0][:600], digits[1][:600]
    search = SoftmaxRegressionCV(
        alphas=[1e-2, 1e-3], cv=3, solver=solver, max_iter=max_iter, random_state=0
    ).fit(X, y)
    best = search.best_estimator_
    true = objective(best, X, y)
    assert search.loss_ >= penalty_of(best)
    if search.loss_evaluated_:
        assert search.loss_ == pytest.approx(true, rel=1e-6)
    assert true <= np.log(10) * (1 + 1e-3)


def test_the_accuracy_of_a_pass_is_that_of_the_point_it_led_to(
    digits: tuple[np.ndarray, np.ndarray],
) -> None:
    """A sample too small to be trusted has a pass evaluate a shorter step, too."""
    X, y = digits
    for max_iter in (2, 3, 4, 5):
        model = model_of("newton", sample_size=60, max_iter=max_iter, alpha=1e-3).fit(X, y)
        last = model.history_[-1]
        if model.loss_ == pytest.approx(last["loss"], rel=1e-9):
            assert last["accuracy"] == pytest.approx(model.score(X, y))
