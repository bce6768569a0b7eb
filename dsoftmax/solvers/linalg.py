"""The preconditioner of mini-batch gradients, and products with triangular matrices."""

from __future__ import annotations

from types import ModuleType

import numpy as np

from dsoftmax.typing import Array

_LEAST_RIDGE = 0.01
_FACTOR = 1.1


def preconditioner(metric: Array, n_rows: float) -> tuple[Array, float]:
    """Return what to multiply the gradients of batches by, and the length of their steps.

    Parameters
    ----------
    metric : array of shape (d, d)
        About the Hessian of a class, positive semidefinite, in coordinates that are scaled alike.
    n_rows : float
        Rows of a batch, drawn at random.

    Returns
    -------
    inverse : array of shape (d, d)
        That of metric + ridge * identity.
    length : float
        n_rows / (n_rows + effective), from 1/2 to 1.

    Notes
    -----
    A batch cannot tell more directions than it has rows. The effective number of directions is the
    trace of metric @ inverse (Hsu, Kakade and Zhang, Random design analysis of ridge regression,
    2012); the ridge is the least from 0.01 on, in steps of 10%, for which it is at most `n_rows`.
    The noise of a batch then moves a step by `effective / n_rows` of what the gradient does, and
    the step is shortened to match: with ``effective`` for the mean squared length of a row in
    the metric, it is the step for which least squares on batches still contract (Bach and
    Moulines, Non-strongly-convex smooth stochastic approximation with convergence rate O(1/n),
    2013; Jain, Kakade, Kidambi, Netrapalli and Sidford, Parallelizing stochastic gradient descent
    for least squares regression, 2018).
    """
    values, vectors = np.linalg.eigh(metric)
    values = np.maximum(values, 0.0)
    ridge = _LEAST_RIDGE
    while (effective := float((values / (values + ridge)).sum())) > n_rows:
        ridge *= _FACTOR
    inverse = (vectors / (values + ridge)) @ vectors.T
    return inverse, n_rows / (n_rows + effective)


def product(lower: Array, columns: Array) -> Array:
    """Return lower @ columns, both of float64 and two dimensions."""
    return np.ascontiguousarray(_linalg().blas.dtrmm(1.0, lower.T, columns, trans_a=1))


def transposed_product(lower: Array, columns: Array) -> Array:
    """Return lower.T @ columns."""
    return np.ascontiguousarray(_linalg().blas.dtrmm(1.0, lower.T, columns))


def inverse(lower: Array) -> Array:
    """Return the inverse, of a matrix whose diagonal has no zero."""
    found, _ = _linalg().lapack.dtrtri(lower.T)
    return np.ascontiguousarray(found.T)


def _linalg() -> ModuleType:
    """Import SciPy lazily: workers do without it."""
    import scipy.linalg

    return scipy.linalg
