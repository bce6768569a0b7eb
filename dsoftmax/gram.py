"""About the Hessian of a class: the Gram matrix of some rows."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from operator import add

import numpy as np

from dsoftmax.loss import block_length, narrow
from dsoftmax.objective import Objective
from dsoftmax.reduction import Array, Chunk, Reduction
from dsoftmax.sampling import Epoch, Leaf

MOST_FEATURES = 2048  # beyond, a metric costs more than it saves
_ROWS_A_FEATURE = 8
_LEAST_ROWS = 1 << 13


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
        rows_and_one[:b, :-1] = narrow(rows.X, shift, block[:b])
        weight = np.ones(b) if rows.sample_weight is None else rows.sample_weight
        weighted = rows_and_one[:b] * weight.astype(dtype)[:, None]
        total += weighted.T @ rows_and_one[:b]
    return total


def metric_leaves(epoch: Epoch, n_features: int) -> list[Leaf]:
    """Return the rows that tell a metric: 8 for a feature, or 8,192, of those that come first.

    They are of the first span of each lane, which the first batches decode anyway; none beyond
    2,048 features, where a metric costs more than it saves.
    """
    if n_features > MOST_FEATURES:
        return []
    rows = max(_ROWS_A_FEATURE * n_features, _LEAST_ROWS)
    spans = epoch.first_spans()
    shares = [rows * _count([lane]) // _count(spans) + 1 for lane in spans]
    return [
        tuple(replace(piece, high=min(piece.high, share)) for piece in lane)
        for lane, share in zip(spans, shares, strict=True)
    ]


def _count(leaves: list[Leaf]) -> int:
    return sum(piece.rows for leaf in leaves for piece in leaf)


def gram_of(objective: Objective) -> Reduction[Array]:
    """Return the reduction that sums [x, 1] [x, 1]' of the kernel's x."""
    chunk = partial(partial_gram, shift=objective.coordinates.shift, dtype=objective.dtype)
    return Reduction("gram", chunk, add)


def metric_of(objective: Objective, gram: Array, leaves: list[Leaf]) -> Array | None:
    """Return about the Hessian of a class, for the sum over some rows; None if none counts."""
    weight = float(gram[-1, -1])
    return objective.metric(gram / weight, _count(leaves)) if weight > 0 else None
