"""How a fit is judged by rows that it does not learn from, and when it stops for that."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from dsoftmax.classes import report_left_out, require_classes, scan_labels
from dsoftmax.errors import DataError
from dsoftmax.events import PassEnded, ValidationScores
from dsoftmax.metrics import MetricSums, metrics_of
from dsoftmax.objective import Objective
from dsoftmax.reduction import Array
from dsoftmax.runtime.executors import Executor
from dsoftmax.runtime.reduce import Begun, Spent, full_pass, reduce
from dsoftmax.runtime.spans import cut_spans
from dsoftmax.runtime.worker import Outcome
from dsoftmax.scores import scores_of
from dsoftmax.sources import open_data
from dsoftmax.sources.base import Source

Watch = Callable[[Outcome, Begun], None]


class Apart(NamedTuple):
    """Rows to be judged by that are no part of those to learn from.

    Attributes
    ----------
    source : Source, with a `y`
    executor : where it is reduced
    """

    source: Source
    executor: Executor

    @property
    def key(self) -> str:
        """The name under which workers remember the rows."""
        return f"{self.executor.run_key}-apart"


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
    with readable():
        found = open_data(X, y, sample_weight)
        if found.y is None:
            raise DataError("y is missing: pass y_val with X_val, one label for each row")
        if (got := found.n_features) != (expected := source.n_features):
            raise DataError(f"{found.X.name} has {got} features; expected {expected}, as in X")
        _check_names(found.feature_names, source.feature_names)
    return found


def require_labels(apart: Apart, classes: Array) -> None:
    """Read the labels and weights before anything is learned, and say which rows are left out.

    Raises
    ------
    DataError
        If a label is not one of `classes`, a weight is none, or no row counts.
    """
    source, leaves = apart.source, full_pass(cut_spans(apart.source.chunks, apart.source.row_bytes))
    with readable():
        _, counts = scan_labels(replace(source, most_bad=0), classes, leaves, apart.executor)
        require_classes(source, classes, counts, 1)
    report_left_out(source, counts, "validation rows")


def _check_names(got: tuple[str, ...] | None, expected: tuple[str, ...] | None) -> None:
    if got is None or expected is None or got == expected:
        return
    column = next(i for i, names in enumerate(zip(got, expected, strict=True)) if len({*names}) > 1)
    raise DataError(
        f"column {column} is {got[column]!r}, and {expected[column]!r} in X; the features must "
        "have the same names, in the same order"
    )


def sums_apart(
    apart: Apart, objective: Objective, point: Array, classes: Array, watch: Watch
) -> tuple[MetricSums, Spent]:
    """Return the metrics of a solver's point on the rows that are apart, and what they cost.

    Raises
    ------
    DataError
        If a value is not finite.
    """
    # As for the rows of the fit: what is computed in, and no chunk is left out in silence.
    source = replace(apart.source, classes=classes, dtype=objective.dtype, most_bad=0)
    (kernel,) = objective.kernel(point[None])
    reduction = metrics_of(kernel, objective.coordinates.shift)
    leaves = full_pass(cut_spans(source.chunks, source.row_bytes))
    with readable():
        return reduce(
            apart.executor, source, reduction, leaves, keep=apart.key, gives_way=True, watch=watch
        )


@contextmanager
def readable() -> Iterator[None]:
    """Say of what is wrong with the data that it is with those of the validation."""
    try:
        yield
    except DataError as error:
        raise DataError(f"in the validation data, {error}") from error


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
    coefficients : (n_features, n_columns) and intercepts (n_columns,), in units of the data
    value : its whole objective (mini-batch: the mean over the batches of its epoch)
    loss : its validation loss
    passes : after how many it was reached
    stale : passes in a row, until now, without enough progress
    """

    coefficients: tuple[Array, Array]
    value: float
    loss: float
    passes: int
    stale: int = 0

    def on_other_rows(self, *, apart: bool) -> Best:
        """Return what it is when rows are left out: what is known of it was on all of them.

        Only rows that are apart still say of it what they said.
        """
        return replace(self, value=np.nan, loss=self.loss if apart else np.inf, stale=0)


def better(
    best: Best | None, coefficients: tuple[Array, Array], event: PassEnded, tol: float
) -> Best:
    """Return the best model after another pass, which has to lower the loss by tol of it."""
    assert event.validation is not None, "validation rows have judged it"
    loss, passes = event.validation.loss, int(event.passes)
    if best is None or np.isinf(best.loss):
        return Best(coefficients, event.loss, loss if np.isfinite(loss) else np.inf, passes)
    stale = 0 if loss < best.loss - tol * best.loss else best.stale + 1
    if loss < best.loss:
        return Best(coefficients, event.loss, loss, passes, stale)
    return replace(best, stale=stale)
