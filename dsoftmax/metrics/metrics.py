"""Metrics of a model over rows, each a sum: what `evaluate` and `score` add up."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from operator import add

import numpy as np

from dsoftmax.metrics.unknown_labels import UnknownLabels, unknown_labels
from dsoftmax.objective.kernel import raw_blocks
from dsoftmax.objective.labels import UNKNOWN
from dsoftmax.objective.reduction import Chunk, Reduction
from dsoftmax.objective.softmax import log_probabilities
from dsoftmax.objective.units import raw_from_afar
from dsoftmax.storage.records import storable
from dsoftmax.typing import Additive, Array

MOST_RANKED = 10
_WIDE = np.dtype(np.float64)
BINS = np.linspace(0.0, 1.0, 16)  # of confidence: 15 of equal width


@storable
@dataclass(frozen=True)
class Pairs:
    """Weights of (label, prediction) pairs: only those that occur, since most of K^2 do not.

    Attributes
    ----------
    keys : (n,), label * K + prediction, sorted; K is the label of those that are unknown
    weight : (n,)
    """

    keys: Array
    weight: Array

    def __add__(self, other: Pairs) -> Pairs:
        return pairs(
            np.concatenate([self.keys, other.keys]), np.concatenate([self.weight, other.weight])
        )

    def matrix(self, n_classes: int) -> Array:
        """Return the confusion matrix: labels, last the unknown ones together, by predictions."""
        full = np.zeros((n_classes + 1) * n_classes)
        full[self.keys] = self.weight
        return full.reshape(n_classes + 1, n_classes)


def pairs(keys: Array, weight: Array) -> Pairs:
    """Return the sums of the weights of equal keys."""
    distinct, where = np.unique(keys, return_inverse=True)
    return Pairs(distinct, np.bincount(where, weight, len(distinct)))


@storable
@dataclass(frozen=True)
class MetricSums(Additive):
    """Weighted sums over rows.

    Attributes
    ----------
    rows : how many rows count
    weight : total weight
    log_loss : weighted sum of -log p(label)
    squares : weighted sum of the squared distances of the probabilities from the label, over all
        classes, or of the second of two alone
    ranks : (MOST_RANKED,), weight of the rows of which so many classes are more probable than the
        label; the first of equal ones is taken for the more probable
    pairs : of label and prediction
    bins : (15, 3), weight, confidence and correct weight of the rows by their confidence
    known_weight : total weight of the rows with a label that the model knows, of which alone there
        are log loss, squares and ranks
    unknown : the labels of the other rows
    """

    rows: int
    weight: float
    log_loss: float
    squares: float
    ranks: Array
    pairs: Pairs
    bins: Array
    known_weight: float
    unknown: UnknownLabels


def metric_sums(chunk: Chunk, point: Array, shift: Array | None) -> MetricSums:
    """Return the metric sums of a chunk under a kernel's point (n_features + 1, n_columns).

    Raises
    ------
    DataError
        At the first value of X that is not finite.
    """
    weight = np.ones(len(chunk.X)) if chunk.sample_weight is None else chunk.sample_weight
    n_classes = max(point.shape[1], 2)
    log_loss = squares = 0.0
    ranks, bins = np.zeros(MOST_RANKED), np.zeros((len(BINS) - 1, 3))
    keys = np.empty(len(chunk.X), np.int64)
    is_known = chunk.codes != UNKNOWN
    known_codes, known_weight = np.where(is_known, chunk.codes, 0), np.where(is_known, weight, 0.0)
    with np.errstate(over="ignore", invalid="ignore"):
        for rows, _, raw in raw_blocks(chunk.X, point[None], shift, packing=chunk.packing):
            codes, block_weight = known_codes[rows], known_weight[rows]
            if not np.isfinite(raw).all():
                chunk.require_finite(point.dtype)
                far = ~np.isfinite(raw[0]).all(axis=0)
                few = chunk.rows(rows.start, rows.stop).take(np.flatnonzero(far))
                raw[0][:, far] = raw_from_afar(few.decoded(_WIDE), point, shift)
            log_p = log_probabilities(raw[0])
            log_loss -= float(np.dot(block_weight, log_p[codes, np.arange(len(codes))]))
            predicted = _predicted(raw[0])
            keys[rows] = np.where(is_known[rows], codes, n_classes) * n_classes + predicted
            ranks += _ranks(_scores(raw[0]), codes, block_weight)
            p = np.exp(log_p)
            confidence = p.max(axis=0).astype(np.float64)
            bins += _binned(confidence, predicted == chunk.codes[rows], weight[rows])
            squares += float(np.dot(block_weight, _squares(p, codes)))
    return MetricSums(
        rows=len(chunk.codes[chunk.used]),
        weight=float(weight.sum()),
        log_loss=log_loss,
        squares=squares,
        ranks=ranks,
        pairs=pairs(keys, weight),
        bins=bins,
        known_weight=float(known_weight.sum()),
        unknown=unknown_labels(chunk, weight),
    )


def _predicted(raw: Array) -> Array:
    """Return the class of each row, as `predict` does: rounded probabilities have more ties."""
    codes: Array = (raw[0] > 0).astype(np.int64) if len(raw) == 1 else raw.argmax(axis=0)
    return codes


def _scores(raw: Array) -> Array:
    return np.concatenate([np.zeros_like(raw), raw]) if len(raw) == 1 else raw


def _ranks(scores: Array, codes: Array, weight: Array) -> Array:
    label_scores = scores[codes, np.arange(len(codes))]
    rank = (scores > label_scores).sum(axis=0)
    equal = scores == label_scores
    if equal.sum() > len(codes):
        rank += (equal & (np.arange(len(scores))[:, None] < codes)).sum(axis=0)
    near = rank < MOST_RANKED
    counts: Array = np.bincount(rank[near], weight[near], MOST_RANKED)
    return counts


def _binned(confidence: Array, correct: Array, weight: Array) -> Array:
    # By the inner edges, each bin with its upper one, as in sklearn.calibration.
    where = np.searchsorted(BINS[1:-1], confidence)
    columns = (weight, weight * confidence, weight * correct)
    return np.stack([np.bincount(where, column, len(BINS) - 1) for column in columns], axis=1)


def _squares(p: Array, codes: Array) -> Array:
    """Return the squared distance of each row's probabilities from its label; overwrites p."""
    p[codes, np.arange(len(codes))] -= 1
    distances = p[1:] if len(p) == 2 else p
    squares: Array = np.einsum("kb,kb->b", distances, distances, dtype=np.float64)
    return squares


def _held_out_sums(chunk: Chunk, point: Array, shift: Array | None) -> MetricSums:
    return metric_sums(chunk.only_held_out(), point, shift)


def held_out_metrics_of(point: Array, shift: Array | None) -> Reduction[MetricSums]:
    """Return the reduction that evaluates one model on the rows that are held out."""
    return Reduction("evaluate", partial(_held_out_sums, point=point, shift=shift), add)


def metrics_of(point: Array, shift: Array | None) -> Reduction[MetricSums]:
    """Return the reduction that evaluates one model."""
    return Reduction("evaluate", partial(metric_sums, point=point, shift=shift), add)
