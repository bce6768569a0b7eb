"""The objective on the rows that are kept in memory: evaluated by the threads of this process."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from dsoftmax.data.cf_encoding import CFEncoding
from dsoftmax.data.folds import UserFolds
from dsoftmax.data.numpy_array import MemoryArray
from dsoftmax.data.source import Source
from dsoftmax.objective.evaluation import Evaluation
from dsoftmax.objective.gram import MOST_FEATURES, gram_of
from dsoftmax.objective.importance_sample import ImportanceSample, LeverageSampler, scale_for
from dsoftmax.objective.objective import Objective
from dsoftmax.objective.reduction import Reduction
from dsoftmax.runtime.base import Executor
from dsoftmax.runtime.reduce import Pass, full_pass
from dsoftmax.runtime.spans import Span
from dsoftmax.solvers.base import Request
from dsoftmax.solvers.linalg import inverse, transposed_product
from dsoftmax.typing import Array, cached_property

_LEAST_SPAN, _MOST_SPAN = 1 << 20, 1 << 23  # bytes: long ones, since threads wait for each other
_FEW_SPANS = 4
_PROJECTIONS = 8
_ROWS_A_FEATURE = 8


class Gram(NamedTuple):
    """The mean of [x, 1] [x, 1]' over some rows, x as the kernel has it, and how many they are."""

    mean: Array
    n_rows: int


@dataclass(frozen=True)
class SampleObjective:
    """Evaluates the objective on the rows of the sample, in memory.

    Attributes
    ----------
    rows : ImportanceSample of one block
    dtype : of the kernel
    executor : the threads
    encoding : of the rows, as for X of the source
    """

    rows: ImportanceSample
    dtype: np.dtype[np.floating]
    executor: Executor
    encoding: CFEncoding | None = None

    def evaluate(self, objective: Objective, request: Request) -> Evaluation:
        """Return the objective at the points of a request, as far as the sample tells it."""
        if request.use_float64 and self.dtype != np.float64:
            wide = np.dtype(np.float64)
            return replace(self, dtype=wide).evaluate(replace(objective, dtype=wide), request)
        sums = self.reduce(objective.reduction(objective.to_kernel(request.points)))
        total = float(self.rows.weight[0].sum())
        here = objective.rescaled(total, self.rows.n_rows)
        result = here.evaluation(request.points, sums, self.rows.n_rows)
        result = replace(result, share=self.rows.share)
        if not request.metric:
            return result
        return replace(result, root=self.root(objective, self.gram(objective)))

    def leverage_sampler(
        self, objective: Objective, ends: Array, root: Array | None, seed: int, size: int
    ) -> LeverageSampler:
        """Return a sampler that picks about `size` of all rows by their leverage.

        Parameters
        ----------
        objective : Objective
        ends : array of shape (2, n_features + 1, n_columns)
            Of the way on which they matter; the first is the point at which they do.
        root : array of shape (n_features + 1, n_features + 1), optional
            Of the metric by which they differ; otherwise that of these rows.
        seed : int
        size : int
        """
        if root is None:
            root = self.root(objective, self.gram(objective))
        leverage = objective.leverage(ends, _sketch(root, len(ends[0]), seed))
        parts: Array = self.reduce(Reduction("leverage", leverage.parts, _joined))
        leverage = leverage.balanced(parts)
        (inverse_probability,) = self.rows.inverse_probability  # and weighs as much
        scale = scale_for(parts @ leverage.shares / inverse_probability, inverse_probability, size)
        return LeverageSampler(leverage, scale, seed)

    def gram(self, objective: Objective) -> Gram | None:
        """Return the mean of [x, 1] [x, 1]' over as many rows as tell its eigenvalues.

        None for too many features. Of the objective, what the kernel subtracts from x matters.
        """
        n_features = self.rows.X[0].shape[1]
        if n_features > MOST_FEATURES:
            return None
        stride = max(1, self.rows.n_rows // (_ROWS_A_FEATURE * n_features))
        few = replace(self, rows=self.rows.every(stride))
        return Gram(few.reduce(gram_of(objective)) / few.rows.weight[0].sum(), few.rows.n_rows)

    def root(self, objective: Objective, gram: Gram | None) -> Array | None:
        """Return what makes the features of the rows uncorrelated, in a solver's coordinates.

        It is lower triangular.
        """
        if gram is None:
            return None
        return inverse(np.linalg.cholesky(objective.hessian_approx(gram.mean, gram.n_rows)))

    def reduce(self, reduction: Reduction[Any]) -> Any:
        """Reduce over the rows of the sample."""
        return self._pass.reduce(reduction)[0]

    @cached_property
    def _pass(self) -> Pass:
        """The tasks of the sample, planned once: searches evaluate it again and again."""
        (X,), (codes,), (weight,) = self.rows.X, self.rows.codes, self.rows.weight
        source = Source(
            MemoryArray("the sample of X", X, encoding=self._packed),
            MemoryArray("the sample of y", codes),
            MemoryArray("the sample's weights", weight),
            self.dtype,
        )
        if self.rows.fold:
            (fold,) = self.rows.fold
            names, classes = (np.arange(each.max(initial=0) + 1) for each in (fold, codes))
            folds = MemoryArray("the sample's folds", fold)
            source = replace(source, cv=folds, folds=UserFolds(names), classes=classes)
        return Pass(self.executor, source, full_pass(self._spans))

    @property
    def _packed(self) -> CFEncoding | None:
        """The encoding, of rows of which none has a missing value."""
        return None if self.encoding is None else replace(self.encoding, fill_values=())

    @property
    def _spans(self) -> tuple[Span, ...]:
        n_rows, n_bytes = self.rows.n_rows, self.rows.X[0].nbytes
        n_spans = max(1, n_bytes // _MOST_SPAN, min(_FEW_SPANS, n_bytes // _LEAST_SPAN))
        length = -(-n_rows // (1 << (n_spans - 1).bit_length()))
        return tuple((start, min(start + length, n_rows)) for start in range(0, n_rows, length))


def _sketch(root: Array | None, n_rows: int, seed: int) -> Array:
    """Return random directions (n_rows, n_projections) that measure leverage."""
    directions = np.random.default_rng((seed, 4)).normal(size=(n_rows, _PROJECTIONS))
    return directions if root is None else transposed_product(root, directions)


def _joined(left: Array, right: Array) -> Array:
    return np.concatenate([left, right])
