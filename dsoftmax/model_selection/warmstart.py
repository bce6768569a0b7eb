"""Warm starts: which models go ahead, and where the others start.

The fold models of a candidate differ only by the rows of one fold, so their minima are close to
each other. With Newton's method, a full-data model goes ahead of them: it learns from all rows, and
each read also finds the objectives of the fold models at its point. The fold models start there,
as soon as its gap is small against theirs.

The candidates differ only by their penalties. With a validation set, one of them is the pilot: it
takes the first passes alone. The loss and the gradient at its point are the same for all
candidates, up to the penalty, so that the others can start there without a read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from dsoftmax.model_selection.models import PathModel, carried, minimum_of_sample
from dsoftmax.model_selection.state import SearchState
from dsoftmax.objective.evaluation import Evaluation
from dsoftmax.solvers.base import FullBatchState, Status
from dsoftmax.solvers.newton import Newton
from dsoftmax.solvers.newton_state import NewtonState
from dsoftmax.typing import Array

PILOT_PASSES = 2
_SMALL_GAP = 0.1  # of the full-data model, against the mean gap of its fold models
_GRADIENT_LEFT = 1 / 3  # of its gradient at the warm start, when a fold model converges


@dataclass(frozen=True)
class Roles:
    """Tells which models are active, and which follow another one.

    Attributes
    ----------
    models : of all candidates and folds; then the full-data models of the first candidates, if
        there are any; and last the winner on all rows, once it is known
    n_models : how many are those of all candidates and folds
    n_folds : of each candidate
    """

    models: Sequence[PathModel]
    n_models: int
    n_folds: int

    def active(self, state: SearchState) -> tuple[int, ...]:
        """Return the models that run and do not follow another one."""
        if state.chosen is not None:
            active: Sequence[int] = [len(state.states) - 1]
        elif state.pilot is not None:
            active = [state.pilot]
        else:
            ahead = [self.n_models + candidate for candidate in state.ahead]
            following = {index for full in ahead for index in self.fold_models(state, full)}
            active = [*(i for i in range(self.n_models) if i not in following), *ahead]
        return tuple(i for i in active if state.states[i].status is Status.RUNNING)

    def fold_models(self, state: SearchState, index: int) -> tuple[int, ...]:
        """Return the fold models that follow a model: none, unless it is a full-data model.

        Fold models that have converged at the intercepts do not follow: they have nothing to learn.
        Nor do those that must not know a class which the full-data model has learned.
        """
        first = (index - self.n_models) * self.n_folds
        if state.chosen is not None or first < 0:
            return ()
        known = self.models[index].objective.class_share > 0
        return tuple(
            fold_model
            for fold_model in range(first, first + self.n_folds)
            if state.states[fold_model].status is not Status.CONVERGED
            and np.array_equal(self.models[fold_model].objective.class_share > 0, known)
        )

    def full_data_active(self, state: SearchState) -> bool:
        """Whether any full-data model is active."""
        return state.chosen is None and any(i >= self.n_models for i in self.active(state))

    def with_fold_models_started(self, state: SearchState) -> SearchState:
        """Return the state in which fold models are on their own if that pays now."""
        if state.chosen is not None:
            return state
        near = [candidate for candidate in state.ahead if self._is_near(state, candidate)]
        return self.without_full_data(state, near)

    def without_full_data(self, state: SearchState, candidates: Sequence[int]) -> SearchState:
        """Return the state in which the fold models of some candidates are on their own.

        The rows that judge a fold model were among those of the full-data model. The gradient of
        the fold model at the warm start is due to them alone, so it has to fall to a third, and to
        `tol`. If it is within `tol` at the start, one step may be enough (approximate
        cross-validation: Wilson, Kasy and Mackey, 2020), see `Racing.is_short`.
        """
        one_step = list(state.one_step)
        for candidate in candidates:
            for index in self.fold_models(state, self.n_models + candidate):
                start = state.states[index]
                if start.gradient_norm <= start.target:
                    one_step.append(index)
                target = min(start.target, _GRADIENT_LEFT * start.gradient_norm)
                state = state.with_state(index, replace(start, target=target))
        ahead = tuple(candidate for candidate in state.ahead if candidate not in candidates)
        return replace(state, ahead=ahead, one_step=tuple(one_step))

    def _is_near(self, state: SearchState, candidate: int) -> bool:
        """Whether a full-data model is so near its minimum that its fold models should start."""
        full = self.n_models + candidate
        if (status := state.states[full].status) is not Status.RUNNING:
            return status is not Status.RULED_OUT  # an eliminated one may still come back
        gap = self.models[full].solver.gap(state.states[full])
        gaps = (self.models[i].solver.gap(state.states[i]) for i in self.fold_models(state, full))
        known = [each for each in gaps if each is not None]
        return gap is not None and bool(known) and gap <= _SMALL_GAP * float(np.mean(known))


def followed(
    model: PathModel,
    before: FullBatchState,
    full: PathModel,
    ahead: FullBatchState,
    known: Evaluation,
) -> FullBatchState:
    """Return the state of a fold model at the point of its full-data model.

    Parameters
    ----------
    model, before : the fold model, and its state
    full, ahead : the full-data model, and its state
    known : the objective of the fold model at that point
    """
    assert isinstance(model.solver, Newton)
    assert isinstance(before, NewtonState)
    assert isinstance(ahead, NewtonState)
    # What the full-data model has learned about curvature holds only in its own coordinates.
    base = before if model.full_objective is None else replace(ahead, target=before.target)
    return model.solver.moved(base, carried(ahead.point, full, model), known)


def piloted(
    model: PathModel, state: FullBatchState, pilot: PathModel, ahead: FullBatchState
) -> FullBatchState:
    """Return the state of a candidate at the point of the pilot, if that is a better start.

    Parameters
    ----------
    model, state : the candidate, which knows the minimum of the sample
    pilot, ahead : the pilot, and its state
    """
    assert isinstance(model.solver, Newton)
    if not (isinstance(state, NewtonState) and isinstance(ahead, NewtonState)):
        return state
    point = carried(ahead.point, pilot, model)
    moved = model.solver.moved(state, point, _objective_at(model, point, pilot, ahead))
    if moved.gradient_norm <= moved.target:
        return replace(moved, status=Status.CONVERGED)
    if moved.value > state.value:
        return state
    # By Wilks' theorem, the objective on all rows at the minimum of the sample is as far above its
    # minimum as the objective on the sample is below.
    minimum = minimum_of_sample(model, state)
    is_better = minimum is None or moved.value <= minimum[1] + 2 * state.distance
    return moved if is_better else state


def _objective_at(
    model: PathModel, point: Array, pilot: PathModel, ahead: NewtonState
) -> Evaluation:
    """Return a candidate's objective at the point of the pilot: both have the same loss."""
    penalty, of_pilot = model.objective.penalty, pilot.objective.penalty
    value, gradient = of_pilot.l2_value_gradient(ahead.point)
    loss = ahead.value - value - of_pilot.l1_value(ahead.point)
    slope = ahead.gradient - gradient
    scale, scale_of_pilot = model.objective.coordinates.scale, pilot.objective.coordinates.scale
    slope[:-1] *= (scale_of_pilot / scale)[:, None]
    value, gradient = penalty.l2_value_gradient(point)
    return Evaluation(np.array([loss + value]), (slope + gradient)[None], np.empty(0))
