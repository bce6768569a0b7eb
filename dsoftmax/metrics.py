"""Metrics of a model over rows, each a sum: what `evaluate` and `score` add up."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from operator import add

import numpy as np

from dsoftmax.loss import log_probabilities, raw_blocks
from dsoftmax.reduction import Array, Chunk, Reduction


@dataclass(frozen=True)
class MetricSums:
    """Weighted sums over rows.

    Attributes
    ----------
    rows : how many rows count
    weight : total weight
    log_loss : weighted sum of -log p(label)
    correct : weight of the rows whose label is the predicted one
    """

    rows: int
    weight: float
    log_loss: float
    correct: float

    def __add__(self, other: MetricSums) -> MetricSums:
        return MetricSums(
            self.rows + other.rows,
            self.weight + other.weight,
            self.log_loss + other.log_loss,
            self.correct + other.correct,
        )


def metric_sums(chunk: Chunk, point: Array, shift: Array | None) -> MetricSums:
    """Return the metric sums of a chunk under a kernel's point (n_features + 1, n_columns).

    Raises
    ------
    DataError
        At the first value of X that is not finite.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        sums = _metric_sums(chunk, point, shift)
    if not np.isfinite(sums.log_loss):
        chunk.require_finite(point.dtype)
    return sums


def _metric_sums(chunk: Chunk, point: Array, shift: Array | None) -> MetricSums:
    weight = np.ones(len(chunk.X)) if chunk.sample_weight is None else chunk.sample_weight
    log_loss = correct = 0.0
    for rows, _, raw in raw_blocks(chunk.X, point[None], shift):
        log_p, codes = log_probabilities(raw[0]), chunk.codes[rows]
        own = log_p[codes, np.arange(len(codes))]
        log_loss -= float(np.dot(weight[rows], own))
        correct += float(weight[rows] @ (log_p.argmax(axis=0) == codes))
    return MetricSums(len(chunk.codes[chunk.used]), float(weight.sum()), log_loss, correct)


def metrics_of(point: Array, shift: Array | None) -> Reduction[MetricSums]:
    """Return the reduction that evaluates one model."""
    return Reduction("evaluate", partial(metric_sums, point=point, shift=shift), add)
