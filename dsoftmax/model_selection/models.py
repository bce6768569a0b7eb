"""The models of a search: one for each penalty and each fold that is left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from dsoftmax.model_selection.memory import n_pairs
from dsoftmax.model_selection.sums import FoldMoments
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

_EFFORT = 0.5  # of a search in memory, where many models share the time
_OTHER_SCALE = 2.0  # from here on, the features of a fold model get coordinates of their own


@dataclass(frozen=True)
class PathModel:
    """One model of the regularisation path.

    Attributes
    ----------
    candidate : index of its penalty
    fold : that it does not learn from; ALL if it learns from all rows
    objective : on the rows that it learns from
    full_objective : of the same penalty on all rows, in the same coordinates; None where the
        coordinates differ, see `_objectives`
    solver : Solver
    """

    candidate: int
    fold: int
    objective: Objective
    full_objective: Objective | None
    solver: Solver[Any]


def build_models(
    pairs: Sequence[tuple[float, float]],
    folds: Sequence[int],
    first: FoldMoments,
    n_rows: int,
    params: FitParams,
    kind: Kind,
    dtype: np.dtype[np.floating],
    n_states: int = 1,
) -> list[PathModel]:
    """Return the models of each candidate in turn, one for each fold that is left out.

    Parameters
    ----------
    pairs : alpha and l1_ratio of each candidate
    folds : to leave out; ALL for a model of all rows
    first : moments of the features
    n_rows : how many rows there are
    params : of every model, but for its penalty
    kind : of the solvers
    dtype : of the kernel
    n_states : how many models share memory and time
    """
    models = []
    for index, (alpha, l1_ratio) in enumerate(pairs):
        for fold in folds:
            penalised = replace(params, alpha=alpha, l1_ratio=l1_ratio)
            objectives = _objectives(first, n_rows, penalised, dtype, fold)
            solver = kind.from_params(penalised.for_solver(objectives[0], n_rows, n_rows))
            solver = _sharing(solver, objectives[0].intercept_only.size, n_states)
            models.append(PathModel(index, fold, *objectives, solver))
    return models


def _objectives(
    first: FoldMoments, n_rows: int, params: FitParams, dtype: np.dtype[np.floating], fold: int
) -> tuple[Objective, Objective | None]:
    """Return the objective on the rows without a fold, and that on all rows.

    Both are in the coordinates of all rows, so that the metric of the sample serves the models of
    all folds. If the scale of a feature differs much without the fold, which has outliers or other
    units, the model gets coordinates of its own, and no objective on all rows.
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

    full = build(first.without(ALL), None)
    if fold == ALL:
        return full, full
    # One read serves all models, so the kernel has to do the same to the rows for all of them.
    coordinates = build(first.without(fold), None).coordinates.on_rows_of(full.coordinates.shift)
    ratio = coordinates.scale / full.coordinates.scale
    if ratio.max(initial=1.0) <= _OTHER_SCALE and ratio.min(initial=1.0) >= 1 / _OTHER_SCALE:
        return build(first.without(fold), full.coordinates), full
    return build(first.without(fold), coordinates), None


def _sharing(solver: Solver[Any], size: int, n_states: int) -> Solver[Any]:
    """Return a solver that leaves the other models their share of memory and time.

    A Newton solver searches half as long, and asks for one point a pass: the second one is cheap
    for a single model, but doubles the arithmetic of many, and did not save them passes. It keeps
    its sample, since no sample suits a single one of many models.
    """
    if isinstance(solver, Newton) and n_states > 1:
        memory = n_pairs(Newton, size, n_states)
        return replace(solver, backtrack=False, memory=memory, effort=_EFFORT, single_model=False)
    if isinstance(solver, LBFGS):
        return replace(solver, memory=n_pairs(LBFGS, size, n_states))
    return solver


def with_full_effort(model: PathModel, n_active: int) -> Solver[Any]:
    """Return the solver of a model for when few models are active."""
    solver = model.solver
    if not isinstance(solver, Newton):
        return solver
    single_model = solver.single_model or (n_active == 1 and model.fold == ALL)
    return replace(solver, backtrack=True, effort=1.0, single_model=single_model)


def started(model: PathModel, point: Array) -> FullBatchState:
    """Return the state of a model's solver at a point."""
    objective = model.objective
    state: FullBatchState = model.solver.start(
        point, objective.at_intercept_only, objective.intercept_only
    )
    return state


def score_of_intercepts(model: PathModel, first: FoldMoments) -> tuple[float, float, float]:
    """Return the scores of a model that knows nothing but the class frequencies.

    Returns
    -------
    mean loss and accuracy on the held-out rows, and accuracy on the rows that it learns from
    """
    share = model.objective.class_share
    if model.fold == ALL:
        return np.nan, np.nan, float(share.max())
    p = share if model.objective.fit_intercept else np.full(len(share), 1 / len(share))
    judging = first.judging[model.fold] / first.judging[model.fold].sum()
    loss = -float(judging @ np.log(np.maximum(p, LEAST_SHARE)))
    return loss, float(judging[p.argmax()]), float(share[p.argmax()])


def carried(point: Array, before: PathModel, after: PathModel) -> Array:
    """Return a point of one model in the coordinates of another."""
    old, new = before.objective.coordinates, after.objective.coordinates
    if np.array_equal(old.scale, new.scale) and np.array_equal(old.centre, new.centre):
        return point  # its very bits, which a conversion would change
    return new.from_coefficients(*old.to_coefficients(point))


def reached(model: PathModel, state: FullBatchState) -> tuple[Array, float]:
    """Return the point that a model has reached, and its objective there.

    If a model of all rows was never evaluated on them, these are the minimum of the sample.
    """
    minimum = minimum_of_sample(model, state) if model.fold == ALL else None
    return minimum or (state.point, state.value)


def minimum_of_sample(model: PathModel, state: FullBatchState) -> tuple[Array, float] | None:
    """Return the minimum of the sample and the objective there; None if it was not found."""
    if isinstance(model.solver, Newton) and isinstance(state, NewtonState):
        return model.solver.guess_of_sample(state)
    return None


def has_moved(model: PathModel, state: FullBatchState) -> bool:
    """Whether a model was ever evaluated at a point other than the intercepts alone."""
    start = model.objective.intercept_only
    return bool(np.isfinite(state.value)) and not np.array_equal(state.point, start)


def mean_of(models: Sequence[PathModel], states: Sequence[FullBatchState]) -> tuple[Array, Array]:
    """Return the mean coefficients and intercepts of some models, in units of the data."""
    pairs = zip(models, states, strict=True)
    coefficients = [
        model.objective.coefficients(reached(model, state)[0]) for model, state in pairs
    ]
    coef, intercept = (np.mean(part, axis=0) for part in zip(*coefficients, strict=True))
    return coef, intercept
