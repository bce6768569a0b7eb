"""Validation rows that are not part of the training data, and the scores of a model on them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NamedTuple

from dsoftmax.data.axes import feature_axis, require_same_feature_axis
from dsoftmax.data.opening import open_data
from dsoftmax.data.source import Source
from dsoftmax.errors import DataError, quoted
from dsoftmax.events import ValidationScores
from dsoftmax.metrics.metrics import MetricSums, metrics_of
from dsoftmax.metrics.scores import scores_of
from dsoftmax.objective.objective import Objective
from dsoftmax.runtime.base import Executor
from dsoftmax.runtime.cost import Cost, PartialSum, TaskResult
from dsoftmax.runtime.reduce import Pass, full_pass
from dsoftmax.runtime.spans import cut_spans
from dsoftmax.training.label_scan import report_left_out, require_classes, scan_labels
from dsoftmax.typing import Array


class ValidationSet(NamedTuple):
    """Validation rows that are not part of the training data.

    Attributes
    ----------
    source : Source, with a `y`
    executor : where it is reduced
    """

    source: Source
    executor: Executor

    @property
    def key(self) -> str:
        """The name under which workers cache the rows."""
        return f"{self.executor.run_key}-validation"


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
        # Stored numbers are read as those of the fit are.
        decode = source.decode or isinstance(X, Source)
        found = open_data(X, y, sample_weight, decode=decode)
        if found.y is None:
            raise DataError("y is missing: pass y_val with X_val, one label for each row")
        if (got := found.n_features) != (expected := source.n_features):
            raise DataError(f"{found.X.name} has {got} features; expected {expected}, as in X")
        _check_names(found.feature_names, source.feature_names)
        axes = feature_axis(found.axes), feature_axis(source.axes)
        require_same_feature_axis(found.X.name, *axes)
    return found


def require_labels(validation: ValidationSet, classes: Array) -> None:
    """Check the labels and weights of validation rows before training, and warn of rows left out.

    Raises
    ------
    DataError
        If a label is not one of `classes`, a weight is none, or no row counts.
    """
    source = validation.source
    leaves = full_pass(cut_spans(source.chunks, source.row_bytes))
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
        f"column {column} is {quoted(got[column])}, and {quoted(expected[column])} in X; the "
        "features must have the same names, in the same order"
    )


def validation_sums(
    validation: ValidationSet,
    objective: Objective,
    point: Array,
    classes: Array,
    on_task_done: Callable[[TaskResult, PartialSum], None],
) -> tuple[MetricSums, Cost]:
    """Return the metrics of a solver's point on the validation rows, and what they cost.

    Raises
    ------
    DataError
        If a value is not finite.
    """
    # The dtype of the training rows; and no chunk of the validation rows is ever left out.
    source = replace(validation.source, classes=classes, dtype=objective.dtype, max_bad_chunks=0)
    (kernel,) = objective.to_kernel(point[None])
    reduction = metrics_of(kernel, objective.coordinates.shift)
    leaves = full_pass(cut_spans(source.chunks, source.row_bytes))
    with readable():
        read = Pass(
            validation.executor, source, leaves, cache_name=validation.key, evict_others=False
        )
        return read.reduce(reduction, on_task_done=on_task_done)


@contextmanager
def readable() -> Iterator[None]:
    """Name the validation data in the errors raised inside."""
    try:
        yield
    except DataError as error:
        raise DataError(f"in the validation data, {error}") from error


def scores_on(sums: MetricSums, classes: Array) -> ValidationScores:
    """Return the scores for sums over validation rows."""
    scores = scores_of(sums, classes, weighted=True)
    return ValidationScores(
        scores["log_loss"],
        scores["accuracy"],
        scores["balanced_accuracy"],
        scores["f1_macro"],
        scores["brier_score"],
        scores["ece"],
    )
