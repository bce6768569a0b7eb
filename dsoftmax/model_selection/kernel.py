"""What a task of a search computes: nothing here needs more than NumPy, as workers have little."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import reduce
from operator import add

import numpy as np

from dsoftmax.metrics.fold_loss import FoldSums, HeldOutSums, judge, loss_by_fold, loss_of_folds
from dsoftmax.objective.kernel import loss_gradient
from dsoftmax.objective.reduction import Chunk, rows_of_fold
from dsoftmax.typing import Array

_LOSSES = 1 << 21  # of rows times models that are at hand at once
_COPIED = 1 << 25  # bytes of rows that are put in the order of their folds at once
_LEAST_ROWS = 1 << 12  # no fewer than a block of the kernel


def partial_stack(chunk: Chunk, points: Array, left_out: Array, shift: Array | None) -> FoldSums:
    """Return the sums of a stack of models over a chunk, and those that judge them.

    Raises
    ------
    DataError
        If they are not finite because X is not.
    """
    parts = (_stack(part, points, left_out, shift) for part in _parts(chunk, points))
    return _checked(reduce(add, parts), chunk, points)


def partial_folds(chunk: Chunk, points: Array, folds: Array, shift: Array | None) -> FoldSums:
    """Return the sums of a stack of models over the rows of each fold of a chunk.

    Raises
    ------
    DataError
        If they are not finite because X is not.
    """
    parts = _parts(chunk, points, _few_bytes(chunk))
    sums = reduce(add, (loss_of_folds(part, points, folds, shift) for part in parts))
    return _checked(sums, chunk, points)


def partial_judge_folds(
    chunk: Chunk, points: Array, left_out: Array, shift: Array | None
) -> HeldOutSums:
    """Return the sums that judge models by the rows of a chunk in the fold that each leaves out.

    Raises
    ------
    DataError
        If they are not finite because X is not.
    """
    result = np.zeros((3, len(points)))
    for part in _parts(chunk, points, _few_bytes(chunk)):
        for fold in np.unique(left_out):
            rows, own = rows_of_fold(part, fold), left_out == fold
            sums = partial_judge(rows._replace(sample_weight=rows.held_out), points[own], shift)
            result[:, own] += sums.loss, sums.correct, sums.weight
    return HeldOutSums(*result)


def _few_bytes(chunk: Chunk) -> int:
    """Return how many rows are put in the order of their folds at once."""
    return int(max(_COPIED // max(chunk.X[:1].nbytes, 1), _LEAST_ROWS))


def _checked(sums: FoldSums, chunk: Chunk, points: Array) -> FoldSums:
    learned = sums.learned
    if not (np.isfinite(learned.loss).all() and np.isfinite(learned.gradient).all()):
        chunk.require_finite(points.dtype)
    return sums


def _stack(chunk: Chunk, points: Array, left_out: Array, shift: Array | None) -> FoldSums:
    if chunk.fold is not None:
        return loss_by_fold(chunk, points, left_out, shift)
    none = np.zeros(len(points))
    return FoldSums(loss_gradient(chunk, points, shift), HeldOutSums(none, none, none))


def _parts(chunk: Chunk, points: Array, most: int = sys.maxsize) -> Iterator[Chunk]:
    """Yield rows of a chunk, so many that their losses for all models are no burden."""
    length = max(_LEAST_ROWS, _LOSSES // len(points) // _LEAST_ROWS * _LEAST_ROWS)
    length = min(length, most)
    for start in range(0, max(len(chunk.X), 1), length):
        yield chunk.rows(start, min(start + length, len(chunk.X)))


def partial_judge(chunk: Chunk, points: Array, shift: Array | None) -> HeldOutSums:
    """Return the sums that judge a stack of models by all rows of a chunk.

    Raises
    ------
    DataError
        If they are not finite because X is not.
    """
    sums = reduce(add, (judge(part, points, shift) for part in _parts(chunk, points)))
    if not np.isfinite(sums.loss).all():
        chunk.require_finite(points.dtype)
    return sums
