"""Which solver a fit gets: the rule of `solver="auto"`."""

from __future__ import annotations

from dsoftmax.data.source import Source
from dsoftmax.objective.importance_sample import auto_size
from dsoftmax.solvers import SOLVERS, Kind
from dsoftmax.solvers.fista import FISTA
from dsoftmax.solvers.lbfgs import LBFGS
from dsoftmax.solvers.newton import Newton
from dsoftmax.solvers.sgd import SGD
from dsoftmax.training.params import FitParams


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
