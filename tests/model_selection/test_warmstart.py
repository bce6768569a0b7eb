"""Warm starts: models that start where another one is end where they would have ended alone."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning

from dsoftmax import SoftmaxRegression, SoftmaxRegressionCV
from dsoftmax.events import CandidatesJudged
from dsoftmax.model_selection import racing
from dsoftmax.model_selection.racing import degrees_of_freedom
from tests.callbacks import Recorder, StopAfter, StopError
from tests.model_selection.problems import fold_of_each_row

Data = tuple[np.ndarray, np.ndarray]


def noisy(rows: int, n_features: int = 60, n_classes: int = 4, signal: float = 0.1) -> Data:
    """Return rows that tell little of their classes, so that models learn much by heart."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, n_classes, rows)
    X = rng.normal(size=(rows, n_features)) + signal * rng.normal(size=(n_classes, n_features))[y]
    return X, y


def alone(X: np.ndarray, y: np.ndarray, cv: np.ndarray, alpha: float) -> tuple[float, float]:
    """Return the mean loss of separate fits on the folds left out, and on those learned from."""
    held, learned = [], []
    for fold in range(cv.max() + 1):
        model = SoftmaxRegression(alpha, tol=1e-7).fit(X[cv != fold], y[cv != fold])
        held.append(model.evaluate(X[cv == fold], y[cv == fold])["log_loss"])
        learned.append(model.evaluate(X[cv != fold], y[cv != fold])["log_loss"])
    return float(np.mean(held)), float(np.mean(learned))


@pytest.mark.parametrize("tol", [0.3, 0.03, 1e-3])
@pytest.mark.parametrize("alpha", [1e-3, 1e-5])
def test_fold_models_forget_the_rows_that_judge_them(tol: float, alpha: float) -> None:
    X, y = noisy(6000)
    cv = fold_of_each_row(y, 3)
    model = SoftmaxRegressionCV([alpha], cv=cv, tol=tol, random_state=0).fit(X, y)
    held, learned = alone(X, y, cv, alpha)
    assert held - learned > 0.02
    assert abs(-model.scores_.mean() - held) < 0.15 * (held - learned)
    assert model.converged_.all()


def test_near_its_minimum_a_fold_model_takes_one_more_step(monkeypatch: pytest.MonkeyPatch) -> None:
    X, y = noisy(12_000, n_features=20, signal=0.3)
    short: list[bool] = []
    is_short = racing.Racing.is_short

    def watched(self: Any, state: Any, index: int) -> bool:
        short.append(is_short(self, state, index))
        return short[-1]

    monkeypatch.setattr(racing.Racing, "is_short", watched)
    params: dict[str, Any] = {"cv": 3, "random_state": 0, "sample_size": 3000}
    for alpha in (1e-2, 1e-4):
        short.clear()
        rough = SoftmaxRegressionCV([alpha], tol=0.05, **params).fit(X, y)
        assert short == [True] * 3
        assert rough.converged_.all()
        short.clear()
        tight = SoftmaxRegressionCV([alpha], tol=1e-6, **params).fit(X, y)
        assert not short
        np.testing.assert_allclose(rough.objectives_, tight.objectives_, rtol=2e-3)
        np.testing.assert_allclose(rough.scores_, tight.scores_, rtol=2e-3)


@pytest.mark.parametrize(
    ("rows", "n_features", "sample_size", "tol"),
    [(800, 30, 100, 0.3), (800, 30, 100, 0.03), (800, 30, 300, 0.1), (4000, 40, 200, 0.1)],
)
def test_one_step_is_not_enough_where_the_sample_is_too_small_for_it(
    rows: int, n_features: int, sample_size: int, tol: float
) -> None:
    X, y = noisy(rows, n_features, 2, signal=0.5)
    cv, alphas = np.arange(rows) % 5, np.array([1.0, 0.1, 1e-2, 1e-3])
    model = SoftmaxRegressionCV(
        alphas, cv=cv, sample_size=sample_size, tol=tol, solver="newton", random_state=0
    ).fit(X, y)
    assert model.converged_.all(axis=0).any()
    for fold, _, index in np.argwhere(model.converged_):
        own, alpha = cv != fold, model.alphas_[index]
        theta = model.coefs_paths_[fold, 0, index, 0]
        raw = np.where(y[own] == 1, 1, -1) * (X[own] @ theta[:-1] + theta[-1])
        value = np.logaddexp(0, -raw).mean() + 0.5 * alpha * (theta[:-1] ** 2).sum()
        assert model.objectives_[fold, 0, index] == pytest.approx(value, rel=1e-5)
        best = SoftmaxRegression(alpha).fit(X[own], y[own])
        held = best.evaluate(X[~own], y[~own])["log_loss"]
        assert -model.scores_[fold, 0, index] == pytest.approx(held, rel=0.35)


def test_a_class_that_a_fold_must_not_know_is_not_learned_from_the_full_data_model() -> None:
    X, y = noisy(1200, n_features=6, n_classes=3, signal=1.0)
    cv = np.where(y == 2, 0, np.arange(1200) % 3)
    with pytest.warns(UserWarning, match="cannot know them"):
        model = SoftmaxRegressionCV([1e-2, 1e-6], cv=cv, solver="newton", random_state=0).fit(X, y)
    of_unknown = model.coefs_paths_[0, 0, :, 2]
    known = np.abs(model.coefs_paths_[1, 0, :, 2, :-1]).max()
    assert np.abs(of_unknown[:, :-1]).max() < known / 2


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("tol", [1e-4, "auto"])
@pytest.mark.parametrize("largest", [1e8, 1e-4])
def test_candidates_are_judged_wherever_the_pilot_ends(
    dtype: str, tol: float | str, largest: float
) -> None:
    rng = np.random.default_rng(3)
    X, y = rng.normal(size=(4500, 10)).astype(dtype), rng.integers(0, 10, 4500)
    model = SoftmaxRegressionCV(
        np.geomspace(1e-6 * largest, largest, 10), cv=None, tol=tol, solver="newton", random_state=0
    ).fit(X[:4000], y[:4000], X_val=X[4000:], y_val=y[4000:])
    assert np.isfinite(model.scores_).all()
    assert model.stop_reason_.startswith("converged")
    assert model.scores_.max() == pytest.approx(-np.log(10), abs=0.02)


@pytest.mark.parametrize("budget", [1, 2, 3])
def test_a_budget_that_ends_around_the_pilot_changes_no_bits_later(
    tmp_path: Path, budget: int
) -> None:
    X, y = noisy(4500, n_features=20, n_classes=10, signal=0.3)
    validation = {"X_val": X[4000:], "y_val": y[4000:]}
    params: dict[str, Any] = {"alphas": 10, "cv": None, "random_state": 0, "sample_size": 600}
    params["solver"] = "newton"
    whole = SoftmaxRegressionCV(**params).fit(X[:4000], y[:4000], **validation)
    early = SoftmaxRegressionCV(max_iter=budget, checkpoint=tmp_path, **params)
    with pytest.warns(ConvergenceWarning, match="budget"):
        early.fit(X[:4000], y[:4000], **validation)
    assert np.isfinite(early.scores_).all()
    later = SoftmaxRegressionCV(checkpoint=tmp_path, **params).fit(X[:4000], y[:4000], **validation)
    assert later.coefs_paths_.tobytes() == whole.coefs_paths_.tobytes()
    assert later.scores_.tobytes() == whole.scores_.tobytes()


@pytest.mark.parametrize("looks", [2, 3, 4, 5, 6])
def test_a_stop_after_the_budget_has_bitten_goes_on_with_a_larger_one(
    tmp_path: Path, looks: int
) -> None:
    X, y = noisy(1500, n_features=20)
    params: dict[str, Any] = {"alphas": [1.0, 0.1, 1e-3], "cv": 3, "random_state": 0}
    params |= {"tol": 1e-7, "solver": "newton", "sample_size": 400}
    whole = SoftmaxRegressionCV(**params).fit(X, y)
    stop = StopAfter(looks, kinds=(CandidatesJudged,))
    with pytest.raises(StopError):
        SoftmaxRegressionCV(max_iter=6, checkpoint=tmp_path, callbacks=[stop], **params).fit(X, y)
    later = SoftmaxRegressionCV(checkpoint=tmp_path, **params).fit(X, y)
    assert later.stop_reason_.startswith("converged")
    assert later.coefs_paths_.tobytes() == whole.coefs_paths_.tobytes()
    assert later.coef_.tobytes() == whole.coef_.tobytes()


def test_a_pilot_saves_reads_of_many_models_and_changes_no_choice(digits: Data) -> None:
    X, y = digits[0] / 16, digits[1]
    validation = {"X_val": X[:300], "y_val": y[:300]}
    judged = Recorder(CandidatesJudged)
    params: dict[str, Any] = {"alphas": 12, "cv": None, "random_state": 0, "tol": 1e-5}
    params |= {"solver": "newton", "sample_size": 900}
    model = SoftmaxRegressionCV(callbacks=[judged], **params).fit(X[300:], y[300:], **validation)
    ahead = [event for event in judged.events[1:] if sum(np.isfinite(event.losses)) == 12]
    assert ahead, "while the pilot is ahead, what the others have found in memory is told"
    whole = SoftmaxRegressionCV(prune=False, **params).fit(X[300:], y[300:], **validation)
    assert model.alpha_ == whole.alpha_
    assert model.loss_ == pytest.approx(whole.loss_, rel=1e-7)
    np.testing.assert_allclose(model.coef_, whole.coef_, atol=2e-3)
    kept = model.converged_[0, 0]
    assert 0 < kept.sum() < 12
    np.testing.assert_allclose(
        model.objectives_[..., kept], whole.objectives_[..., kept], rtol=1e-6
    )
    losses = -whole.scores_[0, 0]
    assert (losses[~kept] > losses.min()).all()


def test_candidates_that_converge_where_another_led_have_the_objective_of_their_own_penalty(
    digits: Data,
) -> None:
    X, y = digits[0] / 16, digits[1]
    alphas = np.geomspace(1e-2, 1.03e-2, 12)  # so near to each other that one leads to all minima
    model = SoftmaxRegressionCV(
        alphas, cv=None, random_state=0, tol=0.1, solver="newton", sample_size=400
    ).fit(X[200:], y[200:], X_val=X[:200], y_val=y[:200])
    assert model.n_iter_ == 2  # the first read, and that of the pilot
    assert model.converged_.all()
    X, y = X[200:], y[200:]
    for index, alpha in enumerate(model.alphas_):
        theta = model.coefs_paths_[0, 0, index]
        raw = X @ theta[:, :-1].T + theta[:, -1]
        losses = np.log(np.exp(raw).sum(axis=1)) - raw[np.arange(len(y)), y]
        value = losses.mean() + 0.5 * alpha * (theta[:, :-1] ** 2).sum()
        assert model.objectives_[0, 0, index] == pytest.approx(value, rel=1e-9)


def test_degrees_of_freedom_are_the_trace_of_what_the_penalty_leaves(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    X, y = noisy(3000, n_features=8, n_classes=2)
    X *= np.geomspace(0.01, 1, 8)
    found: dict[float, float] = {}

    def watched(member: Any, state: Any) -> float:
        found[member.objective.penalty.alpha] = degrees_of_freedom(member, state)
        return found[member.objective.penalty.alpha]

    monkeypatch.setattr(racing, "degrees_of_freedom", watched)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        SoftmaxRegressionCV(
            [1e-6, 1e-2, 100.0], cv=2, random_state=0, sample_size=3000, max_iter=4
        ).fit(X, y)
    p = y.mean()
    hessian = p * (1 - p) * np.cov(X.T, bias=True)
    for alpha, n_free in found.items():
        kept = np.trace(np.linalg.solve(hessian + alpha * np.eye(8), hessian))
        # No less; and more by the noise of a metric that is told by eight rows a feature.
        assert 1 + kept - 0.1 < n_free < 1 + kept + 8 / 9 + 0.2
    assert len(found) == 3
