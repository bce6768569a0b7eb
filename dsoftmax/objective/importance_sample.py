"""Rows to keep in memory: which they are, and what each stands for.

A row is picked with a probability and weighs the inverse of it, so that sums over the rows
picked are, on average, those over all (Horvitz and Thompson, A generalization of sampling
without replacement from a finite universe, 1952). Whether it is picked is a function of the
seed and of its place in the data.

The first rows are picked by class. Once a model is there, others are picked by their influence
on its curvature, half of it in all directions: how uncertain the model is of a row, times the
leverage of the row, which is what a row of rare features has even where the model is certain of
it (Xu, Yang, Roosta-Khorasani, Ré and Mahoney, Sub-sampled Newton methods with non-uniform
sampling, 2016). The leverage x' A^-1 x is estimated from a few random projections (Drineas,
Magdon-Ismail, Mahoney and Woodruff, Fast approximation of matrix coherence and statistical
leverage, 2012). The other half is the curvature that the row itself has along the last step,
which the next one resembles: a few rows that the model was certain of before a long step, and is
not after it, have more of it than thousands of others.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from operator import add

import numpy as np

from dsoftmax.objective.kernel import raw_blocks, side_by_side
from dsoftmax.objective.reduction import Chunk, Reduction, take_rows
from dsoftmax.objective.softmax import probabilities
from dsoftmax.storage.records import storable
from dsoftmax.typing import Additive, Array, cached_property

_CERTAIN = 0.05  # score of a row that the model is certain of; 1 is the most
_EVEN = 0.5  # fraction of the sample that is dealt out to the classes evenly
_LEAST_BYTES, _MOST_BYTES = 1 << 22, 1 << 27
_LEAST_ROWS = 32
_STRATIFIED, _LEVERAGE = 2, 3  # parts of their seeds, unlike those of mini-batches and sketches


@storable
@dataclass(frozen=True)
class ImportanceSample(Additive):
    """Rows that were picked: a tuple of blocks for each array, in the order of the leaves.

    Attributes
    ----------
    X : (rows, n_features) each, in the stored dtype
    codes : (rows,) each, of the classes
    weight : (rows,) each, in float64: row weight times inverse probability
    inverse_probability : (rows,) each, about how many rows of the data it stands for
    fold : (rows,) each, number of the fold that it is in; no blocks without folds
    """

    X: tuple[Array, ...] = ()
    codes: tuple[Array, ...] = ()
    weight: tuple[Array, ...] = ()
    inverse_probability: tuple[Array, ...] = ()
    fold: tuple[Array, ...] = ()

    @property
    def n_rows(self) -> int:
        """Number of rows."""
        return sum(map(len, self.weight))

    @property
    def share(self) -> float:
        """About which fraction they are of the rows that count; 1 if they are all of them."""
        return min(1.0, float(self.n_rows / sum(block.sum() for block in self.inverse_probability)))

    def joined(self) -> ImportanceSample:
        """Return the same rows as one block."""
        arrays = vars(self).values()
        return ImportanceSample(*((np.concatenate(blocks),) if blocks else () for blocks in arrays))

    def every(self, stride: int) -> ImportanceSample:
        """Return one of so many rows of each block."""
        arrays = vars(self).values()
        return ImportanceSample(*(tuple(block[::stride] for block in blocks) for blocks in arrays))

    def stratified(self, class_weight: Array) -> ImportanceSample:
        """Return the rows of one block with weights that add up to those of the classes."""
        (codes,), (weight,) = self.codes, self.weight
        total = np.bincount(codes, weight, len(class_weight))
        factor = np.divide(class_weight, total, out=np.ones_like(total), where=total > 0)
        return replace(self, weight=(weight * factor[codes],))


@dataclass(frozen=True)
class StratifiedSampler:
    """Picks the rows of each class with a probability of its own, (n_classes,)."""

    rates: Array
    seed: int

    def __call__(self, chunk: Chunk) -> ImportanceSample:
        """Return the rows picked of a chunk."""
        return _picked(chunk, self.rates[chunk.codes], (self.seed, _STRATIFIED, chunk.start))


@dataclass(frozen=True)
class LeverageScore:
    """How much rows matter to the curvature at a point, and on the step to it.

    Attributes
    ----------
    ends : (2, n_features + 1, n_columns), the kernel's points where the step ends and began
    sketch : (1, n_features + 1, n_projections), random directions in the metric, likewise
    shift : as for the kernel
    shares : (2,), factors of the two parts of a score: curvature in all directions, and on the step
    """

    ends: Array
    sketch: Array
    shift: Array | None
    shares: Array = field(default_factory=lambda: np.ones(2))

    def total(self, parts: Array) -> Array:
        """Return the score of each row, (rows,), for its two parts."""
        return np.asarray(parts @ self.shares)

    def parts(self, chunk: Chunk) -> Array:
        """Return the parts of each row's score, (rows, 2): in all directions, and on the step."""
        ends, others = self.ends[:1], self.others
        result = np.empty((len(chunk.X), 2))
        with np.errstate(over="ignore", invalid="ignore"):
            points = side_by_side(ends, others)
            for rows, _, (raw,) in raw_blocks(chunk.X, points, self.shift, packing=chunk.packing):
                result[rows] = self.of_raw(raw)
        return self.weighted(result, chunk)

    @cached_property
    def others(self) -> Array:
        """What else to multiply the rows by: (n_features + 1, n_others), see `ExtraColumns`."""
        return np.concatenate([self.ends[1], *self.sketch], axis=1)

    def of_raw(self, raw: Array) -> Array:
        """Return the parts of rows, (b, 2), for raw predictions of the point and of `others`."""
        n_columns = self.ends.shape[2]
        ends = raw[: 2 * n_columns].reshape(2, n_columns, -1)
        projections = raw[2 * n_columns :]
        p, step = probabilities(ends), ends[0] - ends[1]
        leverage = (projections * projections).mean(axis=0)
        everywhere = (1 + _CERTAIN - (p[0] * p[0]).sum(axis=0)) * leverage
        return np.stack([everywhere, _curvature(p, step).max(axis=0)], axis=1)

    def weighted(self, parts: Array, chunk: Chunk) -> Array:
        """Return parts of the scores of rows, multiplied by the weights of the rows."""
        return parts if chunk.sample_weight is None else parts * chunk.sample_weight[:, None]

    def balanced(self, parts: Array) -> LeverageScore:
        """Return the same score with shares that give both parts the same total over these rows."""
        total = parts.sum(axis=0)
        return replace(self, shares=np.divide(1, total, out=np.zeros(2), where=total > 0))


@dataclass(frozen=True)
class LeverageSampler:
    """Picks rows with a probability of `scale` times their leverage score, at most one."""

    leverage: LeverageScore
    scale: float
    seed: int

    def __call__(self, chunk: Chunk) -> ImportanceSample:
        """Return the rows picked of a chunk."""
        return self.pick(chunk, self.leverage.parts(chunk))

    def pick(self, chunk: Chunk, parts: Array) -> ImportanceSample:
        """Return the rows picked, for the parts of their scores."""
        score = self.leverage.total(parts)
        # An infinite scale picks every row, even of score zero: fmin takes inf * 0, a NaN, for one.
        with np.errstate(invalid="ignore"):
            probability = np.fmin(1.0, self.scale * score)
        return _picked(chunk, probability, (self.seed, _LEVERAGE, chunk.start))


def _curvature(p: Array, step: Array) -> Array:
    """Return the curvature of the loss of each row, (2, b), along a step of raw predictions."""
    if len(step) < p.shape[1]:
        step = np.concatenate([np.zeros_like(step), step])
    deviation = step - (p * step).sum(axis=1, keepdims=True)
    weighted = p * deviation  # first, since the square may be infinite where p is zero
    weighted *= deviation
    return np.asarray(weighted.sum(axis=1))


def _picked(chunk: Chunk, probability: Array, key: tuple[int, ...]) -> ImportanceSample:
    weight = np.ones(len(chunk.X)) if chunk.sample_weight is None else chunk.sample_weight
    is_picked = np.random.default_rng(key).random(len(weight)) < probability
    rows = np.flatnonzero(is_picked & (weight > 0))
    X = take_rows(chunk.X, rows)
    codes = chunk.codes[rows].astype(np.int64)
    inverse_probability = 1 / probability[rows]
    fold = () if chunk.fold is None else (chunk.fold[rows],)
    return ImportanceSample(
        (X,), (codes,), (weight[rows] * inverse_probability,), (inverse_probability,), fold
    )


def rows_of(rule: StratifiedSampler | LeverageSampler) -> Reduction[ImportanceSample]:
    """Return the reduction that collects the rows which a rule picks."""
    return Reduction("rows", rule, add, grows=True)


def auto_size(n_rows: int, n_features: int, n_classes: int, row_bytes: int) -> int:
    """Return how many rows to keep: a 32nd of them, or more where there are many coefficients.

    At least 8 * n_features * sqrt(n_classes), since a curvature is only known in directions that
    the rows have; at least 4 MiB of them; at most a third of the rows, and 128 MiB. A 32nd can be
    evaluated some 30 times in the time of a pass.

    Examples
    --------
    >>> auto_size(60_000, 784, 10, 784), auto_size(1_200_000, 784, 10, 784)
    (19833, 37500)
    >>> auto_size(1_797, 64, 10, 64)
    1797
    """
    row_bytes = max(row_bytes, 1)
    small = max(_LEAST_BYTES // row_bytes, _LEAST_ROWS)
    if n_rows <= small:
        return n_rows
    wanted = max(n_rows // 32, int(8 * n_features * n_classes**0.5), small)
    return max(_LEAST_ROWS, min(wanted, n_rows // 3, _MOST_BYTES // row_bytes))


def class_rates(class_rows: Array, size: int) -> Array:
    """Return the probability to pick a row of each class, for about `size` rows in all.

    Half of them are dealt out to the classes alike, half by their rows, so that rare classes
    are known as well as others; what a small class leaves over goes to the rest.

    Parameters
    ----------
    class_rows : array of shape (n_classes,)
        Rows of each class.
    size : int

    Examples
    --------
    >>> class_rates(np.array([10, 990]), 100)
    array([1.        , 0.09090909])
    """
    rows = class_rows.astype(float)
    if size >= rows.sum():
        return np.ones(len(rows))
    shares = _EVEN / np.count_nonzero(rows) + (1 - _EVEN) * rows / rows.sum()
    quota, full = np.zeros(len(rows)), rows == 0
    while True:
        free = ~full
        quota[free] = (size - rows[full].sum()) * shares[free] / shares[free].sum()
        over = free & (quota > rows)
        if not over.any():
            break
        full |= over
    quota[full] = rows[full]
    rates = np.divide(quota, rows, out=np.ones_like(rows), where=rows > 0)
    return np.asarray(np.minimum(1.0, rates))


def scale_for(score: Array, weight: Array, size: int) -> float:
    """Return the scale with which `LeverageSampler` picks about `size` rows.

    Parameters
    ----------
    score : array of shape (rows,)
        Leverage scores of some rows.
    weight : array of shape (rows,)
        How many rows each of them stands for.
    size : int
    """
    order = np.argsort(score)[::-1]
    score, weight = score[order], weight[order]
    # By how many rows are certain to be picked: their number, and the scores of the others.
    picked = np.concatenate([[0.0], np.cumsum(weight)])
    rest = np.concatenate([np.cumsum((score * weight)[::-1])[::-1], [0.0]])
    for n_certain in range(len(score)):
        if rest[n_certain] <= 0:
            break
        scale = (size - picked[n_certain]) / rest[n_certain]
        if scale * score[n_certain] <= 1:
            return float(max(scale, 0.0))
    return float("inf")
