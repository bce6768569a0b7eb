"""The moments of each fold, read at once, and those of all rows but the ones of a fold."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial, reduce
from operator import add

import numpy as np

from dsoftmax.objective.objective import partial_moments
from dsoftmax.objective.reduction import ALL, NEVER, Chunk, Reduction, rows_of_fold
from dsoftmax.objective.scaling import Moments
from dsoftmax.storage.records import storable
from dsoftmax.typing import Array


@storable
@dataclass(frozen=True)
class FoldMoments:
    """What the first read of a search tells.

    Attributes
    ----------
    moments : of the rows of each fold, and last of those that are in none
    judging : (n_folds + 1, n_classes), what those rows weigh as judges
    """

    moments: tuple[Moments, ...]
    judging: Array

    def __add__(self, other: FoldMoments) -> FoldMoments:
        sums = map(add, self.moments, other.moments)
        return FoldMoments(tuple(sums), self.judging + other.judging)

    def without(self, fold: int) -> Moments:
        """Return the moments of the rows that are not in a fold; ALL leaves none out."""
        left = (own for number, own in enumerate(self.moments) if fold == ALL or number != fold)
        return reduce(add, left)


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


def fold_moments_of(
    n_folds: int, n_classes: int, dtype: np.dtype[np.floating]
) -> Reduction[FoldMoments]:
    """Return the reduction of the first read of a search; without folds, `n_folds` is 0."""
    chunk = partial(_fold_moments, n_folds=n_folds, n_classes=n_classes, dtype=dtype)
    return Reduction("moments", chunk, add)
