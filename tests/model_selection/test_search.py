"""A search against what it stands for: separate fits, and scikit-learn's search."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegressionCV

from dsoftmax import SoftmaxRegression, SoftmaxRegressionCV
from dsoftmax.events import CandidatesJudged, FitStarted
from dsoftmax.model_selection import rounds
from tests.callbacks import Recorder
from tests.model_selection.problems import fold_of_each_row, scaled_features

Data = tuple[np.ndarray, np.ndarray]
ALPHAS = [1e-3, 1e-1, 10.0]  # the last for coefficients near zero


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"solver": "lbfgs"},
        {"standardize": True},
        {"fit_intercept": False},
        {"class_weight": {0: 3.0, 1: 0.5}},
        {"l1_ratios": [0.5]},
        {"l1_ratios": [1.0], "solver": "auto", "sample_size": 50},
        {"sample_size": 100},
    ],
    ids=str,
)
@pytest.mark.parametrize("n_classes", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_every_model_of_the_path_is_as_good_as_a_fit_of_its_own(
    n_classes: int, params: dict[str, Any]
) -> None:
    X, y = scaled_features(n_classes)
    cv, weight = fold_of_each_row(y, 3), np.random.default_rng(0).random(len(y)) + 0.5
    model = SoftmaxRegressionCV(
        alphas=ALPHAS, cv=cv, prune=False, tol=1e-9, random_state=0, max_iter=1000, **params
    ).fit(X, y, weight)
    own = {
        name: value for name, value in params.items() if name not in ("l1_ratios", "sample_size")
    }
    (ratio,) = model.l1_ratios_
    for fold in range(3):
        for index, alpha in enumerate(model.alphas_):
            alone = SoftmaxRegression(alpha, ratio, tol=1e-9, max_iter=1000, **own)
            alone.fit(X[cv != fold], y[cv != fold], weight[cv != fold])
            assert model.objectives_[fold, 0, index] == pytest.approx(alone.loss_, rel=1e-8)
            if ratio < 1:  # else there are several minima
                found = model.coefs_paths_[fold, 0, index]
                expected = np.column_stack([alone.coef_, alone.intercept_])
                np.testing.assert_allclose(found, expected, rtol=2e-3, atol=2e-4)
            held = alone.evaluate(X[cv == fold], y[cv == fold], weight[cv == fold])
            assert model.scores_[fold, 0, index] == pytest.approx(-held["log_loss"], rel=1e-4)
    assert model.converged_.all()


def test_the_winner_is_fitted_to_all_rows() -> None:
    X, y = scaled_features(3)
    model = SoftmaxRegressionCV(alphas=ALPHAS, cv=4, tol=1e-9, random_state=0).fit(X, y)
    alone = SoftmaxRegression(model.alpha_, tol=1e-9).fit(X, y)
    assert model.loss_ == pytest.approx(alone.loss_, rel=1e-9)
    np.testing.assert_allclose(model.coef_, alone.coef_, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(model.predict(X), alone.predict(X))


@pytest.mark.slow
def test_the_choice_is_that_of_scikit_learn_for_the_same_folds(digits: Data) -> None:
    X, y = digits[0] / 16, digits[1]
    cv = fold_of_each_row(y, 5)
    alphas = np.geomspace(1e-4, 1.0, 7)
    ours = SoftmaxRegressionCV(alphas=alphas, cv=cv, random_state=0).fit(X, y)
    # The same penalty on the mean loss of each fold's own rows, nearly all of one size.
    C = 1 / (alphas * len(y) * 0.8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        theirs = LogisticRegressionCV(
            Cs=C,
            cv=[(np.flatnonzero(cv != k), np.flatnonzero(cv == k)) for k in range(5)],
            scoring="neg_log_loss",
            max_iter=5000,
            tol=1e-6,
        ).fit(X, y)
    assert ours.alpha_ == pytest.approx(1 / (theirs.C_[0] * len(y) * 0.8), rel=1e-6)
    scores = theirs.scores_[0][:, ::-1]  # by falling alphas, as ours; the same for all classes
    (won,) = np.flatnonzero(ours.alphas_ == ours.alpha_)
    near = slice(won - 1, won + 2)
    np.testing.assert_allclose(ours.scores_[:, 0, near], scores[:, near], atol=5e-3)


def test_the_solver_is_that_of_a_fit() -> None:
    X, y = scaled_features(4, rows=200)

    def solver(sample_size: int) -> str:
        started = Recorder(FitStarted)
        search = SoftmaxRegressionCV(
            alphas=2, cv=2, sample_size=sample_size, random_state=0, tol=0.1, callbacks=[started]
        )
        search.fit(X, y)
        return str(started.events[0].solver)

    assert solver(20) == "newton"  # as many rows as coefficients
    assert solver(19) == "lbfgs"


def test_candidates_that_the_sample_rules_out_take_no_part_in_a_pass(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    X, y = scaled_features(3, rows=6000)
    validation = {"X_val": X[:1000], "y_val": y[:1000]}
    judged = Recorder(CandidatesJudged)
    params: dict[str, Any] = {"alphas": ALPHAS, "sample_size": 2000, "random_state": 0}
    params |= {"tol": 1e-6, "cv": None}
    model = SoftmaxRegressionCV(callbacks=[judged], **params).fit(X[1000:], y[1000:], **validation)
    assert judged.events[0].running == (1, 1, 1)
    assert judged.events[1].ruled_out[0]
    assert model.alpha_ < 10.0
    # What is reported of it is the sample's model, not where its search began.
    scores = []
    for theta in model.coefs_paths_[0, 0]:
        raw = X[:1000] @ theta[:, :-1].T + theta[:, -1]
        scores.append(np.log(np.exp(raw).sum(axis=1)) - raw[np.arange(1000), y[:1000]])
    np.testing.assert_allclose(-model.scores_[0, 0], np.mean(scores, axis=1), rtol=1e-5)
    whole = SoftmaxRegressionCV(prune=False, **params).fit(X[1000:], y[1000:], **validation)
    assert model.alpha_ == whole.alpha_
    np.testing.assert_allclose(model.objectives_, whole.objectives_, rtol=0.01)
    monkeypatch.setattr(rounds, "_FEW", 0.0)
    evaluated = SoftmaxRegressionCV(**params).fit(X[1000:], y[1000:], **validation)
    assert model.scores_[0, 0, 0] == evaluated.scores_[0, 0, 0]
    assert model.objectives_[0, 0, 0] != evaluated.objectives_[0, 0, 0]  # of the sample, of all
