"""Racing: candidates that cannot win any more are eliminated before they converge.

Hoeffding races (Maron and Moore, 1994) bound how much an average over few rows can still change.
Here all held-out rows are known at every pass, and what changes is the model: the bound is on how
much its held-out loss can change until it is at its minimum.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from dsoftmax.model_selection.models import PathModel, minimum_of_sample
from dsoftmax.model_selection.path import by_fold
from dsoftmax.model_selection.state import SearchState
from dsoftmax.solvers.base import FullBatchState, Status
from dsoftmax.solvers.newton_state import NewtonState
from dsoftmax.typing import Array

_ROWS_A_COEFFICIENT = 4  # of the sample: with fewer, a step in memory is not trusted
TRUSTED_RATIO = 0.5  # of the gain of a step to the gain that the solver had expected of it


@dataclass(frozen=True)
class Racing:
    """Eliminates candidates, and takes them back.

    Attributes
    ----------
    models : of all candidates and folds, and then the full-data models
    n_folds : 1 for a validation set
    select : as for `chosen`
    n_used : how many rows count
    n_validation : how many rows a validation set has; None if folds judge
    """

    models: Sequence[PathModel]
    n_folds: int
    select: str
    n_used: int
    n_validation: int | None

    def at_minima_of_sample(self, state: SearchState) -> SearchState:
        """Return the state with all candidates eliminated at their minima of the sample.

        Their gaps are bounds on how far these points are above the minima for all rows, so that
        `eliminated` takes back all candidates that can still win.
        """
        assert state.sample is not None, "it was searched"
        for index, model in enumerate(self.models):
            solver_state = state.states[index]
            if isinstance(solver_state, NewtonState) and minimum_of_sample(model, solver_state):
                n_free = degrees_of_freedom(model, solver_state)
                gap = gap_of_a_sample(n_free, effective(state.sample.weight[0]))
                state = state.with_state(index, replace(solver_state, distance=gap))
        return state.all_as(Status.RUNNING, Status.RULED_OUT)

    def raced(self, state: SearchState) -> SearchState:
        """Return the state after candidates are eliminated that cannot win, or taken back."""
        losses = by_fold(state.scores[:, 0], self.n_folds)
        lost = eliminated(-losses, self._score_bounds(state), self.select)
        for index, model in enumerate(self.models):
            if index >= state.n_models and model.candidate not in state.ahead:
                continue
            solver_state, loses = state.states[index], lost[model.candidate]
            if solver_state.status is Status.RUNNING and loses:
                state = state.with_state(index, replace(solver_state, status=Status.RULED_OUT))
            elif solver_state.status is Status.RULED_OUT and not loses:
                # The best candidate may overfit as it converges, so that others can win again.
                state = state.with_state(index, replace(solver_state, status=Status.RUNNING))
        return state

    def _score_bounds(self, state: SearchState) -> Array:
        """Return the bounds of `score_bound` for all models, as (n_folds, n_candidates)."""
        assert state.first is not None, "it was read"
        bounds, n_free = [], 0.0
        for index, model in enumerate(self.models[: state.n_models]):
            solver_state = state.states[index]
            if index % self.n_folds == 0:
                n_free = degrees_of_freedom(model, solver_state)  # about the same in all folds
            rows, gap = self._n_rows(state, model.fold), model.solver.gap(solver_state)
            bounds.append(score_bound(gap, n_free, *rows, self._share_seen(state, index)))
        return by_fold(np.array(bounds), self.n_folds)

    def _n_rows(self, state: SearchState, fold: int) -> tuple[int, int]:
        """Return how many rows a model learns from, and how many judge it, by their weight."""
        if self.n_validation is not None:
            return max(self.n_used, 1), max(self.n_validation, 1)
        assert state.first is not None, "it was read"
        judging = state.first.judging
        n_judging = int(judging[fold].sum() / judging.sum() * self.n_used)
        return max(self.n_used - n_judging, 1), max(n_judging, 1)

    def _share_seen(self, state: SearchState, index: int) -> float:
        """Return the share of the rows judging a model that its point was learned from.

        It is 1 while the fold model is at the point of its full-data model, and 0 afterwards.
        """
        candidate = self.models[index].candidate
        full = state.n_models + candidate
        if full >= len(self.models) or candidate in state.ahead:
            return float(candidate in state.ahead)
        return float(np.array_equal(state.states[index].point, state.states[full].point))

    def is_short(self, state: SearchState, index: int) -> bool:
        """Whether the next step of a fold model gains no more than leaving out a fold can.

        It gains twice the share of the rows left out, of half the degrees of freedom over the
        number of rows, at most. And the sample has to be large enough to be trusted, and the last
        step of the full-data model to have gained about what the solver expected.
        """
        model, solver_state = self.models[index], state.states[index]
        guess = model.solver.guess(solver_state)
        assert isinstance(solver_state, NewtonState)
        assert state.sample is not None, "it was searched"
        if guess is None or model.full_objective is None or solver_state.underdetermined:
            return False
        height, width = solver_state.point.shape
        if state.sample.n_rows < _ROWS_A_COEFFICIENT * height * max(width - 1, 1):
            return False
        n_learned, n_judging = self._n_rows(state, model.fold)
        n_free, share = degrees_of_freedom(model, solver_state), n_judging / (n_learned + n_judging)
        is_small = guess[2] <= 2 * share * gap_of_a_sample(n_free, n_learned)
        return is_small and solver_state.gain_ratio >= TRUSTED_RATIO


def degrees_of_freedom(model: PathModel, state: FullBatchState) -> float:
    """Return how many coefficients a model has, as far as its penalty leaves them free.

    The trace of H (H + A)^-1, where A is the curvature of the penalty and H that of the loss, the
    same for each class (Hastie, Tibshirani and Friedman, The Elements of Statistical Learning,
    2009, section 7.6). H is the metric of a search, which some noise makes larger than it is.
    Without a metric, and under an L1 penalty, all coefficients count as free.
    """
    height, width = state.point.shape
    n_free = float(height)
    penalty = model.objective.penalty
    if isinstance(state, NewtonState) and state.root is not None:
        curvature = penalty.alpha * (1 - penalty.l1_ratio) * penalty.unit[:, 0] ** 2
        variance = np.square(state.root[:, :-1]).sum(axis=0)  # the diagonal of (H + A)^-1
        n_free -= float(curvature @ variance)
    return float(max(n_free, 1.0) * max(width - 1, 1))


def eliminated(scores: Array, bounds: Array, select: str) -> Array:
    """Return which candidates cannot win any more, as (n_candidates,).

    Parameters
    ----------
    scores : array of shape (n_folds, n_candidates)
        Minus the mean held-out losses, so far.
    bounds : array of the same shape
        On how much these may still change, see `score_bound`.
    select : as for `chosen`
    """
    means, bounds = scores.mean(axis=0), bounds.mean(axis=0)
    sure = means - bounds
    best = int(np.argmax(np.where(np.isfinite(sure), sure, -np.inf)))
    error = scores[:, best].std(ddof=1) / np.sqrt(len(scores)) if select == "1se" else 0.0
    return np.asarray(means + bounds < sure[best] - error)


def score_bound(
    gap: float | None, n_free: float, n_learned: int, n_judging: int, seen: float = 0.0
) -> float:
    """Return a bound on how much the held-out loss changes until a model is at its minimum.

    Parameters
    ----------
    gap : estimate of how far the objective is above its minimum, or None
    n_free : number of coefficients, see `degrees_of_freedom`
    n_learned, n_judging : how many rows the model learns from, and how many are held out
    seen : share of the held-out rows that the present point was learned from

    Notes
    -----
    Near the minimum a loss is a quadratic form. With a gap g, the expected loss changes by at most
    g + 2 (g u)^(1/2), where u is how far the minimum for the rows learned from is above the minimum
    of the expected loss (Cauchy and Schwarz, in the metric of the Hessian): half the number of free
    coefficients over that of rows (Wilks, 1938). The rest of the way does not depend on the
    held-out rows. So their mean differs from the expectation by at most three standard errors of a
    difference with the variance 2 g. Where the point was learned from a share s of the held-out
    rows, their gradient cancels that of the other rows, which adds another 2 (g u s r)^(1/2), with
    r rows learned from for each that is held out.
    """
    if gap is None:
        return float("inf")
    uncertain = n_free / (2 * n_learned)
    slope = 1 + np.sqrt(seen * n_learned / n_judging)
    chance = 3 * np.sqrt(2 * gap / n_judging)
    return float(gap + 2 * np.sqrt(gap * uncertain) * slope + chance)


def gap_of_a_sample(n_free: float, n_rows: float) -> float:
    """Return how far the minimum of a sample is above that of all rows, at most.

    By Wilks' theorem, twice the number of rows times this gap has a chi-squared distribution with
    as many degrees of freedom as there are free coefficients. The bound is three standard
    deviations above its mean.
    """
    return float(n_free + 3 * np.sqrt(2 * n_free)) / (2 * n_rows)


def effective(weight: Array) -> float:
    """Return the effective number of weighted rows (Kish, Survey Sampling, 1965)."""
    return float(weight.sum()) ** 2 / float(weight @ weight)
