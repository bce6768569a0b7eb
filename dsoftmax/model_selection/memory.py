"""What a search takes of memory and of reads, worked out from metadata."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from dsoftmax.data.source import Source
from dsoftmax.model_selection.folding import fold_names_source, with_cv
from dsoftmax.model_selection.path import Options
from dsoftmax.model_selection.sums import FEWEST_ROWS, MOST_COPIED, MOST_LOSSES
from dsoftmax.runtime.memory import Location, require_memory, require_states_fit
from dsoftmax.runtime.spans import most_rows
from dsoftmax.runtime.working_set import Demand
from dsoftmax.solvers import Kind
from dsoftmax.solvers.fista import FISTA
from dsoftmax.solvers.lbfgs import LBFGS
from dsoftmax.solvers.newton import Newton
from dsoftmax.training.demand import fit_demand, fit_spans
from dsoftmax.training.label_scan import first_labels
from dsoftmax.training.params import FitParams

_STACK_BYTES = 1 << 24  # of the gradients that one read sums
_PAIRS_BYTES = 1 << 29  # of the updates that all solvers remember
_LEAST_PAIRS, _MOST_PAIRS, _MOST_IN_MEMORY = 10, 100, 20
_OTHER_VECTORS = 12  # points, gradients and directions of a state, of its next one, and results
_FEW_COLUMNS = 64  # of all models: up to here a pass spends as much on reading as on arithmetic
_LOSS_BYTES = 44  # of a row and a model: its loss, its weights, and what they are computed from
_FOLD_BYTES = 8 << 20  # of the folds that the user names, read to count them


def stack_width(n_features: int, n_columns: int) -> int:
    """Return how many points one read evaluates: as many as have gradients of 16 MiB together.

    Examples
    --------
    >>> stack_width(784, 10), stack_width(2048, 1000)
    (267, 1)
    """
    return max(1, _STACK_BYTES // (8 * (n_features + 1) * n_columns))


def first_block(widths: Sequence[int], most: int) -> int:
    """Return how many of the first requests come into one read: one at least.

    Parameters
    ----------
    widths : how many points each request takes
    most : how many points one read evaluates

    Examples
    --------
    >>> first_block([2, 2, 1], 4), first_block([5, 1], 4)
    (2, 1)
    """
    return max(1, int(np.searchsorted(np.cumsum(widths), most, side="right")))


def n_reads(widths: Sequence[int], most: int) -> int:
    """Return how many reads some requests take; the parameters are those of `first_block`."""
    reads = 0
    while widths:
        widths, reads = widths[first_block(widths, most) :], reads + 1
    return reads


def are_few(n_models: int, n_columns: int) -> bool:
    """Whether models are so few that each may take the memory and time of a single one."""
    return n_models * n_columns <= _FEW_COLUMNS


def model_size(n_features: int, n_classes: int) -> int:
    """Return the number of coefficients of a model; two classes share one column."""
    return (n_features + 1) * (n_classes if n_classes > 2 else 1)


def n_full_data(kind: Kind, options: Options, n_folds: int) -> int:
    """Return how many candidates have a full-data model that goes ahead of their fold models.

    They are the first ones. Where no candidate is eliminated, every fold model has to converge,
    and full-data models would add passes.

    Parameters
    ----------
    kind : of the solvers
    options : Options
    n_folds : 0 where a validation set judges
    """
    return options.n_bounded if n_folds and kind is Newton else 0


def n_states(kind: Kind, options: Options, n_folds: int) -> int:
    """Return how many models have a state; the parameters are those of `n_full_data`."""
    return options.n_candidates * max(n_folds, 1) + n_full_data(kind, options, n_folds)


def n_pairs(kind: Kind, size: int, n_models: int) -> int:
    """Return how many updates each solver remembers.

    Newton's method searches in a metric of the sample, where more than a few do not help.

    Parameters
    ----------
    kind : of the solver
    size : of a model, in coefficients
    n_models : how many share the memory

    Examples
    --------
    >>> n_pairs(LBFGS, size=7850, n_models=100), n_pairs(Newton, size=7850, n_models=100)
    (42, 20)
    """
    most = _MOST_IN_MEMORY if kind is Newton else _MOST_PAIRS
    return min(max(_PAIRS_BYTES // (16 * size * n_models), _LEAST_PAIRS), most)


def state_bytes(kind: Kind, size: int, options: Options, n_folds: int) -> int:
    """Return how much memory the states of a search take per model, at most.

    Parameters
    ----------
    kind : of the solvers
    size : of a model, in coefficients
    options, n_folds : as for `n_full_data`
    """
    states = n_states(kind, options, n_folds)
    pairs = n_pairs(kind, size, states) if kind in (Newton, LBFGS) else 0
    n_models = options.n_candidates * max(n_folds, 1)
    return -(-8 * size * (2 * pairs + _OTHER_VECTORS) * states // n_models)


class Cost(NamedTuple):
    """What a fit or a search costs.

    Attributes
    ----------
    n_models : 0 for a fit
    reads : of all rows, for one step of each model
    states_bytes : of the states of all solvers; 0 for a fit
    n_points : that a read evaluates
    sums_bytes : of the gradients that a task returns
    """

    n_models: int
    reads: int
    states_bytes: int
    n_points: int
    sums_bytes: int


def cost_of(source: Source, options: Options | None, cv: Any, kind: Kind, n_classes: int) -> Cost:
    """Return what a search costs, or a fit, which has no options.

    Parameters
    ----------
    source : Source
    options : Options, or None
    cv : as of `SoftmaxRegressionCV`
    kind : of the solvers
    n_classes : int

    Raises
    ------
    DataError
        If `cv` does not fit the source.
    MemoryBoundError
        If the states of all models do not fit the memory of this process.
    """
    if options is None:
        return Cost(0, 1, 0, 1, 8 * (source.n_features + 1) * n_classes)
    return cost_for(source, options, _n_folds(source, cv, options), kind, n_classes)


def cost_for(source: Source, options: Options, n_folds: int, kind: Kind, n_classes: int) -> Cost:
    """Return what a search costs, whose folds are known; raise MemoryBoundError as `cost_of`."""
    size = model_size(source.n_features, n_classes)
    n_columns = size // (source.n_features + 1)
    n_models = options.n_candidates * max(n_folds, 1)
    each_state = state_bytes(kind, size, options, n_folds)
    require_states_fit(n_models, each_state)
    # At the point of a full-data model, the gradients of its fold models are summed too.
    n_ahead = n_full_data(kind, options, n_folds)
    widths = [1] * (n_models - n_ahead * n_folds) + [n_folds + 1] * n_ahead
    width, n_points = stack_width(source.n_features, n_columns), 2 if kind is FISTA else 1
    reads = n_reads([n_points * each for each in widths], width)
    # A Newton solver may ask for a second point later, not in its first step.
    backtrack = kind is FISTA or (kind is Newton and are_few(len(widths), n_columns))
    most = (2 if backtrack else 1) * sum(widths)
    sums = min(max(n_models, most), max(width, widths[-1]))
    return Cost(n_models, reads, n_models * each_state, sums, 8 * size * sums)


def search_demand(demand: Demand, source: Source, n_classes: int, cost: Cost) -> Demand:
    """Return what the tasks of a search hold beside the rows that they read.

    Parameters
    ----------
    demand : of a single fit
    source, n_classes : as for `cost_for`
    cost : of the search
    """
    rows = max(FEWEST_ROWS, MOST_LOSSES // cost.n_points)
    rows = min(rows, most_rows(fit_spans(source, n_classes)))
    return demand._replace(
        sums_bytes=max(cost.sums_bytes, demand.sums_bytes),
        n_columns=max(cost.n_points * (n_classes if n_classes > 2 else 1), demand.n_columns),
        part_bytes=_LOSS_BYTES * rows * cost.n_points + min(MOST_COPIED, rows * source.row_bytes),
    )


def require_search_fits(
    params: FitParams,
    source: Source,
    kind: Kind,
    options: Options,
    n_folds: int,
    n_classes: int,
    location: Location,
) -> None:
    """Raise MemoryBoundError if the states or the tasks of a search do not fit the memory."""
    cost = cost_for(source, options, n_folds, kind, n_classes)
    demand = fit_demand(params, source, kind, n_classes, location.processes)
    demand = search_demand(demand, source, n_classes, cost)
    require_memory(source, location, demand, most_rows(fit_spans(source, n_classes)))


def _n_folds(source: Source, cv: Any, options: Options) -> int:
    """Return how many folds there are, as far as the first rows tell; 0 for a validation set."""
    if options.n_folds or cv is None:
        return options.n_folds
    named = fold_names_source(with_cv(source, cv))
    names = first_labels(named, _FOLD_BYTES)[0]
    return max(2, len([name for name in names if isinstance(name, str) or name >= 0]))
