"""Which candidates cannot win any more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from dsoftmax.model_selection.candidates import by_fold
from dsoftmax.model_selection.models import PathModel, guess_of_sample
from dsoftmax.model_selection.moments import FoldMoments
from dsoftmax.model_selection.state import SearchState
from dsoftmax.solvers.base import FullBatchState, Status
from dsoftmax.solvers.newton_state import NewtonState
from dsoftmax.typing import Array

_ROWS_A_COEFFICIENT = 4  # in memory, for their model to be believed


@dataclass(frozen=True)
class Pruning:
    """Rules candidates out, and takes them back.

    Attributes
    ----------
    members : those of the candidates, and then their leaders
    n_folds : of the scores
    select : as for `chosen`
    n_used : how many rows count
    n_apart : how many rows judge that are no part of those, or None where folds do
    """

    members: Sequence[PathModel]
    n_folds: int
    select: str
    n_used: int
    n_apart: int | None

    def is_first(self, run_state: SearchState) -> bool:
        """Whether no model was evaluated on all rows yet, but in memory."""
        return all(
            isinstance(state, NewtonState) and not state.rounds for state in run_state.states
        )

    def at_minima_of_sample(self, run_state: SearchState) -> SearchState:
        """Return the cursor in which all stand where the sample has their minima, ruled out."""
        assert run_state.sample is not None, "it was searched"
        for index, member in enumerate(self.members):
            state = run_state.states[index]
            if isinstance(state, NewtonState) and guess_of_sample(member, state):
                n_free = degrees_of_freedom(member, state)
                gap = gap_of_a_sample(n_free, effective(run_state.sample.weight[0]))
                run_state = run_state.with_state(index, replace(state, distance=gap))
        return run_state.all_as(Status.RUNNING, Status.RULED_OUT)

    def pruned(self, run_state: SearchState) -> SearchState:
        """Return the cursor in which those do not run that cannot win, as far as is known."""
        losses = by_fold(run_state.scores[:, 0], self.n_folds)
        lost = eliminated(-losses, self._doubts(run_state), self.select)
        n_tried = len(run_state.scores)
        for index, member in enumerate(self.members):
            state, goes = run_state.states[index], lost[member.candidate]
            if index >= n_tried and member.candidate not in run_state.led:
                continue
            if state.status is Status.RUNNING and goes:
                run_state = run_state.with_state(index, replace(state, status=Status.RULED_OUT))
            elif state.status is Status.RULED_OUT and not goes:
                # What was the best has become worse on its way to its minimum.
                run_state = run_state.with_state(index, replace(state, status=Status.RUNNING))
        return run_state

    def _doubts(self, run_state: SearchState) -> Array:
        """Return by how much losses on held-out rows may still change (n_folds, n_candidates)."""
        assert run_state.first is not None, "it was read"
        doubts, n_free = [], 0.0
        for index, member in enumerate(self.members[: len(run_state.scores)]):
            state = run_state.states[index]
            if index % self.n_folds == 0:
                n_free = degrees_of_freedom(member, state)  # about that of all of its folds
            n_learned, n_judging = self._n_rows(run_state.first, member.fold)
            gap, seen = member.solver.gap(state), self._seen(run_state, index)
            doubts.append(score_bound(gap, n_free, n_learned, n_judging, seen))
        return by_fold(np.array(doubts), self.n_folds)

    def _n_rows(self, first: FoldMoments, fold: int) -> tuple[int, int]:
        """Return how many rows a model learns from, and is judged by, by what they weigh."""
        if self.n_apart is not None:
            return max(self.n_used, 1), max(self.n_apart, 1)
        n_judging = int(first.judging[fold].sum() / first.judging.sum() * self.n_used)
        return max(self.n_used - n_judging, 1), max(n_judging, 1)

    def is_short(self, run_state: SearchState, index: int, gain: float) -> bool:
        """Whether a step gains about what it does to leave out the rows that judge a model.

        A part of the rows leaves half the degrees of freedom over their number uncertain, of which
        the share is left that the others do not know: twice that, at most. And the rows in memory
        are to tell so much.
        """
        assert run_state.first is not None, "it was read"
        assert run_state.sample is not None, "it was searched"
        member = self.members[index]
        n_learned, n_judging = self._n_rows(run_state.first, member.fold)
        n_free = degrees_of_freedom(member, run_state.states[index])
        share = n_judging / (n_learned + n_judging)
        height, width = run_state.states[index].point.shape
        if run_state.sample.n_rows < _ROWS_A_COEFFICIENT * height * max(width - 1, 1):
            return False
        return gain <= 2 * share * gap_of_a_sample(n_free, n_learned)

    def is_likely(
        self, run_state: SearchState, index: int, gain: float, means: tuple[float, float]
    ) -> bool:
        """Whether such a step changes the loss on held-out rows by no more than it could."""
        assert run_state.first is not None, "it was read"
        member = self.members[index]
        n_free = degrees_of_freedom(member, run_state.states[index])
        most = score_bound(gain, n_free, *self._n_rows(run_state.first, member.fold), seen=1.0)
        return bool(abs(means[0] - run_state.scores[index, 0]) <= most)

    def _seen(self, run_state: SearchState, index: int) -> float:
        """Return the share of a model's judges that it has learned from all the same.

        They were among the rows of its leader.
        """
        candidate = self.members[index].candidate
        at = len(run_state.scores) + candidate
        if at >= len(self.members) or candidate in run_state.led:
            return float(candidate in run_state.led)
        return float(np.array_equal(run_state.states[index].point, run_state.states[at].point))


def degrees_of_freedom(member: PathModel, state: FullBatchState) -> float:
    """Return how many coefficients a model has, as far as its penalty leaves them free.

    The trace of H (H + A)^-1, where A is the curvature of the penalty and H that of the loss, the
    same for each class (Hastie, Tibshirani and Friedman, The Elements of Statistical Learning,
    2009, section 7.6). H is the metric of a search, which some noise makes larger than it is.
    Without a metric, and under an L1 penalty, all are taken to be free.
    """
    height, width = state.point.shape
    n_free = float(height)
    penalty = member.objective.penalty
    if isinstance(state, NewtonState) and state.root is not None:
        own = penalty.alpha * (1 - penalty.l1_ratio) * penalty.unit[:, 0] ** 2
        variance = np.square(state.root[:, :-1]).sum(axis=0)  # the diagonal of (H + A)^-1
        n_free -= float(own @ variance)
    return float(max(n_free, 1.0) * max(width - 1, 1))


def eliminated(scores: Array, doubts: Array, select: str) -> Array:
    """Return which candidates cannot win any more (n_candidates,).

    Parameters
    ----------
    scores : array of shape (n_folds, n_candidates)
        Minus the mean losses on held-out rows, so far.
    doubts : array of the same shape
        By how much they may still change, see `doubt`.
    select : as for `chosen`
    """
    means, bounds = scores.mean(axis=0), doubts.mean(axis=0)
    sure = means - bounds
    best = int(np.argmax(np.where(np.isfinite(sure), sure, -np.inf)))
    error = scores[:, best].std(ddof=1) / np.sqrt(len(scores)) if select == "1se" else 0.0
    return np.asarray(means + bounds < sure[best] - error)


def score_bound(
    gap: float | None, n_free: float, n_learned: int, n_judging: int, seen: float = 0.0
) -> float:
    """Return by how much the mean loss on held-out rows may change until a model is at its minimum.

    Parameters
    ----------
    gap : by how much its objective is above that by estimate, or None
    n_free : of coefficients, see `degrees_of_freedom`
    n_learned, n_judging : of rows learned from, and of rows held out
    seen : share of the rows held out that have taken part in finding where the model is

    Notes
    -----
    Near the minimum a loss is a quadratic form. With a gap g, the change on all rows that there
    could be is at most g + 2 (g u)^(1/2), where u is how far the minimum for the rows learned from
    is above theirs (Cauchy and Schwarz, in the metric of the Hessian): half the number of free
    coefficients over that of rows (Wilks, 1938). What is left of the way does not know
    the rows held out, whose mean differs from that by three standard errors, at most, of a
    difference with the variance 2 g. Where a share s of the rows held out had a part in finding the
    point, the gradients of theirs and of the others' losses cancel there, which makes another
    2 (g u s r)^(1/2), with r rows learned from for each that judges.
    """
    if gap is None:
        return float("inf")
    uncertain = n_free / (2 * n_learned)
    slope = 1 + np.sqrt(seen * n_learned / n_judging)
    chance = 3 * np.sqrt(2 * gap / n_judging)
    return float(gap + 2 * np.sqrt(gap * uncertain) * slope + chance)


def gap_of_a_sample(n_free: float, n_rows: float) -> float:
    """Return by how much the minimum for a sample is above that for all rows, at most.

    Twice the number of rows times it has a chi-squared distribution, by Wilks' theorem, of as
    many degrees of freedom as there are free coefficients: here it is three standard deviations
    above its mean.
    """
    return float(n_free + 3 * np.sqrt(2 * n_free)) / (2 * n_rows)


def effective(weight: Array) -> float:
    """Return as how many rows those of unlike weights count (Kish, Survey Sampling, 1965)."""
    return float(weight.sum()) ** 2 / float(weight @ weight)
