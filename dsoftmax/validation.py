"""How a fit is judged by rows that it does not learn from, and when it stops for that."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from dsoftmax.errors import DataError
from dsoftmax.events import PassEnded, ValidationScores
from dsoftmax.metrics import MetricSums, metrics_of
from dsoftmax.objective import Objective
from dsoftmax.reduction import Array
from dsoftmax.runtime.executors import Executor
from dsoftmax.runtime.reduce import full_pass, reduce
from dsoftmax.runtime.spans import cut_spans
from dsoftmax.scores import scores_of
from dsoftmax.sources import open_data
from dsoftmax.sources.base import Source


class Apart(NamedTuple):
    """Rows to be judged by that are no part of those to learn from.

    Attributes
    ----------
    source : Source, with a `y`
    executor : where it is reduced
    """

    source: Source
    executor: Executor


def open_validation(
    source: Source, X: Any, y: Any = None, sample_weight: Any = None
) -> Source | None:
    """Return the source of validation rows that go with those of a fit, None without any.

    Raises
    ------
    DataError
        If there are labels or weights without rows, rows without labels, or other features.
    """
    if X is None:
        if y is not None or sample_weight is not None:
            raise DataError("X_val is missing: pass the rows of y_val and sample_weight_val too")
        return None
    try:
        found = open_data(X, y, sample_weight)
        if found.y is None:
            raise DataError("y is missing: pass y_val with X_val, one label for each row")
        if (got := found.n_features) != (expected := source.n_features):
            raise DataError(f"{found.X.name} has {got} features; expected {expected}, as in X")
    except DataError as error:
        raise DataError(f"in the validation data, {error}") from error
    return found


def sums_apart(apart: Apart, objective: Objective, point: Array, classes: Array) -> MetricSums:
    """Return the metrics of a solver's point on the rows that are apart.

    Raises
    ------
    DataError
        If a label is not one of `classes`, a value is not finite, or no row counts.
    """
    # As for the rows of the fit: what is computed in, and no chunk is left out in silence.
    source = replace(apart.source, classes=classes, dtype=objective.dtype, most_bad=0)
    (kernel,) = objective.kernel(point[None])
    reduction = metrics_of(kernel, objective.coordinates.shift)
    leaves = full_pass(cut_spans(source.chunks, source.row_bytes))
    try:
        sums, _ = reduce(apart.executor, source, reduction, leaves)
        if not sums.weight > 0:
            raise DataError("all weights are zero; at least one row must count")
    except DataError as error:
        raise DataError(f"in the validation data, {error}") from error
    return sums


def scored(sums: MetricSums, classes: Array) -> ValidationScores:
    """Return what sums over validation rows amount to."""
    scores = scores_of(sums, classes, weighted=True)
    return ValidationScores(
        scores["log_loss"], scores["accuracy"], scores["balanced_accuracy"], scores["f1_macro"],
        scores["brier_score"], scores["ece"],
    )  # fmt: skip


@dataclass(frozen=True)
class Best:
    """The model of the lowest validation loss so far.

    Attributes
    ----------
    point : (n_features + 1, n_columns)
    value : its whole objective (mini-batch: the mean over the batches of its epoch)
    loss : its validation loss
    stale : passes in a row, until now, without enough progress
    """

    point: Array
    value: float
    loss: float = np.inf
    stale: int = 0

    def after(self, point: Array, event: PassEnded, tol: float) -> Best:
        """Return the best model after another pass, which has to lower the loss by tol of it."""
        assert event.validation is not None
        loss = event.validation.loss
        enough = loss < self.loss - tol * abs(self.loss) if np.isfinite(self.loss) else True
        stale = 0 if enough else self.stale + 1
        if loss < self.loss:
            return Best(point, event.loss, loss, stale)
        return replace(self, stale=stale)
