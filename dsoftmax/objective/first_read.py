"""The first read: moments of the features, whatever their range."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from operator import add

import numpy as np

from dsoftmax.objective.reduction import Chunk, Reduction
from dsoftmax.objective.scaling import Moments, moments
from dsoftmax.objective.units import in_units, unusual_exponent


def partial_moments(chunk: Chunk, n_classes: int, dtype: np.dtype[np.floating]) -> Moments:
    """Return the moments of a chunk.

    Raises
    ------
    DataError
        If X has a NaN or an infinity, or a value that `dtype` cannot hold.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        sums = moments(chunk, n_classes, dtype)
    if not sums.lost_digits(dtype):
        return sums
    chunk.require_finite(dtype)
    wide = np.dtype(np.float64)
    X = chunk.decoded(wide)
    exponent = unusual_exponent(np.frexp(np.abs(X).max(axis=0))[1], wide)
    chunk = chunk._replace(X=in_units(X, exponent), packing=None)
    sums = moments(chunk, n_classes, wide)
    return replace(sums, exponent=exponent)


def moments_of(n_classes: int, dtype: np.dtype[np.floating]) -> Reduction[Moments]:
    """Return the reduction of the first read."""
    return Reduction("moments", partial(partial_moments, n_classes=n_classes, dtype=dtype), add)
