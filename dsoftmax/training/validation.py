"""How a fit is judged by rows that it does not learn from, and when it stops for that."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from dsoftmax.data.opening import open_data
from dsoftmax.data.source import Source
from dsoftmax.errors import DataError
from dsoftmax.events import PassEnded, ValidationScores
from dsoftmax.metrics.metrics import MetricSums, metrics_of
from dsoftmax.metrics.scores import scores_of
from dsoftmax.objective.objective import Objective
from dsoftmax.runtime.base import Executor
from dsoftmax.runtime.cost import Cost, PartialSum, TaskResult
from dsoftmax.runtime.reduce import Pass, full_pass
from dsoftmax.runtime.spans import cut_spans
from dsoftmax.solvers.base import State, Status
from dsoftmax.training.label_scan import report_left_out, require_classes, scan_labels
from dsoftmax.training.params import FitParams
from dsoftmax.training.run_state import BestModel
from dsoftmax.typing import Array

Watch = Callable[[TaskResult, PartialSum], None]


class ValidationSet(NamedTuple):
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


def require_labels(validation: ValidationSet, classes: Array) -> None:
    """Read the labels and weights before anything is learned, and say which rows are left out.

    Raises
    ------
    DataError
        If a label is not one of `classes`, a weight is none, or no row counts.
    """
    source, leaves = (
        validation.source,
        full_pass(cut_spans(validation.source.chunks, validation.source.row_bytes)),
    )
    with readable():
        _, counts = scan_labels(
            replace(source, max_bad_chunks=0), classes, leaves, validation.executor
        )
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
    validation: ValidationSet, objective: Objective, point: Array, classes: Array, watch: Watch
) -> tuple[MetricSums, Cost]:
    """Return the metrics of a solver's point on the rows that are apart, and what they cost.

    Raises
    ------
    DataError
        If a value is not finite.
    """
    # As for the rows of the fit: what is computed in, and no chunk is left out in silence.
    source = replace(validation.source, classes=classes, dtype=objective.dtype, max_bad_chunks=0)
    (kernel,) = objective.to_kernel(point[None])
    reduction = metrics_of(kernel, objective.coordinates.shift)
    leaves = full_pass(cut_spans(source.chunks, source.row_bytes))
    with readable():
        read = Pass(
            validation.executor, source, leaves, cache_name=validation.key, evict_others=False
        )
        return read.reduce(reduction, on_task_done=watch)


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
        scores["log_loss"],
        scores["accuracy"],
        scores["balanced_accuracy"],
        scores["f1_macro"],
        scores["brier_score"],
        scores["ece"],
    )


def better(
    best: BestModel | None, coefficients: tuple[Array, Array], event: PassEnded, tol: float
) -> BestModel:
    """Return the best model after another pass, which has to lower the loss by tol of it."""
    assert event.validation is not None, "validation rows have judged it"
    loss, passes = event.validation.loss, int(event.passes)
    if best is None or np.isinf(best.loss):
        return BestModel(coefficients, event.loss, loss if np.isfinite(loss) else np.inf, passes)
    n_no_improvement = 0 if loss < best.loss - tol * best.loss else best.n_no_improvement + 1
    if loss < best.loss:
        return BestModel(coefficients, event.loss, loss, passes, n_no_improvement)
    return replace(best, n_no_improvement=n_no_improvement)


_GAP_FRACTION = (
    1 / 300
)  # of what the choice of the rows leaves uncertain: a gap is known to a factor
_MIN_ROWS_PER_COEFFICIENT = (
    10  # below, that is not half the number of coefficients over that of rows
)


def status_after(
    state: State, gap: float | None, params: FitParams, best: BestModel | None, n_rows: int
) -> Status:
    """Return how a fit goes on after a pass.

    Parameters
    ----------
    state : of the solver
    gap : its estimate of how far the objective is above its minimum, if it has one
    params : Settings
    best : what validation rows say so far, if they are to
    n_rows : how many it learns from

    Notes
    -----
    The best coefficients for these rows are worse, on all rows that there could be, than the best
    ones for those by half the number of coefficients over that of rows, on average and without a
    penalty (Wilks, Annals of Mathematical Statistics 9, 1938). To come nearer to them than a
    fraction of that gains next to nothing on other rows (Bottou and Bousquet, The tradeoffs of
    large scale learning, 2008).
    """
    if state.status is not Status.RUNNING:
        return state.status
    if best is not None and best.n_no_improvement >= params.n_iter_no_change:
        return Status.EARLY
    near = (
        gap is not None and params.statistical and gap <= _GAP_FRACTION * uncertain(state, n_rows)
    )
    return Status.STATISTICAL if near else Status.RUNNING


def uncertain(state: State, n_rows: int) -> float:
    """Return what the choice of the rows leaves uncertain of the objective, 0 if too few tell."""
    height, width = state.point.shape
    n_coefficients = height * max(width - 1, 1)  # what is added to all classes alike is none
    enough = n_rows >= _MIN_ROWS_PER_COEFFICIENT * n_coefficients
    return n_coefficients / (2 * n_rows) if enough else 0.0
