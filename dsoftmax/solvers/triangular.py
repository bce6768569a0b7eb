"""Products with a lower triangular matrix: half the work of those with a full one."""

from __future__ import annotations

from types import ModuleType

import numpy as np

from dsoftmax.reduction import Array

# Fortran takes the rows of a C array for columns: it sees the transpose, an upper triangle.


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
    """Return what no worker has to load."""
    import scipy.linalg

    return scipy.linalg
