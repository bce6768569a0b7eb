"""What the models of a search take of the memory of this process."""

from __future__ import annotations

from dsoftmax.solvers import Kind
from dsoftmax.solvers.lbfgs import LBFGS
from dsoftmax.solvers.newton import Newton

_PAIRS_BYTES = 1 << 29  # of what all searches of a stack remember
_LEAST_PAIRS, _MOST_PAIRS, _MOST_IN_MEMORY = 10, 100, 20
_OTHER_VECTORS = 12  # points, gradients and directions of a state, of its next one, and results
_FEW_COLUMNS = 64  # of all models: the kernel takes about as long as the rest of a pass


def are_few(n_models: int, n_columns: int) -> bool:
    """Whether models are so few that each may take what it would alone."""
    return n_models * n_columns <= _FEW_COLUMNS


def model_size(n_features: int, n_classes: int) -> int:
    """Return how many coefficients a model has: of two classes, one column tells both."""
    return (n_features + 1) * (n_classes if n_classes > 2 else 1)


def n_states(kind: Kind, n_candidates: int, n_folds: int) -> int:
    """Return how many models have a state: with folds, Newton's method has leaders besides.

    Parameters
    ----------
    kind : of the solvers
    n_candidates : int
    n_folds : 0 where other rows judge
    """
    leaders = n_candidates if n_folds and kind is Newton else 0
    return n_candidates * max(n_folds, 1) + leaders


def n_pairs(kind: Kind, size: int, n_models: int) -> int:
    """Return how many updates the solver of each model remembers.

    Where a search in memory has a metric, more than a few are a burden.

    Parameters
    ----------
    kind : of the solver
    size : of a model, in coefficients
    n_models : that share the memory

    Examples
    --------
    >>> n_pairs(LBFGS, size=7850, n_models=100), n_pairs(Newton, size=7850, n_models=100)
    (42, 20)
    """
    most = _MOST_IN_MEMORY if kind is Newton else _MOST_PAIRS
    return min(max(_PAIRS_BYTES // (16 * size * n_models), _LEAST_PAIRS), most)


def state_bytes(kind: Kind, size: int, n_candidates: int, n_folds: int) -> int:
    """Return what the states of a search take for each of its models, at most.

    Parameters
    ----------
    kind : of the solvers
    size : of a model, in coefficients
    n_candidates, n_folds : as for `n_states`
    """
    held = n_states(kind, n_candidates, n_folds)
    pairs = n_pairs(kind, size, held) if kind in (Newton, LBFGS) else 0
    return -(-8 * size * (2 * pairs + _OTHER_VECTORS) * held // (n_candidates * max(n_folds, 1)))
