"""What a search must not get wrong, each found by looking for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_iris
from sklearn.exceptions import ConvergenceWarning

from dsoftmax import CheckpointError, SoftmaxRegression, SoftmaxRegressionCV
from dsoftmax.data.folds import UserFolds
from dsoftmax.model_selection import memory
from dsoftmax.objective.reduction import Chunk
from tests.model_selection.problems import scaled_features

X, Y = load_iris(return_X_y=True)
GROUPS = np.arange(150) % 3


def search(**params: Any) -> SoftmaxRegressionCV:
    return SoftmaxRegressionCV(**{"alphas": [1e-3, 0.1], "random_state": 0} | params)


@pytest.mark.parametrize("solver", ["newton", "lbfgs"])
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_no_budget_is_too_small_for_a_model_that_was_found(solver: str) -> None:
    for budget in range(3, 9):
        model = search(cv=3, prune=False, max_iter=budget, solver=solver).fit(X, Y)
        assert model.n_iter_ <= budget
        assert np.isfinite(model.loss_)
        assert model.score(X, Y) > (0.9 if solver == "newton" else 0.5)


def test_candidates_leave_a_part_of_the_budget_to_the_winner() -> None:
    model = search(alphas=[1e-9, 0.1], cv=3, prune=False, max_iter=12, tol=1e-6, sample_size=30)
    with pytest.warns(ConvergenceWarning, match="budget"):
        model.fit(X, Y)
    assert not model.converged_.all()
    (won,) = np.flatnonzero(model.alphas_ == model.alpha_)
    models = model.coefs_paths_[:, 0, won, :, :-1].mean(axis=0)
    assert not np.allclose(model.coef_, models)  # it went on from there, with all rows


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_an_outlier_does_not_keep_the_model_from_its_minimum_that_never_learns_of_it(
    dtype: str,
) -> None:
    Z = X.copy()
    Z[6, 2:] = -9999
    Z = Z.astype(dtype)
    model = search(cv=GROUPS, prune=False, tol=1e-6, max_iter=16, refit=False).fit(Z, Y)
    alone = SoftmaxRegression(1e-3, tol=1e-6).fit(Z[GROUPS != 0], Y[GROUPS != 0])
    assert model.objectives_[0, 0, 1] == pytest.approx(alone.loss_, rel=1e-6)


@pytest.mark.parametrize("size", [1e-50, 1e39])
def test_only_the_proportions_of_weights_matter_to_a_choice(size: float) -> None:
    expected = search(cv=3).fit(X.astype("f4"), Y)
    model = search(cv=3).fit(X.astype("f4"), Y, np.full(150, size))
    np.testing.assert_allclose(model.scores_, expected.scores_, rtol=1e-3)
    assert model.alpha_ == expected.alpha_


def test_a_checkpoint_is_not_that_of_other_folds(tmp_path: Path) -> None:
    search(cv=GROUPS, checkpoint=tmp_path).fit(X, Y)
    other = np.random.default_rng(0).permutation(GROUPS)
    with pytest.raises(CheckpointError, match="other labels or weights"):
        search(cv=other, checkpoint=tmp_path).fit(X, Y)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("validation", [False, True], ids=["folds", "apart"])
def test_a_budget_that_ends_among_the_reads_of_a_round_changes_no_bits_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, validation: bool
) -> None:
    monkeypatch.setattr(memory, "_STACK_BYTES", (2 if validation else 5) * 8 * 5 * 3)
    alphas = [1e-2, 0.1, 1.0]
    params: dict[str, Any] = {"alphas": alphas, "prune": False, "sample_size": 60, "tol": 1e-3}
    params["cv"] = None if validation else 3
    data: dict[str, Any] = {"X_val": X[::2], "y_val": Y[::2]} if validation else {}
    whole = search(max_iter=200, **params).fit(X, Y, **data)
    for budget in range(1, 7):
        place = tmp_path / str(budget)
        early = search(max_iter=budget, checkpoint=place, **params).fit(X, Y, **data)
        assert np.isfinite(early.scores_).all()
        later = search(max_iter=200, checkpoint=place, **params).fit(X, Y, **data)
        assert later.coefs_paths_.tobytes() == whole.coefs_paths_.tobytes()
        assert later.scores_.tobytes() == whole.scores_.tobytes()


def test_the_winner_is_followed_to_its_minimum() -> None:
    for seed in range(5):
        rng = np.random.default_rng(seed)
        y = rng.integers(0, 3, 150)
        Z = rng.normal(size=(150, 4)) + rng.normal(size=(3, 4))[y] * 2
        model = search(alphas=[0.1, 1e-6], cv=3, refit=False, max_iter=300).fit(Z, y)
        (won,) = np.flatnonzero(model.alphas_ == model.alpha_)
        assert model.converged_[:, 0, won].all()


def test_forty_thousand_folds_have_numbers_of_their_own() -> None:
    names = np.arange(40_000)
    chunk = Chunk(np.empty((40_000, 0)), np.zeros(40_000, int), None, 0)
    np.testing.assert_array_equal(UserFolds(names).of(chunk, names), names)


def test_few_rows_in_folds_rule_out_little() -> None:
    X, y = scaled_features(3, rows=3000)
    cv = np.where(np.arange(3000) < 60, np.arange(3000) % 2, -1)
    few = search(alphas=6, cv=cv, tol=1e-3).fit(X, y)
    whole = search(alphas=6, cv=cv, tol=1e-3, prune=False).fit(X, y)
    assert few.alpha_ == whole.alpha_
