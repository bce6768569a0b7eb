"""What the tasks of a search sum over the rows of a chunk.

Workers import this file, so it needs no more than NumPy.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial, reduce
from operator import add

import numpy as np

from dsoftmax.metrics.fold_loss import FoldSums, HeldOutSums, judge, loss_by_fold, loss_of_folds
from dsoftmax.objective.first_read import partial_moments
from dsoftmax.objective.kernel import loss_gradient
from dsoftmax.objective.reduction import NEVER, Chunk, Reduction, rows_of_fold
from dsoftmax.objective.scaling import Moments
from dsoftmax.storage.records import storable
from dsoftmax.typing import Array

MOST_LOSSES = 1 << 21  # losses (rows times models) that are in memory at once
MOST_COPIED = 1 << 25  # bytes of rows that are copied at once into the order of their folds
FEWEST_ROWS = 1 << 12  # a block of the kernel: with fewer rows, its matrix products are slow


@storable
@dataclass(frozen=True)
class FoldMoments:
    """What the first read of a search finds out about the features.

    Attributes
    ----------
    moments : of the rows of each fold, and last of the rows that are in no fold
    judging : (n_folds + 1, n_classes), the held-out weight of each class in the same rows
    """

    moments: tuple[Moments, ...]
    judging: Array

    def __add__(self, other: FoldMoments) -> FoldMoments:
        moments = map(add, self.moments, other.moments)
        return FoldMoments(tuple(moments), self.judging + other.judging)

    def without(self, fold: int) -> Moments:
        """Return the moments of the rows that are not in a fold; ALL leaves no rows out."""
        rest = (part for number, part in enumerate(self.moments) if number != fold)
        return reduce(add, rest)


def fold_moments_of(
    n_folds: int, n_classes: int, dtype: np.dtype[np.floating]
) -> Reduction[FoldMoments]:
    """Return the reduction of the first read; without folds, `n_folds` is 0."""
    chunk = partial(_fold_moments, n_folds=n_folds, n_classes=n_classes, dtype=dtype)
    return Reduction("moments", chunk, add)


def _fold_moments(
    chunk: Chunk, n_folds: int, n_classes: int, dtype: np.dtype[np.floating]
) -> FoldMoments:
    parts = [rows_of_fold(chunk, fold) for fold in (*range(n_folds), NEVER)]
    moments = (_moments(part, n_classes, dtype) for part in parts)
    judging = (np.bincount(part.codes, part.held_out, n_classes) for part in parts)
    return FoldMoments(tuple(moments), np.array(list(judging), dtype=np.float64))


def _moments(chunk: Chunk, n_classes: int, dtype: np.dtype[np.floating]) -> Moments:
    if len(chunk.X):
        return partial_moments(chunk, n_classes, dtype)
    none = np.zeros(chunk.X.shape[1])
    return Moments(0.0, none, none, np.zeros(n_classes), np.zeros((n_classes, len(none))))


def partial_stack(chunk: Chunk, points: Array, left_out: Array, shift: Array | None) -> FoldSums:
    """Return the sums of a stack of models, each of which leaves out one fold.

    Parameters
    ----------
    chunk : Chunk
    points : array of shape (n_models, n_features + 1, n_columns)
    left_out : integer array of shape (n_models,)
        The fold that judges each model, or ALL.
    shift : array of shape (n_features,), optional
        What the kernel subtracts from the rows.

    Raises
    ------
    DataError
        If the sums are not finite because X is not.
    """
    parts = (_stack(part, points, left_out, shift) for part in _parts(chunk, points))
    return _checked(reduce(add, parts), chunk, points)


def partial_folds(chunk: Chunk, points: Array, folds: Array, shift: Array | None) -> FoldSums:
    """Return the sums of a stack of models over the rows of each fold by itself.

    One matrix product serves the models of all folds, where they are at the same point.

    Parameters
    ----------
    chunk, points, shift : as for `partial_stack`
    folds : integer array

    Raises
    ------
    DataError
        If the sums are not finite because X is not.
    """
    most_rows = int(max(MOST_COPIED // max(chunk.X[:1].nbytes, 1), FEWEST_ROWS))
    parts = _parts(chunk, points, most_rows)
    sums = reduce(add, (loss_of_folds(part, points, folds, shift) for part in parts))
    return _checked(sums, chunk, points)


def partial_judge(chunk: Chunk, points: Array, shift: Array | None) -> HeldOutSums:
    """Return the sums that judge a stack of models by all rows of a chunk.

    Parameters
    ----------
    chunk, points, shift : as for `partial_stack`

    Raises
    ------
    DataError
        If the sums are not finite because X is not.
    """
    sums = reduce(add, (judge(part, points, shift) for part in _parts(chunk, points)))
    if not np.isfinite(sums.loss).all():
        chunk.require_finite(points.dtype)
    return sums


def _stack(chunk: Chunk, points: Array, left_out: Array, shift: Array | None) -> FoldSums:
    if chunk.fold is not None:
        return loss_by_fold(chunk, points, left_out, shift)
    none = np.zeros(len(points))
    return FoldSums(loss_gradient(chunk, points, shift), HeldOutSums(none, none, none))


def _checked(sums: FoldSums, chunk: Chunk, points: Array) -> FoldSums:
    # To test the sums is cheap. Only if they are not finite, all of X is searched for the reason.
    learned = sums.learned
    if not (np.isfinite(learned.loss).all() and np.isfinite(learned.gradient).all()):
        chunk.require_finite(points.dtype)
    return sums


def _parts(chunk: Chunk, points: Array, most_rows: int = sys.maxsize) -> Iterator[Chunk]:
    """Yield the rows of a chunk in parts whose losses for all models fit in `MOST_LOSSES`."""
    length = max(FEWEST_ROWS, MOST_LOSSES // len(points) // FEWEST_ROWS * FEWEST_ROWS)
    length = min(length, most_rows)
    for start in range(0, max(len(chunk.X), 1), length):
        yield chunk.rows(start, min(start + length, len(chunk.X)))
