from __future__ import annotations

import numpy as np
import pytest

from dsoftmax import SoftmaxRegression, SoftmaxRegressionCV
from dsoftmax.errors import DataError
from dsoftmax.model_selection.path import Candidates, chosen
from dsoftmax.model_selection.racing import eliminated, score_bound

PATH = Candidates(np.array([0.0]), np.array([[10.0, 1.0, 0.1, 0.01]]))


def test_the_highest_mean_wins_and_within_an_error_of_it_the_largest_alpha() -> None:
    scores = np.array([[-0.9, -0.52, -0.50, -0.7], [-0.8, -0.50, -0.44, -0.7]])
    assert chosen(scores, PATH, "best") == 2
    assert chosen(scores, PATH, "1se") == 2  # an error of 0.03, and 0.04 between the means
    scores[:, 1] += 0.02
    assert chosen(scores, PATH, "1se") == 1


def test_one_standard_error_chooses_among_the_winners_share_of_l1() -> None:
    found = Candidates(np.array([0.0, 1.0]), np.array([[1.0, 0.1], [0.5, 0.05]]))
    scores = np.array([[-0.50, -0.50, -0.51, -0.49], [-0.50, -0.50, -0.51, -0.45]])
    assert chosen(scores, found, "best") == 3
    assert chosen(scores, found, "1se") == 3


def test_candidates_without_a_score_do_not_win() -> None:
    assert chosen(np.array([[np.nan, -0.5, -0.4, np.nan]]), PATH, "best") == 2


def test_a_candidate_is_ruled_out_by_more_than_what_both_may_change() -> None:
    scores = np.array([[-0.9, -0.55, -0.5, -0.7]])
    doubts = np.array([[0.1, 0.04, 0.02, np.inf]])
    np.testing.assert_array_equal(eliminated(scores, doubts, "best"), [True, False, False, False])
    assert not eliminated(scores, np.full((1, 4), np.inf), "best").any()


def test_a_standard_error_more_is_needed_where_one_decides() -> None:
    scores = np.array([[-0.62, -0.58, -0.5, -0.9], [-0.62, -0.58, -0.4, -0.9]])
    doubts = np.full((2, 4), 0.01)
    np.testing.assert_array_equal(eliminated(scores, doubts, "best"), [True, True, False, True])
    np.testing.assert_array_equal(eliminated(scores, doubts, "1se"), [True, True, False, True])
    doubts += 0.06
    np.testing.assert_array_equal(eliminated(scores, doubts, "1se"), [False, False, False, True])


def test_doubts_vanish_with_the_gap_and_are_endless_without_one() -> None:
    assert score_bound(None, 10, 100, 100) == np.inf
    assert score_bound(0.0, 10, 100, 100) == 0
    assert score_bound(1e-4, 10, 100, 100) > score_bound(1e-6, 10, 100, 100) > 1e-6


@pytest.mark.parametrize("seed", range(3))
def test_what_is_in_doubt_covers_what_comes(seed: int) -> None:
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 4, 3000)
    X = rng.normal(size=(3000, 20)) + 0.5 * rng.normal(size=(4, 20))[y]
    learned, held = slice(0, 2000), slice(2000, None)

    def loss(tol: float) -> tuple[float, float]:
        model = SoftmaxRegression(1e-4, tol=tol, sample_size=300, random_state=0)
        model.fit(X[learned], y[learned])
        return float(model.evaluate(X[held], y[held])["log_loss"]), float(model.gap_ or 0.0)

    end, _ = loss(1e-8)
    for tol in (0.1, 0.03, 0.01):
        now, gap = loss(tol)
        assert abs(now - end) <= score_bound(gap, 63, 2000, 1000)


def test_a_path_starts_where_l1_leaves_nothing_and_spans_four_decades() -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 300)
    X = rng.normal(size=(300, 4)) * [1, 10, 0.1, 1] + np.array([0.0, 1.0, 0.1])[y][:, None]
    model = SoftmaxRegressionCV(3, l1_ratios=[1.0], cv=2, random_state=0, tol=0.01).fit(X, y)
    assert model.alphas_[0] / model.alphas_[-1] == pytest.approx(1e4)
    largest = SoftmaxRegression(model.alphas_[0] * 1.001, l1_ratio=1.0).fit(X, y)
    assert not largest.coef_.any()
    assert SoftmaxRegression(model.alphas_[0] * 0.9, l1_ratio=1.0).fit(X, y).coef_.any()


@pytest.mark.parametrize("l1_ratios", [(0.0,), (0.0, 0.5)])
def test_alphas_that_are_given_are_tried_from_the_largest_on(l1_ratios: tuple[float, ...]) -> None:
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(60, 2)), np.arange(60) % 2
    model = SoftmaxRegressionCV([0.1, 10, 1], l1_ratios=l1_ratios, cv=2, random_state=0).fit(X, y)
    np.testing.assert_array_equal(model.alphas_, [10, 1, 0.1])
    assert model.scores_.shape == (2, len(l1_ratios), 3)
    assert model.coefs_paths_.shape == (2, len(l1_ratios), 3, 1, 3)


def test_rows_that_are_apart_choose_as_they_would_one_by_one() -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 900)
    X = rng.normal(size=(900, 30)) + 0.4 * rng.normal(size=(3, 30))[y]
    (X, X_val), (y, y_val) = np.split(X, [300]), np.split(y, [300])
    search = SoftmaxRegressionCV(6, cv=None, random_state=0, tol=1e-6)
    search.fit(X, y, X_val=X_val, y_val=y_val)
    losses = [
        SoftmaxRegression(alpha, tol=1e-6).fit(X, y).evaluate(X_val, y_val)["log_loss"]
        for alpha in search.alphas_
    ]
    assert search.alpha_ == search.alphas_[np.argmin(losses)]
    assert search.scores_.max() == pytest.approx(-min(losses), rel=1e-4)
    assert search.scores_.shape == (1, 1, 6)
    alone = SoftmaxRegression(search.alpha_, tol=1e-6).fit(X, y)
    np.testing.assert_allclose(search.coef_, alone.coef_, atol=1e-4)


def test_one_standard_error_needs_folds() -> None:
    X, y = np.random.default_rng(0).normal(size=(20, 2)), np.arange(20) % 2
    search = SoftmaxRegressionCV(cv=None, select="1se")
    with pytest.raises(DataError, match="select='1se' needs the spread over folds"):
        search.fit(X, y, X_val=X, y_val=y)


def test_without_a_refit_the_winner_is_the_mean_of_its_models() -> None:
    X, y = np.random.default_rng(0).normal(size=(90, 3)), np.arange(90) % 3
    model = SoftmaxRegressionCV([1.0, 0.1], cv=3, random_state=0, refit=False).fit(X, y)
    (won,) = np.flatnonzero(model.alphas_ == model.alpha_)
    own = model.coefs_paths_[:, 0, won]
    np.testing.assert_allclose(model.coef_, own[..., :-1].mean(axis=0))
    np.testing.assert_allclose(model.intercept_, own[..., -1].mean(axis=0))


def test_accuracy_may_choose() -> None:
    X, y = np.random.default_rng(0).normal(size=(90, 3)), np.arange(90) % 3
    model = SoftmaxRegressionCV(4, cv=3, random_state=0, scoring="accuracy").fit(X, y)
    assert ((model.scores_ >= 0) & (model.scores_ <= 1)).all()
    means = model.scores_.mean(axis=(0, 1))
    assert model.alpha_ == model.alphas_[means.argmax()]
    assert model.converged_.all()  # nothing is ruled out by an accuracy
