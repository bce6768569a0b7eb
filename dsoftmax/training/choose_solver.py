"""Which solver a fit gets (the rule of `solver="auto"`), and where it starts."""

from __future__ import annotations

import numpy as np

from dsoftmax.data.source import Source
from dsoftmax.errors import DataError
from dsoftmax.objective.importance_sample import auto_size
from dsoftmax.objective.labels import preview
from dsoftmax.objective.objective import Objective
from dsoftmax.solvers import SOLVERS, Kind
from dsoftmax.solvers.fista import FISTA
from dsoftmax.solvers.lbfgs import LBFGS
from dsoftmax.solvers.newton import Newton
from dsoftmax.solvers.sgd import SGD
from dsoftmax.training.params import FitParams
from dsoftmax.typing import Array


def choose_solver(params: FitParams, source: Source, n_classes: int) -> Kind:
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


def first_point(
    objective: Objective,
    params: FitParams,
    classes: Array,
    start: tuple[Array, Array] | None = None,
) -> Array:
    """Return where a solver starts: at given coefficients, the last fit, or the intercepts alone.

    Raises
    ------
    DataError
        If the last fit had other classes or features.
    """
    if start is not None:
        return objective.coordinates.from_coefficients(*start)
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
