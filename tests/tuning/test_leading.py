"""Models that follow another one end where they would have ended alone."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning

from dsoftmax import SoftmaxRegression, SoftmaxRegressionCV
from dsoftmax.events import CandidatesJudged, Event
from dsoftmax.tuning import drive, pruning
from dsoftmax.tuning.pruning import degrees_of_freedom
from tests.tuning.test_search import fold_of_each_row

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
def test_models_forget_the_rows_that_judge_them_at_any_tolerance(tol: float) -> None:
    X, y = noisy(6000)
    cv = fold_of_each_row(y, 3)
    model = SoftmaxRegressionCV([1e-3, 1e-5], cv=cv, tol=tol, prune=False, random_state=0).fit(X, y)
    for index, alpha in enumerate(model.alphas_):
        held, learned = alone(X, y, cv, alpha)
        found = -model.scores_[:, 0, index].mean()
        assert held - learned > 0.02
        assert abs(found - held) < 0.15 * (held - learned)
    assert model.converged_.all()


def test_near_its_minimum_a_model_is_only_judged_once_more(monkeypatch: pytest.MonkeyPatch) -> None:
    X, y = noisy(12_000, n_features=20, signal=0.3)
    settled: list[int] = []
    evaluate = drive.Scans.evaluate

    def watched(self: Any, groups: Sequence[Any], *, renew: bool, beside: Sequence[Any]) -> Any:
        settled.append(len(beside))
        return evaluate(self, groups, renew=renew, beside=beside)

    monkeypatch.setattr(drive.Scans, "evaluate", watched)
    params: dict[str, Any] = {"cv": 3, "prune": False, "random_state": 0, "sample_size": 3000}
    rough = SoftmaxRegressionCV([1e-2, 1e-4], tol=0.1, **params).fit(X, y)
    assert sum(settled) == 6
    settled.clear()
    SoftmaxRegressionCV([1e-2, 1e-4], tol=1e-6, **params).fit(X, y)
    assert sum(settled) == 0
    for fold, own in enumerate(rough.objectives_[:, 0]):  # what they are promised is what they are
        for index, promised in enumerate(own):
            theta = rough.coefs_paths_[fold, 0, index]
            penalty = 0.5 * rough.alphas_[index] * (theta[:, :-1] ** 2).sum()
            held = -rough.scores_[fold, 0, index]
            raw = X @ theta[:, :-1].T + theta[:, -1]
            losses = np.log(np.exp(raw).sum(axis=1)) - raw[np.arange(len(y)), y]
            # Of three folds of one size, the other two are what it has learned from.
            assert promised == pytest.approx((3 * losses.mean() - held) / 2 + penalty, rel=2e-3)


def test_a_scout_saves_reads_of_many_models_and_changes_no_choice(digits: Data) -> None:
    X, y = digits[0] / 16, digits[1]
    apart = {"X_val": X[:400], "y_val": y[:400]}
    told: list[CandidatesJudged] = []

    class Watch:
        def on_event(self, event: Event) -> None:
            if isinstance(event, CandidatesJudged):
                told.append(event)

    params: dict[str, Any] = {"alphas": 12, "cv": None, "random_state": 0, "tol": 1e-5}
    params |= {"solver": "newton", "sample_size": 900}
    model = SoftmaxRegressionCV(callbacks=[Watch()], **params).fit(X[400:], y[400:], **apart)
    ahead = [event for event in told[1:] if sum(np.isfinite(event.losses)) == 12]
    assert ahead, "while one scouts, what the others have found in memory is told"
    whole = SoftmaxRegressionCV(prune=False, **params).fit(X[400:], y[400:], **apart)
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


def test_degrees_of_freedom_are_the_trace_of_what_the_penalty_leaves(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    X, y = noisy(3000, n_features=8, n_classes=2)
    X *= np.geomspace(0.01, 1, 8)
    found: dict[float, float] = {}

    def watched(member: Any, state: Any) -> float:
        found[member.objective.penalty.alpha] = degrees_of_freedom(member, state)
        return found[member.objective.penalty.alpha]

    monkeypatch.setattr(pruning, "degrees_of_freedom", watched)
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
