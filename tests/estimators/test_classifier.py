from __future__ import annotations

import os
import threading
import time
import warnings
from typing import Any

import numpy as np
import psutil
import pytest
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_iris
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from dsoftmax import DataError, SoftmaxRegression
from dsoftmax.events import FitEnded, FitStarted, PassEnded, StepEnded
from dsoftmax.runtime import local_cluster as local
from dsoftmax.solvers import SOLVERS
from tests.callbacks import Once, Recorder, press_ctrl_c

Arrays = tuple[np.ndarray, np.ndarray]


def optimum(X: np.ndarray, y: np.ndarray, alpha: float, **params: Any) -> LogisticRegression:
    C = 1 / (len(y) * alpha) if alpha else np.inf
    model = LogisticRegression(C=C, solver="newton-cholesky", tol=1e-12, max_iter=1000, **params)
    return model.fit(X, y)


def objective(model: Any, X: np.ndarray, y: np.ndarray, alpha: float) -> float:
    log_p = model.predict_log_proba(X.astype(np.float64))
    own = log_p[np.arange(len(y)), np.searchsorted(model.classes_, y)]
    return float(-own.mean() + alpha / 2 * (model.coef_**2).sum())


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "tolerance"), [("f8", 1e-8), ("f4", 1e-6)])
def test_lbfgs_reaches_the_optimum_of_scikit_learn(
    digits: Arrays, dtype: str, tolerance: float
) -> None:
    X, y = digits
    expected = optimum(X / 16, y, 1e-3)
    model = SoftmaxRegression(alpha=1e-3, tol=1e-7, max_iter=1000)
    model.fit((X / 16).astype(dtype), y)
    best = objective(expected, X / 16, y, 1e-3)
    assert objective(model, X / 16, y, 1e-3) <= best * (1 + tolerance)
    assert model.loss_ == pytest.approx(best, rel=max(tolerance, 1e-7))
    np.testing.assert_allclose(
        model.predict_proba(X / 16), expected.predict_proba(X / 16), atol=1e-3
    )


def test_two_classes_are_scikit_learns_binary_model() -> None:
    X, y = load_breast_cancer(return_X_y=True)
    X = StandardScaler().fit_transform(X)
    model = SoftmaxRegression(alpha=1e-2, tol=1e-9, max_iter=500).fit(X, y)
    expected = optimum(X, y, 1e-2)
    assert model.coef_.shape == (1, X.shape[1])
    assert model.intercept_.shape == (1,)
    np.testing.assert_allclose(model.coef_, expected.coef_, atol=1e-6)
    np.testing.assert_allclose(model.intercept_, expected.intercept_, atol=1e-6)
    np.testing.assert_allclose(model.decision_function(X), expected.decision_function(X), atol=1e-5)


@pytest.mark.parametrize("fit_intercept", [True, False])
def test_coefficients_are_those_of_scikit_learn(fit_intercept: bool) -> None:
    X, y = load_iris(return_X_y=True)
    model = SoftmaxRegression(alpha=1e-2, tol=1e-9, fit_intercept=fit_intercept).fit(X, y)
    expected = optimum(X, y, 1e-2, fit_intercept=fit_intercept)
    np.testing.assert_allclose(model.coef_, expected.coef_, atol=1e-5)
    centred = expected.intercept_ - np.mean(expected.intercept_)
    np.testing.assert_allclose(model.intercept_, centred, atol=1e-5)


def test_standardize_penalises_the_standardised_features() -> None:
    X, y = load_iris(return_X_y=True)
    X = X * [1e3, 1.0, 1e-3, 10.0] + [1e3, 0, 1, -5]
    expected = optimum(StandardScaler().fit_transform(X), y, 1e-2)
    model = SoftmaxRegression(alpha=1e-2, tol=1e-9, standardize=True).fit(X, y)
    np.testing.assert_allclose(model.coef_ * X.std(axis=0), expected.coef_, atol=1e-5)
    np.testing.assert_allclose(
        model.predict_proba(X),
        expected.predict_proba(StandardScaler().fit_transform(X)),
        atol=1e-5,
    )


@pytest.mark.parametrize("dtype", ["f8", "i8"])
def test_a_mean_of_a_million_standard_deviations_keeps_the_optimum(dtype: str) -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 600)
    X = rng.normal(0, 100, (600, 4)).round() + 100 * y[:, None] * np.array([1, 0, 1, 0])
    far = (X + 1e8).astype(dtype)
    near = SoftmaxRegression(alpha=1e-3, tol=1e-8, max_iter=500).fit(X, y)
    model = SoftmaxRegression(alpha=1e-3, tol=1e-8, max_iter=500).fit(far, y)
    assert model.loss_ == pytest.approx(near.loss_, rel=1e-9)
    np.testing.assert_allclose(model.coef_, near.coef_, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("solver", ["lbfgs", "sgd"])
def test_far_features_in_float32_are_scored_as_they_were_trained(solver: str) -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 4000)
    X = (1e6 + rng.normal(size=(4000, 3)).round(2) + y[:, None]).astype("f4")
    model = SoftmaxRegression(alpha=1e-3, solver=solver, max_iter=40, tol=1e-6, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(X, y)
    exact = 1 / (1 + np.exp(-(X.astype("f8") @ model.coef_[0] + model.intercept_[0])))
    np.testing.assert_allclose(model.predict_proba(X)[:, 1], exact, atol=1e-4)
    penalty = 5e-4 * (model.coef_**2).sum()
    assert model.evaluate(X, y)["log_loss"] + penalty == pytest.approx(model.loss_, rel=1e-5)


# Coefficients 20 to 23 of class 3 and the norm of all, after 100 steps of torch 2.13 in float64
# on the same batches: Adam(lr=0.01) and SGD(lr=0.05, momentum=0.9, nesterov=True).
TORCH = {
    "adam": (0.01, [0.58656604, 0.05260409, -0.29714646, -0.01913496], 8.860820194721391),
    "sgd": (0.05, [0.61283313, 0.00893137, -0.12846807, -0.00440463], 8.462493942631363),
}


@pytest.mark.parametrize("solver", TORCH)
def test_a_hundred_steps_are_those_of_torch(digits: Arrays, solver: str) -> None:
    rate, some, norm = TORCH[solver]
    with pytest.warns(ConvergenceWarning, match="max_iter"):
        model = SoftmaxRegression(
            alpha=1e-3,
            solver=solver,
            learning_rate=rate,
            batch_size=80,
            shuffle=False,
            max_iter=6,
            tol=0,
        ).fit(digits[0][:1600] / 16, digits[1][:1600])
    assert model.n_steps_ == 100
    np.testing.assert_allclose(model.coef_[3, 20:24], some, atol=1e-8)
    assert np.linalg.norm(model.coef_) == pytest.approx(norm, rel=1e-9)


@pytest.mark.parametrize("l1_ratio", [1.0, 0.5])
def test_elastic_net_has_the_objective_and_the_zeros_of_saga(
    digits: Arrays, l1_ratio: float
) -> None:
    X, y = digits[0] / 16, digits[1]
    alpha = 1e-2
    model = SoftmaxRegression(alpha=alpha, l1_ratio=l1_ratio, tol=1e-6, max_iter=2000).fit(X, y)
    expected = LogisticRegression(
        C=1 / (len(y) * alpha), l1_ratio=l1_ratio, solver="saga", tol=1e-8, max_iter=20_000
    ).fit(X, y)

    def whole(fit: Any) -> float:
        coef = fit.coef_
        penalty = l1_ratio * np.abs(coef).sum() + (1 - l1_ratio) / 2 * (coef**2).sum()
        return objective(fit, X, y, 0.0) + alpha * float(penalty)

    assert model.loss_ == pytest.approx(whole(model), rel=1e-9)
    assert whole(model) <= whole(expected) * (1 + 1e-6)
    clear = np.abs(expected.coef_) > 1e-4
    np.testing.assert_array_equal((model.coef_ != 0)[clear], True)
    np.testing.assert_array_equal(model.coef_[expected.coef_ == 0], 0)
    p = model.predict_proba(X) - (y[:, None] == np.arange(10))
    gradient = p.T @ X / len(y) + alpha * (1 - l1_ratio) * model.coef_
    at_zero = np.maximum(np.abs(gradient) - alpha * l1_ratio, 0)
    residual = np.where(
        model.coef_ == 0, at_zero, gradient + alpha * l1_ratio * np.sign(model.coef_)
    )
    assert np.abs(residual).max() < 1e-3 * alpha


def test_the_intercept_is_not_penalised() -> None:
    y = np.repeat([0, 1, 2], [10, 30, 60])
    model = SoftmaxRegression(alpha=1e6).fit(np.random.default_rng(0).normal(size=(100, 3)), y)
    np.testing.assert_allclose(model.predict_proba(np.zeros((1, 3)))[0], [0.1, 0.3, 0.6], rtol=1e-3)


@pytest.mark.parametrize("solver", SOLVERS)
def test_every_solver_learns_the_digits(digits: Arrays, solver: str) -> None:
    X, y = digits
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = SoftmaxRegression(alpha=1e-3, solver=solver, max_iter=30, random_state=0)
        model.fit(X[:1400], y[:1400])
    assert model.score(X[1400:], y[1400:]) > 0.88
    assert model.n_iter_ <= 30
    assert model.loss_ == pytest.approx(objective(model, X[:1400], y[:1400], 1e-3), rel=1e-5)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("max_iter", [1, 2, 3])
def test_the_budget_of_passes_is_never_exceeded(digits: Arrays, solver: str, max_iter: int) -> None:
    with pytest.warns(ConvergenceWarning, match="max_iter"):
        model = SoftmaxRegression(solver=solver, max_iter=max_iter, random_state=0, tol=1e-9).fit(
            *digits
        )
    assert model.n_iter_ == max_iter
    assert sum(record["kind"] == "pass" for record in model.history_) == max_iter


@pytest.mark.parametrize("solver", SOLVERS)
def test_the_same_seed_gives_the_same_bits_and_another_one_does_not(
    digits: Arrays, solver: str
) -> None:
    def coef(seed: int) -> np.ndarray:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model = SoftmaxRegression(solver=solver, max_iter=4, random_state=seed, batch_size=100)
            return model.fit(*digits).coef_

    assert np.array_equal(coef(1), coef(1))
    # Of data as small as these, newton's sample is all rows.
    assert np.array_equal(coef(1), coef(2)) == (solver in ("lbfgs", "newton"))


@pytest.mark.parametrize("labels", [["b", "a", "c"], [7, -3, 1000], [2.0, 0.0, 1.0], [True, False]])
def test_labels_of_any_kind_come_back_as_they_are(labels: list[Any]) -> None:
    X, y = load_iris(return_X_y=True)
    named = np.asarray(labels)[y % len(labels)]
    model = SoftmaxRegression(alpha=1e-2).fit(X, named)
    np.testing.assert_array_equal(model.classes_, np.unique(labels))
    assert model.predict(X).dtype == named.dtype
    assert set(model.predict(X)) <= set(labels)


def test_labels_in_an_array_of_objects_are_read_as_strings() -> None:
    X, y = load_iris(return_X_y=True)
    model = SoftmaxRegression().fit(X, np.array(["x", "yy", "zzz"], dtype=object)[y])
    assert list(model.classes_) == ["x", "yy", "zzz"]


@pytest.mark.parametrize("l1_ratio", [0.0, 0.5])  # lbfgs, FISTA
def test_integer_weights_equal_repeated_rows_and_zero_weights_absent_ones(l1_ratio: float) -> None:
    X, y = load_iris(return_X_y=True)
    weight = np.arange(150) % 4
    model = SoftmaxRegression(alpha=1e-2, l1_ratio=l1_ratio, tol=1e-8, max_iter=5000)
    weighted = clone(model).fit(X, y, sample_weight=weight)
    repeated = clone(model).fit(X.repeat(weight, 0), y.repeat(weight))
    np.testing.assert_allclose(weighted.coef_, repeated.coef_, atol=1e-6)


@pytest.mark.parametrize("size", [1e-60, 1e60])
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_only_the_proportions_of_weights_matter(size: float, dtype: str) -> None:
    X, y = load_iris(return_X_y=True)
    weight = 1.0 + np.arange(150) % 4
    near = SoftmaxRegression(alpha=1e-2).fit(X.astype(dtype), y, weight)
    far = SoftmaxRegression(alpha=1e-2).fit(X.astype(dtype), y, weight * size)
    np.testing.assert_allclose(far.coef_, near.coef_, rtol=1e-4)


@pytest.mark.parametrize("class_weight", ["balanced", {0: 1.0, 1: 5.0}])
def test_class_weight_is_that_of_scikit_learn(class_weight: Any) -> None:
    X, y = load_iris(return_X_y=True)
    X, y = X[:130], y[:130]
    model = SoftmaxRegression(alpha=0.0, class_weight=class_weight, tol=1e-8, max_iter=2000)
    C = 10.0
    expected = LogisticRegression(
        C=C, class_weight=class_weight, tol=1e-12, solver="newton-cholesky"
    ).fit(X, y)
    factor = {"balanced": 130.0}.get(str(class_weight)) or float(np.where(y == 1, 5.0, 1.0).sum())
    model.set_params(alpha=1 / (C * factor)).fit(X, y)
    np.testing.assert_allclose(model.coef_, expected.coef_, atol=1e-5)


def test_a_class_that_is_named_but_absent_is_never_predicted() -> None:
    X, y = load_iris(return_X_y=True)
    model = SoftmaxRegression(classes=[0, 1, 2, 3]).fit(X, y)
    assert model.coef_.shape == (4, 4)
    assert model.predict_proba(X)[:, 3].max() < 1e-6
    assert model.score(X, y) > 0.95


def test_separable_data_without_penalty_are_said_to_have_no_minimum() -> None:
    X = np.array([[0.0], [1.0], [2.0], [3.0]])
    with pytest.warns(ConvergenceWarning, match="alpha > 0"):
        model = SoftmaxRegression(alpha=0.0).fit(X, [0, 0, 1, 1])
    assert model.stop_reason_.startswith("separable")
    assert np.isfinite(model.coef_).all()
    assert model.score(X, [0, 0, 1, 1]) == 1.0


def test_a_diverging_loss_stops_with_the_last_good_model(digits: Arrays) -> None:
    with pytest.warns(ConvergenceWarning, match="lower learning_rate"):
        model = SoftmaxRegression(solver="sgd", learning_rate=1e9, random_state=0).fit(*digits)
    assert model.stop_reason_.startswith("diverged")
    assert np.isfinite(model.coef_).all()
    assert model.loss_ <= np.log(10) + 1e-3
    assert model.n_iter_ < 10


def test_a_last_epoch_that_ran_away_leaves_a_model_no_worse_than_the_intercepts(
    digits: Arrays,
) -> None:
    for rate in (2.0, 5.0, 30.0):
        with pytest.warns(ConvergenceWarning):
            model = SoftmaxRegression(
                solver="sgd", learning_rate=rate, max_iter=2, random_state=0
            ).fit(*digits)
        assert model.loss_ <= np.log(10) + 1e-3
        assert objective(model, *digits, 1e-4) == pytest.approx(model.loss_, rel=1e-6)


def test_a_warm_start_at_the_optimum_has_nothing_to_do(digits: Arrays) -> None:
    model = SoftmaxRegression(alpha=1e-1, tol=1e-5, max_iter=500, warm_start=True).fit(*digits)
    first = model.coef_
    model.fit(*digits)
    assert model.n_iter_ == 1
    np.testing.assert_allclose(model.coef_, first, atol=1e-12)
    with pytest.raises(DataError, match="warm_start"):
        model.fit(digits[0][:, :5], digits[1])


def test_ctrl_c_returns_the_best_model_so_far_with_a_warning(digits: Arrays) -> None:
    interrupt = Once(PassEnded, press_ctrl_c, number=5)
    with pytest.warns(ConvergenceWarning, match="interrupted"):
        model = SoftmaxRegression(tol=0, callbacks=[interrupt]).fit(*digits)
    assert model.n_iter_ == 5
    assert model.score(*digits) > 0.5


def test_ctrl_c_in_the_closing_pass_of_mini_batches_keeps_what_was_learned(
    digits: Arrays,
) -> None:
    interrupt = Once(PassEnded, press_ctrl_c, number=3)
    model = SoftmaxRegression(
        solver="adam", max_iter=3, random_state=0, callbacks=[interrupt], batch_size=50
    )
    with pytest.warns(ConvergenceWarning, match="interrupted"):
        model.fit(*digits)
    assert model.score(*digits) > 0.9


def test_leading_rows_of_weight_zero_do_not_stop_mini_batches(digits: Arrays) -> None:
    X, y = digits
    weight = np.ones(len(y))
    weight[:1000] = 0
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        patch.setattr("dsoftmax.data.numpy_array._CHUNK_BYTES", 900 * 64 * 8)
        patch.setattr("dsoftmax.runtime.spans._SPAN_BYTES", 1)
        patch.setattr("dsoftmax.data.batches._MAX_LANES", 1)
        model = SoftmaxRegression(solver="adam", shuffle=False, max_iter=30, batch_size=50)
        model.fit(X, y, weight)
    assert model.score(X[1000:], y[1000:]) > 0.9


@pytest.mark.parametrize("solver", ["newton", "lbfgs", "sgd", "adam"])
def test_intercepts_add_up_to_zero_whatever_the_solver(solver: str, digits: Arrays) -> None:
    model = SoftmaxRegression(solver=solver, max_iter=3, random_state=0, tol=0)
    with pytest.warns(ConvergenceWarning):
        model.fit(*digits)
    assert np.abs(model.intercept_).max() > 1e-3
    assert abs(model.intercept_.sum()) < 1e-12


def test_all_weight_on_one_class_is_one_class() -> None:
    with pytest.raises(DataError, match="holds 1 class"):
        SoftmaxRegression().fit(X4, Y4, [1, 0, 1, 0])


def test_callbacks_see_the_start_every_step_every_pass_and_the_end(digits: Arrays) -> None:
    recorder = Recorder()
    with pytest.warns(ConvergenceWarning):
        model = SoftmaxRegression(
            solver="sgd", max_iter=3, batch_size=500, random_state=0, callbacks=[recorder]
        ).fit(*digits)
    seen = recorder.events
    assert isinstance(seen[0], FitStarted)
    assert isinstance(seen[-1], FitEnded)
    assert seen[-1].loss == model.loss_
    kinds = [type(event) for event in seen if isinstance(event, StepEnded)]
    assert kinds == [StepEnded] * 4 + [PassEnded] + [StepEnded] * 4 + [PassEnded] * 2
    assert [record["pass"] for record in model.history_ if record["kind"] == "pass"] == [1, 2, 3]


def test_a_small_array_is_fitted_in_milliseconds_without_a_process() -> None:
    X, y = load_iris(return_X_y=True)
    SoftmaxRegression().fit(X, y)
    children = psutil.Process().children(recursive=True)
    threads = threading.active_count()
    fastest = min(_seconds_of_a_fit(X, y) for _ in range(5))
    assert psutil.Process().children(recursive=True) == children
    assert threading.active_count() == threads
    assert fastest < 0.5  # some 10 ms; a cluster takes seconds to start
    assert local._client is None or children


def _seconds_of_a_fit(X: np.ndarray, y: np.ndarray) -> float:
    start = time.perf_counter()
    SoftmaxRegression().fit(X, y)
    return time.perf_counter() - start


def test_parameters_survive_clone_and_change_nothing_before_fit() -> None:
    params = {"alpha": 0.5, "solver": "sgd", "class_weight": {1: 2.0}, "random_state": 3}
    assert (
        clone(SoftmaxRegression(**params)).get_params() == SoftmaxRegression(**params).get_params()
    )


def test_prediction_before_fit_is_refused() -> None:
    with pytest.raises(NotFittedError):
        SoftmaxRegression().predict([[1.0]])


X4, Y4 = np.zeros((4, 2)), np.array([0, 1, 0, 1])

BAD_PARAMETERS: list[tuple[dict[str, Any], str]] = [
    ({"solver": "saga"}, "solver='saga' is unknown.*adam.*lbfgs.*sgd"),
    ({"early_stopping": "no"}, "early_stopping is 'no'; expected True or False"),
    ({"fit_intercept": None}, "fit_intercept is None; expected True or False"),
    ({"sample_size": 0}, "sample_size is 0; expected a whole number"),
    ({"sample_size": "all"}, "sample_size is 'all'"),
    ({"schedule": "step"}, "schedule is 'step'"),
    ({"clip_norm": 0}, "clip_norm is 0"),
    ({"solver": "lbfgs", "l1_ratio": 0.5}, "lbfgs.*smooth penalties only.*l1_ratio"),
    ({"alpha": -1}, "alpha is -1; expected a number of at least 0"),
    ({"alpha": np.nan}, "alpha is nan"),
    ({"alpha": "1"}, "alpha is '1'"),
    ({"l1_ratio": 2}, "l1_ratio is 2.*at most 1"),
    ({"max_iter": 0}, "max_iter is 0"),
    ({"max_iter": 1.5}, "max_iter is 1.5; expected a whole number"),
    ({"batch_size": 0}, "batch_size is 0"),
    ({"learning_rate": 0}, "learning_rate is 0; expected a positive number"),
    ({"learning_rate": "fast"}, "learning_rate is 'fast'"),
    ({"momentum": 1}, "momentum is 1.*below 1"),
    ({"class_weight": "even"}, "class_weight is 'even'"),
    ({"class_weight": {0: -1}}, r"class_weight\[0\] is -1"),
    ({"class_weight": {7: 1}}, r"class_weight names \[7\]"),
    ({"classes": [1]}, "at least two different labels"),
    ({"classes": [0, 2]}, "label 1 at row 1, which is not one of the 2 classes"),
]


@pytest.mark.parametrize(("params", "message"), BAD_PARAMETERS)
def test_a_bad_parameter_is_named_with_what_was_expected(
    params: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        SoftmaxRegression(**params).fit(X4, Y4)


def test_a_value_that_float32_cannot_hold_is_said_to_need_float64() -> None:
    from dsoftmax import open_data

    X = np.array([[1e300, 0], [0, 1], [1, 0], [1, 1.0]])
    with pytest.raises(DataError, match="too large for float32; open the data with dtype"):
        SoftmaxRegression().fit(open_data(X, Y4, dtype="float32"))


def test_the_number_of_blas_threads_is_restored_after_a_fit(digits: Arrays) -> None:
    from threadpoolctl import threadpool_info

    def threads() -> list[int]:
        return [lib["num_threads"] for lib in threadpool_info() if lib["user_api"] == "blas"]

    before, environment = threads(), dict(os.environ)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        SoftmaxRegression(max_iter=2).fit(*digits)
    assert threads() == before
    assert dict(os.environ) == environment
