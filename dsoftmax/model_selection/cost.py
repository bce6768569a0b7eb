"""What the models of a search cost beyond one, worked out from metadata."""

from __future__ import annotations

from typing import Any, NamedTuple

from dsoftmax.data.source import Source
from dsoftmax.model_selection.folding import fold_names_source, with_cv
from dsoftmax.model_selection.memory import are_few, model_size, state_bytes
from dsoftmax.model_selection.options import Options
from dsoftmax.model_selection.stack import stack_width
from dsoftmax.runtime.memory import require_states_fit
from dsoftmax.solvers import Kind
from dsoftmax.solvers.fista import FISTA
from dsoftmax.solvers.newton import Newton
from dsoftmax.training.label_scan import first_labels

_FOLD_BYTES = 8 << 20  # of folds that are read to count them


class Cost(NamedTuple):
    """What the models of a search cost beyond one; of a fit, nothing.

    Attributes
    ----------
    n_models : 0 for a fit
    reads : of all rows, for a step of each model
    states_bytes : of what their solvers remember
    sums_bytes : of the gradients that a task returns
    """

    n_models: int
    reads: int
    states_bytes: int
    sums_bytes: int


def cost_of(source: Source, options: Options | None, cv: Any, kind: Kind, classes: int) -> Cost:
    """Return what a search costs, or a fit, which has no options.

    Parameters
    ----------
    source : Source
    options : Options, or None
    cv : as of `SoftmaxRegressionCV`
    kind : of the solvers
    classes : how many there are

    Raises
    ------
    DataError
        If `cv` does not fit the source.
    MemoryBoundError
        If this process has no room for the states of all models.
    """
    if options is None:
        return Cost(0, 1, 0, 8 * (source.n_features + 1) * classes)
    size = model_size(source.n_features, classes)
    n_candidates, n_folds = options.n_candidates, _n_folds(source, cv, options)
    n_models = n_candidates * max(n_folds, 1)
    each_state = state_bytes(kind, size, n_candidates, n_folds)
    require_states_fit(n_models, each_state)
    width = stack_width(source.n_features, size // (source.n_features + 1))
    # A leader's own read is for all of its followers; any other point is for one model.
    led = n_folds > 0 and kind is Newton
    each = n_folds + 1 if led else 1
    heads = n_candidates if led else n_models
    backtrack = kind is Newton and are_few(heads, size // (source.n_features + 1))
    most = heads * (2 if backtrack or kind is FISTA else 1)
    reads = -(-(heads if led else most) // max(width // each, 1))
    sums = min(max(n_models, most * each), max(width, each))
    return Cost(n_models, reads, n_models * each_state, 8 * size * sums)


def _n_folds(source: Source, cv: Any, options: Options) -> int:
    """Return how many folds there are, as far as the first rows tell; 0 where others judge."""
    if options.n_folds or cv is None:
        return options.n_folds
    named = fold_names_source(with_cv(source, cv))
    names = first_labels(named, _FOLD_BYTES)[0]
    return max(2, len([name for name in names if isinstance(name, str) or name >= 0]))
