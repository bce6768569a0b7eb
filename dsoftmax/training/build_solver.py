"""Which solver a fit gets, and with what."""

from __future__ import annotations

from typing import Any

import numpy as np

from dsoftmax.data.row_array import preview
from dsoftmax.data.source import Source
from dsoftmax.errors import DataError
from dsoftmax.objective.importance_sample import auto_size
from dsoftmax.objective.objective import Objective
from dsoftmax.solvers import SOLVERS, Kind
from dsoftmax.solvers.adam import AUTO_RATE, Adam
from dsoftmax.solvers.autosgd import AutoSGD
from dsoftmax.solvers.base import Solver
from dsoftmax.solvers.fista import FISTA
from dsoftmax.solvers.lbfgs import LBFGS
from dsoftmax.solvers.newton import Newton
from dsoftmax.solvers.schedules import Cosine, Inverse, Schedule, Settling, constant
from dsoftmax.solvers.sgd import SGD
from dsoftmax.training.params import FitParams
from dsoftmax.typing import Array


def solver_kind(params: FitParams, source: Source, n_classes: int) -> Kind:
    """Return the class of the solver: "sgd" on batches of all rows is FISTA.

    "auto" is "newton" where a sample can tell the curvature: it holds all rows, or no fewer than
    there are coefficients. Else it is a solver that takes more passes and works less between
    them: "lbfgs", or FISTA for a penalty with corners.
    """
    n_rows = source.n_samples
    if params.solver == "auto":
        size = params.sample_size or auto_size(
            n_rows, source.n_features, n_classes, source.row_bytes
        )
        n_columns = n_classes if n_classes > 2 else 1
        if size >= min(n_rows, source.n_features * n_columns):
            return Newton
        return FISTA if params.l1_ratio else LBFGS
    if params.solver == SGD.name and (params.batch_size or 0) >= n_rows:
        return FISTA
    return SOLVERS[params.solver]


def first_point(objective: Objective, params: FitParams, classes: Array) -> Array:
    """Return where to start: at the last fit, or at the intercepts alone.

    Raises
    ------
    DataError
        If the last fit had other classes or features.
    """
    default, last = objective.intercept_only, params.start
    if last is None:
        return default
    if not np.array_equal(last.classes, classes) or len(last.coef) != len(default) - 1:
        raise DataError(
            f"the last fit had {len(last.coef)} features and the classes {preview(last.classes)}, "
            f"the data have {len(default) - 1} and {preview(classes)}; to go on from it "
            "(warm_start, partial_fit) they must be the same"
        )
    intercept = last.intercept if params.fit_intercept else 0.0 * last.intercept
    return objective.coordinates.from_coefficients(last.coef, intercept)


def build_solver(
    kind: Kind, params: FitParams, objective: Objective, horizon: int, total: int | None
) -> Solver[Any]:
    """Return the solver for an objective.

    Parameters
    ----------
    kind : its class
    params : Settings
    objective : Objective
    horizon : rows after which the inverse schedule has halved the learning rate
    total : rows that the budget lasts for, or None if it has no end
    """
    noise = 0.5 * float(np.finfo(objective.dtype).eps)
    if kind is Newton:
        return Newton(objective.penalty, params.tol, noise)
    if kind is LBFGS:
        return LBFGS(params.tol, noise)
    if kind is FISTA:
        return FISTA(objective.penalty, params.tol, noise)
    schedule = _schedule(kind, params, horizon, total)
    # A cosine is made for its budget: on its plateau no progress means nothing.
    tol = 0.0 if isinstance(schedule, Cosine) else params.tol
    rate, patience = params.learning_rate, params.n_iter_no_change
    if kind is Adam:
        return Adam(objective.penalty, rate or AUTO_RATE, schedule, params.clip_norm, tol, patience)
    if rate is None:
        return AutoSGD(
            objective.penalty,
            np.nan,
            schedule,
            params.clip_norm,
            tol,
            patience,
            params.momentum,
            total is not None,
        )
    return SGD(objective.penalty, rate, schedule, params.clip_norm, tol, patience, params.momentum)


def _schedule(kind: Kind, params: FitParams, horizon: int, total: int | None) -> Schedule:
    """Return the schedule that was asked for; a learning rate that was given stays as it is."""
    name = params.schedule
    if name is None and params.learning_rate is not None:
        name = "constant"
    elif name is None:
        if total is not None and kind is SGD:
            return Settling(horizon)
        name = "inverse" if total is None else "cosine"
    if name == "cosine" and total is None:
        raise DataError("schedule='cosine' needs to know the end, which partial_fit does not")
    if name == "inverse":
        return Inverse(horizon)
    return constant if name == "constant" or total is None else Cosine(total)
