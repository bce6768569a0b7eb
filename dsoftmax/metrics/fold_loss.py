"""Losses on held-out rows, in the same read in which the models learn from the other rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from dsoftmax.objective.kernel import (
    LossSums,
    loss_sums,
    model_weights,
    raw_blocks,
    row_losses,
    weighted,
)
from dsoftmax.objective.reduction import ALL, Chunk, fold_weights, rows_by_fold
from dsoftmax.objective.softmax import softmax_residual
from dsoftmax.storage.records import storable
from dsoftmax.typing import Additive, Array

Sums = TypeVar("Sums")


@storable
@dataclass(frozen=True)
class HeldOutSums(Additive):
    """Sums over the rows that judge each model of a stack, in float64, all (n_models,).

    Attributes
    ----------
    loss, correct, weight : as of LossSums
    """

    loss: Array
    correct: Array
    weight: Array

    def means(self, model: int) -> tuple[float, float]:
        """Return loss and accuracy of a model on average, NaN if no rows judge it."""
        weight = float(self.weight[model])
        if weight <= 0:
            return float("nan"), float("nan")
        return float(self.loss[model]) / weight, float(self.correct[model]) / weight


@storable
@dataclass(frozen=True)
class FoldSums(Additive):
    """Sums over the rows that models learn from, and over those that they are judged by."""

    learned: LossSums
    judged: HeldOutSums

    def models(self, index: slice) -> FoldSums:
        """Return the sums of some models."""
        learned, judged = (
            {name: array[index] for name, array in vars(sums).items()}
            for sums in (self.learned, self.judged)
        )
        return FoldSums(LossSums(**learned), HeldOutSums(**judged))

    def left_out(self, fold: int, points: slice, n_points: int) -> FoldSums:
        """Return the sums of a model that does not learn from one fold, or learns from ALL.

        Parameters
        ----------
        fold : int
        points : those that it asks for
        n_points : how many there were, for which `loss_of_folds` has found the sums of all folds
        """

        def of(array: Array) -> Array:
            return array.reshape(-1, n_points, *array.shape[1:])[:, points]

        folds = [] if fold == ALL else [fold]
        learned = {
            name: np.delete(of(array), folds, axis=0).sum(axis=0)
            for name, array in vars(self.learned).items()
        }
        judged = {name: of(array)[folds].sum(axis=0) for name, array in vars(self.judged).items()}
        return FoldSums(LossSums(**learned), HeldOutSums(**judged))


def loss_by_fold(
    chunk: Chunk, points: Array, left_out: Array, shift: Array | None = None
) -> FoldSums:
    """Return the sums over a chunk for models each of which does not learn from one fold.

    Parameters
    ----------
    chunk : Chunk
        With folds.
    points, shift : as for `loss_gradient`
    left_out : integer array of shape (n_models,)
        The fold that each model is judged by, and does not learn from.
    """
    learned_by, judging = fold_weights(chunk, left_out)
    return _sums(chunk, points, shift, model_weights(learned_by.T, points.dtype), judging)


def loss_of_folds(
    chunk: Chunk, points: Array, folds: Array, shift: Array | None = None
) -> FoldSums:
    """Return the sums over the rows of some folds, and last over the rest, of the same models.

    Parameters
    ----------
    chunk : Chunk
        With folds.
    points, shift : as for `loss_gradient`
    folds : integer array

    Returns
    -------
    FoldSums
        Of (len(folds) + 1) * n_models "models": all of the first fold, and so on.
    """
    parts = [
        _sums(
            part,
            points,
            shift,
            model_weights(part.sample_weight, points.dtype),
            model_weights(part.held_out, np.dtype(np.float64)),
        )
        for part in rows_by_fold(chunk, folds)
    ]
    return FoldSums(
        _concatenated([part.learned for part in parts]),
        _concatenated([part.judged for part in parts]),
    )


def _sums(
    chunk: Chunk,
    points: Array,
    shift: Array | None,
    learned_weight: Array | None,
    held_out_weight: Array | None,
) -> FoldSums:
    loss, correct, gradient = row_losses(chunk, points, shift, learned_weight)
    learned = loss_sums(loss, correct, gradient, learned_weight)
    return FoldSums(learned, HeldOutSums(*weighted(loss, correct, held_out_weight)))


def _concatenated(parts: Sequence[Sums]) -> Sums:
    """Return sums side by side."""
    arrays = zip(*(vars(part).values() for part in parts), strict=True)
    return type(parts[0])(*map(np.concatenate, arrays))


def judge(chunk: Chunk, points: Array, shift: Array | None = None) -> HeldOutSums:
    """Return the sums that judge each model of a stack by all rows of a chunk.

    Parameters
    ----------
    chunk, points, shift : as for `loss_gradient`
    """
    loss = np.empty((len(points), len(chunk.X)), points.dtype)
    correct = np.empty(loss.shape, bool)
    with np.errstate(over="ignore", invalid="ignore"):
        for rows, _, raw in raw_blocks(chunk.X, points, shift, packing=chunk.packing):
            softmax_residual(raw, chunk.codes[rows], loss[:, rows], correct[:, rows])
    weights = model_weights(chunk.sample_weight, np.dtype(np.float64))
    return HeldOutSums(*weighted(loss, correct, weights))
