"""What the tasks of a fit hold beside the rows that they read, and which solver that allows for."""

from __future__ import annotations

from dsoftmax.data.source import Source
from dsoftmax.objective.gram import MOST_FEATURES
from dsoftmax.objective.importance_sample import auto_size
from dsoftmax.runtime.memory import Location, require_memory
from dsoftmax.runtime.spans import Span, cut_spans, most_rows
from dsoftmax.runtime.working_set import Demand
from dsoftmax.solvers import Kind
from dsoftmax.solvers.autosgd import AutoSGD
from dsoftmax.solvers.fista import FISTA
from dsoftmax.solvers.newton import Newton
from dsoftmax.training.choose_solver import choose_solver
from dsoftmax.training.params import FitParams

_POINTS = {FISTA: 2, Newton: 2, AutoSGD: 3}  # that a solver has evaluated at once, at most
_PROJECTIONS = 8


def affordable_solver(
    params: FitParams, source: Source, n_classes: int, location: Location
) -> Kind:
    """Return the class of the solver of a fit, whose tasks fit the memory of the processes.

    Raises
    ------
    MemoryBoundError
        If they do not.
    """
    kind = choose_solver(params, source, n_classes)
    demand = fit_demand(params, source, kind, n_classes, location.processes)
    require_memory(source, location, demand, most_rows(fit_spans(source, n_classes)))
    return kind


def fit_spans(source: Source, n_classes: int) -> tuple[Span, ...]:
    """Return the spans of a fit."""
    return cut_spans(source.chunks, source.row_bytes, 8 * (source.n_features + 1) * n_classes)


def fit_demand(
    params: FitParams, source: Source, kind: Kind, n_classes: int, n_processes: int
) -> Demand:
    """Return what the tasks of a fit hold beside the rows that they read."""
    n_points = _POINTS.get(kind, 1) + (params.start is not None)
    sums = n_points * 8 * (source.n_features + 1) * n_classes
    if kind is AutoSGD and source.n_features <= MOST_FEATURES:
        sums = max(sums, 8 * (source.n_features + 1) ** 2)
    n_columns = n_points * n_classes
    picked = 0
    if kind.needs_sample:
        n_columns += n_classes + _PROJECTIONS
        picked = -(-sample_rows(params, source, n_classes) * source.row_bytes // n_processes)
    demand = Demand(sums, n_columns, row_bytes=8 * n_points, picked_bytes=picked)
    if params.early_stopping:
        demand = demand._replace(n_products=7, row_bytes=demand.row_bytes + 48)
    return demand._replace(shuffled=kind.mini_batch)


def sample_rows(params: FitParams, source: Source, n_classes: int) -> int:
    """Return how many rows a solver that needs a sample keeps in memory."""
    n_rows = source.n_samples
    size = params.sample_size or auto_size(n_rows, source.n_features, n_classes, source.row_bytes)
    return min(n_rows, size)
