"""The models of a search: a candidate's penalty, and the rows that it learns from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from dsoftmax.model_selection.memory import n_pairs
from dsoftmax.model_selection.moments import FoldMoments
from dsoftmax.objective.objective import LEAST_SHARE, Objective, build_objective
from dsoftmax.objective.reduction import ALL
from dsoftmax.objective.scaling import Coordinates, Moments
from dsoftmax.solvers import Kind
from dsoftmax.solvers.base import FullBatchState, Solver
from dsoftmax.solvers.lbfgs import LBFGS
from dsoftmax.solvers.newton import Newton
from dsoftmax.solvers.newton_state import NewtonState
from dsoftmax.training.params import FitParams
from dsoftmax.typing import Array

_EFFORT = 0.5
_LAST_EFFORT = 0.4
_OTHER_SIZE = 2.0


@dataclass(frozen=True)
class PathModel:
    """One model of the stack.

    Attributes
    ----------
    candidate : index of its penalty among the candidates
    fold : that it does not learn from, or ALL
    objective : on the rows that it learns from
    whole : the objective of the same penalty on all rows, in the same coordinates; None where the
        features of the rows that it learns from are of another size
    solver : Solver
    """

    candidate: int
    fold: int
    objective: Objective
    whole: Objective | None
    solver: Solver[Any]


def _objectives(
    first: FoldMoments, n_rows: int, params: FitParams, dtype: np.dtype[np.floating], fold: int
) -> tuple[Objective, Objective | None]:
    """Return the objective on the rows without a fold, and on all, in the same coordinates.

    So what is known of the features of the sample serves the models of all folds. Without a fold
    that has other units, say, or outliers, features are in coordinates of their own.
    """

    def build(moments: Moments, coordinates: Coordinates | None) -> Objective:
        return build_objective(
            moments,
            class_weight=moments.class_weight,
            n_rows=n_rows,
            alpha=params.alpha,
            l1_ratio=params.l1_ratio,
            fit_intercept=params.fit_intercept,
            standardize=params.standardize,
            scaled=True,
            dtype=dtype,
            coordinates=coordinates,
        )

    whole = build(first.without(ALL), None)
    if fold == ALL:
        return whole, whole
    alone = build(first.without(fold), None).coordinates
    ratio = alone.scale / whole.coordinates.scale
    if ratio.max(initial=1.0) <= _OTHER_SIZE and ratio.min(initial=1.0) >= 1 / _OTHER_SIZE:
        return build(first.without(fold), whole.coordinates), whole
    # The kernel takes the same rows for all models.
    own = replace(alone, shift=whole.coordinates.shift)
    return build(first.without(fold), own), None


def unhurried(member: PathModel, n_heads: int) -> Solver[Any]:
    """Return a member's solver for when few are left: what it is for one model."""
    solver = member.solver
    if not isinstance(solver, Newton):
        return solver
    alone = solver.alone or (n_heads == 1 and member.fold == ALL)
    return replace(solver, backtrack=True, effort=1.0, alone=alone)


def for_last_step(solver: Solver[Any]) -> Solver[Any]:
    """Return a member's solver for a step that is short."""
    return replace(solver, effort=_LAST_EFFORT) if isinstance(solver, Newton) else solver


def build_members(
    pairs: Sequence[tuple[float, float]],
    folds: Sequence[int],
    first: FoldMoments,
    n_rows: int,
    params: FitParams,
    kind: Kind,
    dtype: np.dtype[np.floating],
    n_states: int = 1,
) -> list[PathModel]:
    """Return a model for each pair of alpha and l1_ratio, and each fold that is left out.

    Those of a pair are next to each other. `n_states` says how many share memory and time.
    """
    members = []
    for index, (alpha, l1_ratio) in enumerate(pairs):
        for fold in folds:
            own = replace(params, alpha=alpha, l1_ratio=l1_ratio)
            objectives = _objectives(first, n_rows, own, dtype, fold)
            solver = kind.from_params(own.for_solver(objectives[0], n_rows, n_rows))
            members.append(PathModel(index, fold, *objectives, solver))
    return [replace(member, solver=_modest(member, n_states)) for member in members]


def _modest(member: PathModel, n_states: int) -> Solver[Any]:
    """Return a member's solver that leaves the others their share of memory and time.

    Searches are half as long, and a pass evaluates one point each: the second one that is cheap
    for one model doubles what many take, and brought nothing to them. They keep their rows in
    memory, which are those of no single one.
    """
    solver, size = member.solver, member.objective.intercept_only.size
    if isinstance(solver, Newton) and n_states > 1:
        memory = n_pairs(type(solver), size, n_states)
        return replace(solver, backtrack=False, memory=memory, effort=_EFFORT, alone=False)
    if isinstance(solver, LBFGS):
        return replace(solver, memory=n_pairs(type(solver), size, n_states))
    return solver


def score_of_intercepts(member: PathModel, first: FoldMoments) -> tuple[float, float, float]:
    """Return how a member stands that knows how frequent the classes are, and no more.

    Returns
    -------
    mean loss and accuracy on the rows that judge it, and accuracy on those that it learns from
    """
    objective = member.objective
    share = objective.class_share
    if member.fold == ALL:
        return np.nan, np.nan, float(share.max())
    p = share if objective.fit_intercept else np.full(len(share), 1 / len(share))
    judging = first.judging[member.fold] / first.judging[member.fold].sum()
    loss = -float(judging @ np.log(np.maximum(p, LEAST_SHARE)))
    return loss, float(judging[p.argmax()]), float(share[p.argmax()])


def started(member: PathModel, point: Array) -> FullBatchState:
    """Return the state of a member's solver at a point."""
    objective = member.objective
    state: FullBatchState = member.solver.start(
        point, objective.at_intercept_only, objective.intercept_only
    )
    return state


def carried(point: Array, before: PathModel, after: PathModel) -> Array:
    """Return a point of one model in the coordinates of another, as it is where they are equal."""
    old, new = before.objective.coordinates, after.objective.coordinates
    if np.array_equal(old.scale, new.scale) and np.array_equal(old.centre, new.centre):
        return point
    return new.from_coefficients(*old.to_coefficients(point))


def reached(member: PathModel, state: FullBatchState) -> tuple[Array, float]:
    """Return the point at which a model is, and its objective there.

    For one of all rows that was never evaluated on them, they are the sample's.
    """
    guess = guess_of_sample(member, state) if member.fold == ALL else None
    return guess or (state.point, state.value)


def guess_of_sample(member: PathModel, state: FullBatchState) -> tuple[Array, float] | None:
    """Return where the sample alone has its minimum, and what it is; None if that is not known."""
    if isinstance(member.solver, Newton) and isinstance(state, NewtonState):
        return member.solver.guess_of_sample(state)
    return None


def has_moved(member: PathModel, state: FullBatchState) -> bool:
    """Whether a model was ever evaluated but at the intercepts alone."""
    start = member.objective.intercept_only
    return bool(np.isfinite(state.value)) and not np.array_equal(state.point, start)


def mean_of(members: Sequence[PathModel], states: Sequence[FullBatchState]) -> tuple[Array, Array]:
    """Return the coefficients and intercepts of some models in the mean, in units of the data."""
    pairs = zip(members, states, strict=True)
    found = [member.objective.coefficients(reached(member, state)[0]) for member, state in pairs]
    coef, intercept = (np.mean(part, axis=0) for part in zip(*found, strict=True))
    return coef, intercept
