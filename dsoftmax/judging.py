"""Losses on rows that models do not learn from, in the read in which they learn from others."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dsoftmax.folds import learned_and_judged
from dsoftmax.loss import (
    LossSums,
    loss_sums,
    model_weights,
    raw_blocks,
    row_losses,
    softmax_residual,
    weighted,
)
from dsoftmax.reduction import Array, Chunk


@dataclass(frozen=True)
class Judged:
    """Sums over the rows that judge each model of a stack, in float64, all (n_models,).

    Attributes
    ----------
    loss, correct, weight : as of LossSums
    """

    loss: Array
    correct: Array
    weight: Array

    def __add__(self, other: Judged) -> Judged:
        return Judged(
            self.loss + other.loss, self.correct + other.correct, self.weight + other.weight
        )


@dataclass(frozen=True)
class FoldSums:
    """Sums over the rows that models learn from, and over those that they are judged by."""

    learned: LossSums
    judged: Judged

    def __add__(self, other: FoldSums) -> FoldSums:
        return FoldSums(self.learned + other.learned, self.judged + other.judged)


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
    learned_by, judging = learned_and_judged(chunk, left_out)
    teaching = model_weights(learned_by.T, points.dtype)
    loss, correct, gradient = row_losses(chunk, points, shift, teaching)
    learned = loss_sums(loss, correct, gradient, teaching)
    return FoldSums(learned, Judged(*weighted(loss, correct, judging)))


def judge(chunk: Chunk, points: Array, shift: Array | None = None) -> Judged:
    """Return the sums that judge each model of a stack by all rows of a chunk.

    Parameters
    ----------
    chunk, points, shift : as for `loss_gradient`
    """
    loss = np.empty((len(points), len(chunk.X)), points.dtype)
    correct = np.empty(loss.shape, bool)
    with np.errstate(over="ignore", invalid="ignore"):
        for rows, _, raw in raw_blocks(chunk.X, points, shift):
            softmax_residual(raw, chunk.codes[rows], loss[:, rows], correct[:, rows])
    weights = model_weights(chunk.sample_weight, np.dtype(np.float64))
    return Judged(*weighted(loss, correct, weights))
