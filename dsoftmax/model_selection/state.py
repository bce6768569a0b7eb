"""The state of a search, as data: what its checkpoint holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Self

import numpy as np

from dsoftmax.events import CandidatesJudged
from dsoftmax.model_selection.models import PathModel, has_moved, mean_of, reached
from dsoftmax.model_selection.path import Candidates, by_fold
from dsoftmax.model_selection.sums import FoldMoments
from dsoftmax.objective.importance_sample import ImportanceSample
from dsoftmax.solvers.base import FullBatchState, Status
from dsoftmax.storage.records import storable
from dsoftmax.training.run_state import FittedModel, RunState
from dsoftmax.typing import Array


@storable
@dataclass(frozen=True)
class SearchState(RunState):
    """The state of a search.

    Attributes
    ----------
    first : moments of the features, once they are read
    sample : the rows in memory
    states : of the solver of each model: those of all candidates and folds, then the full-data
        models, and last the winner on all rows once it is known
    scores : (n_models, 3), of the models of all candidates and folds: mean loss and accuracy on
        held-out rows, and accuracy on the rows that the model learns from; NaN where not known
    ahead : the candidates whose full-data model is still ahead of their fold models
    one_step : the fold models that one more step may take to their minima
    before_budget : the state before the budget stopped the full-data models early: a larger budget
        goes on from there, to the bits that it would have come to from the start
    pilot : the model that is ahead of all candidates, if one is
    n_active : how many models take part in the current round; None between rounds
    waiting : the active models that the current round has still to read for
    resampled : whether the current round has put other rows into memory
    chosen : the candidate that has won, once it is fitted to all rows
    done : whether the search is over
    """

    first: FoldMoments | None = None
    sample: ImportanceSample | None = None
    states: tuple[FullBatchState, ...] = ()
    scores: Array = field(default_factory=lambda: np.empty((0, 3)))
    ahead: tuple[int, ...] = ()
    one_step: tuple[int, ...] = ()
    before_budget: SearchState | None = None
    pilot: int | None = None
    n_active: int | None = None
    waiting: tuple[int, ...] = ()
    resampled: bool = False
    chosen: int | None = None
    done: bool = False

    @property
    def is_worth_keeping(self) -> bool:
        """Whether anything was computed yet."""
        return self.first is not None or self.partial_sum is not None

    @property
    def finished(self) -> bool:
        """Whether the search is over."""
        return self.done

    @property
    def n_models(self) -> int:
        """How many models there are of all candidates and folds."""
        return len(self.scores)

    @property
    def running(self) -> tuple[int, ...]:
        """The models that are neither at their minima nor stopped."""
        statuses = enumerate(state.status for state in self.states)
        return tuple(index for index, status in statuses if status is Status.RUNNING)

    @property
    def out_of_budget(self) -> bool:
        """Whether the budget has stopped any model, so that a larger one lets it go on."""
        return self.is_spent or (self.before_budget is not None and not self.done)

    @property
    def is_spent(self) -> bool:
        """Whether the budget has stopped models that the result is made of."""
        return any(state.status is Status.BUDGET for state in self.states)

    def reopened(self) -> SearchState:
        """Return the state before the budget was spent."""
        if (before := self.before_budget) is not None:
            return replace(before, progress=self.progress, numerics=self.numerics, n_active=None)
        states = self.all_as(Status.BUDGET, Status.RUNNING).states
        opened = replace(
            self, states=states, partial_sum=None, waiting=(), done=False, n_active=None
        )
        tried = states[: self.n_models]
        if self.chosen is None or all(state.status is not Status.RUNNING for state in tried):
            return opened
        # Another candidate may win, when all of them have come to their ends.
        return replace(opened, states=states[:-1], chosen=None)

    def spent(self) -> Self:
        """Return the state in which the budget has stopped all models."""
        return replace(self.all_as(Status.RUNNING, Status.BUDGET), waiting=(), n_active=None)

    def all_as(self, before: Status, after: Status) -> Self:
        """Return the state with another status for all models of one status."""
        states = (
            replace(state, status=after) if state.status is before else state
            for state in self.states
        )
        return replace(self, states=tuple(states))

    def with_state(self, index: int, state: FullBatchState) -> Self:
        """Return the state with another solver state for a model."""
        return replace(self, states=(*self.states[:index], state, *self.states[index + 1 :]))

    def with_scores(self, models: int | Sequence[int], scores: Sequence[object]) -> Self:
        """Return the state with other scores for some models; the first columns if few are given.

        Parameters
        ----------
        models : one model, or some
        scores : of shape (n_scores,) or (n_models, n_scores)
        """
        after, new = self.scores.copy(), np.array(scores, dtype=np.float64)
        after[models, : new.shape[-1]] = new
        return replace(self, scores=after)

    def without_scores(self, models: Sequence[int]) -> Self:
        """Return the state that does not know the held-out loss and accuracy of some models."""
        return self.with_scores(models, (np.nan, np.nan))

    def by_fold(self, values: Array, candidates: Candidates) -> Array:
        """Return one number per model as (n_folds, n_candidates)."""
        return by_fold(values, self.n_models // len(candidates.pairs))

    def models_of(
        self, models: Sequence[PathModel], candidate: int
    ) -> tuple[list[PathModel], list[FullBatchState]]:
        """Return the models of a candidate in all folds, and the states of their solvers."""
        indexes = [i for i in range(self.n_models) if models[i].candidate == candidate]
        return [models[i] for i in indexes], [self.states[i] for i in indexes]


def judged_so_far(state: SearchState, candidates: Candidates) -> CandidatesJudged:
    """Return how all candidates stand."""
    losses, accuracies = (state.by_fold(state.scores[:, i], candidates) for i in (0, 1))
    means = losses.mean(axis=0)
    best = 0 if np.isnan(means).all() else int(np.nanargmin(means))
    statuses = [solver_state.status for solver_state in state.states[: state.n_models]]
    running, lost = (
        state.by_fold(np.array([status is wanted for status in statuses]), candidates)
        for wanted in (Status.RUNNING, Status.RULED_OUT)
    )
    alphas, l1_ratios = zip(*candidates.pairs, strict=True)
    return CandidatesJudged(
        alphas,
        l1_ratios,
        tuple(means.tolist()),
        tuple((losses.std(axis=0) / max(len(losses) - 1, 1) ** 0.5).tolist()),
        tuple(accuracies.mean(axis=0).tolist()),
        tuple(running.sum(axis=0).tolist()),
        tuple(map(any, lost.T.tolist())),
        best if state.chosen is None else state.chosen,
    )


def fitted_winner(
    state: SearchState, models: Sequence[PathModel], winner: int, *, interrupted: bool
) -> FittedModel:
    """Return the winner on all rows, or else the mean of its fold models."""
    if state.chosen is not None and has_moved(models[-1], state.states[-1]):
        used, states = [models[-1]], [state.states[-1]]
    else:
        used, states = state.models_of(models, winner)
    # Of several fold models, one that has not converged says why.
    status = max((each.status for each in states), key=lambda status: not status.converged)
    if interrupted:
        status = Status.INTERRUPTED
    elif state.is_spent:
        status = Status.BUDGET
    points, values = zip(*map(reached, used, states), strict=True)
    gap = used[0].solver.gap(states[0]) if len(used) == 1 else None
    # The mean of models of folds was not evaluated, nor was the minimum of a sample.
    evaluated = len(used) == 1 and points[0] is states[0].point
    loss = float(np.mean(values))
    return FittedModel(*mean_of(used, states), loss, gap, status, None, evaluated)
