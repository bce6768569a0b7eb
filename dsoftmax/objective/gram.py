"""The Gram matrix of some rows, which approximates the Hessian of a class."""

from __future__ import annotations

from functools import partial
from operator import add

import numpy as np

from dsoftmax.objective.kernel import block_length, narrow
from dsoftmax.objective.objective import Objective
from dsoftmax.objective.reduction import Chunk, Reduction
from dsoftmax.typing import Array

MOST_FEATURES = 2048  # beyond, a metric costs more than it saves


def partial_gram(chunk: Chunk, shift: Array | None, dtype: np.dtype[np.floating]) -> Array:
    """Return the weighted sum of [x, 1] [x, 1]' over a chunk, in float64."""
    n_rows, n_features = chunk.X.shape
    length = min(block_length(n_features, n_features, dtype.itemsize), n_rows)
    rows_and_one = np.ones((length, n_features + 1), dtype)
    block = np.empty((length, n_features), dtype)
    total = np.zeros((n_features + 1, n_features + 1))
    for start in range(0, n_rows, length):
        rows = chunk.rows(start, min(start + length, n_rows))
        b = len(rows.X)
        rows_and_one[:b, :-1] = narrow(rows.X, shift, block[:b], rows.packing)
        weight = np.ones(b) if rows.sample_weight is None else rows.sample_weight
        weighted = rows_and_one[:b] * weight.astype(dtype)[:, None]
        total += weighted.T @ rows_and_one[:b]
    return total


def gram_of(objective: Objective) -> Reduction[Array]:
    """Return the reduction that sums [x, 1] [x, 1]' of the kernel's x."""
    chunk = partial(partial_gram, shift=objective.coordinates.shift, dtype=objective.dtype)
    return Reduction("gram", chunk, add)
