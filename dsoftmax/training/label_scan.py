"""Scans y and the weights: the classes, their codes, and the factors of class_weight."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from dsoftmax.data.batches import Leaf
from dsoftmax.data.label_arrays import is_missing
from dsoftmax.data.label_counts import LabelCounts, label_counts, labels_digest
from dsoftmax.data.source import Source
from dsoftmax.errors import DataError, quoted
from dsoftmax.objective.labels import preview
from dsoftmax.runtime.base import Executor
from dsoftmax.runtime.reduce import full_pass, reduce
from dsoftmax.runtime.spans import Span, cut_spans
from dsoftmax.training.params import ClassWeight, FitParams
from dsoftmax.training.repeatable import require_repeatable
from dsoftmax.typing import Array


class EncodedData(NamedTuple):
    """What the scan of the labels leads to.

    Attributes
    ----------
    source : reads codes, and weights that are one on average
    class_weight : (n_classes,), total weight of each class
    class_rows : (n_classes,), how many rows each has
    digest : of what the scan has found
    """

    source: Source
    class_weight: Array
    class_rows: Array
    digest: str

    @property
    def classes(self) -> Array:
        """Labels, sorted (n_classes,)."""
        assert self.source.classes is not None
        return self.source.classes


def encode_labels(
    source: Source,
    params: FitParams,
    executor: Executor,
    excluded: Sequence[Span],
    least_classes: int,
    before: EncodedData | None = None,
) -> EncodedData:
    """Scan the labels and weights of all rows but those of some chunks.

    Parameters
    ----------
    source, params, executor : of the fit
    excluded : the rows that are left out
    least_classes : how many classes there must be
    before : what was found before more rows were left out; its classes stay the same

    Raises
    ------
    DataError
        As `require_repeatable`, `scan_labels` and `class_factors`; and if a class has lost all of
        its rows.
    """
    if before is None and least_classes > 1:
        require_repeatable(source, executor, excluded)
    named = params.classes if before is None else before.classes
    leaves = full_pass(cut_spans(source.chunks, source.row_bytes), excluded)
    classes, counts = scan_labels(source, named, leaves, executor)
    lost = (counts.weight == 0) & (counts.held_out > 0)
    if source.hold_out is not None and lost.any():
        # A class that would have no row left to be learned from keeps them all.
        source = replace(source, hold_out=replace(source.hold_out, spared=classes[lost]))
        classes, counts = scan_labels(source, classes, leaves, executor)
    report_left_out(source, counts)
    require_classes(source, classes, counts, least_classes)
    _require_judges(source, counts)
    factors = class_factors(params.class_weight, classes, counts)
    if source.sample_weight is not None or factors is not None:
        factors = normalised(factors, counts)
    weight = counts.weight if factors is None else counts.weight * factors
    if before is not None and least_classes > 1:
        _require_all(classes, (before.class_weight > 0) & (weight == 0), excluded)
    coded, digest = source.with_classes(classes, factors), labels_digest(classes, counts)
    return EncodedData(coded, weight, counts.counts, digest)


def known_labels(source: Source, classes: Array, digest: str) -> EncodedData:
    """Return what a scan that was made before has found, as far as a run that is over needs it."""
    n_classes = len(classes)
    return EncodedData(
        source.with_classes(classes), np.ones(n_classes), np.ones(n_classes, int), digest
    )


def _require_judges(source: Source, counts: LabelCounts) -> None:
    """Raise DataError if no row with a positive weight is held out."""
    if source.hold_out is not None and not counts.held_out.any():
        raise DataError(
            f"validation_fraction={source.hold_out.fraction:g} holds out no row that counts, of "
            f"{source.n_samples:,} rows (a class keeps its last ones); set it higher, change "
            "random_state, or pass X_val and y_val"
        )


def _require_all(classes: Array, lost: Array, excluded: Sequence[Span]) -> None:
    if lost.any():
        rows = ", ".join(f"{start} to {stop - 1}" for start, stop in excluded[:5])
        raise DataError(
            f"all rows of the class(es) {preview(classes[lost])} are in chunks that cannot be read "
            f"(rows {rows}); restore them, or leave those classes out on purpose"
        )


def scan_labels(
    source: Source,
    classes: Array | None,
    leaves: Sequence[Leaf],
    executor: Executor,
) -> tuple[Array, LabelCounts]:
    """Return the sorted classes and the counts of their codes, from y and the weights.

    X is read as well where rows with missing values are left out.

    Raises
    ------
    DataError
        If there is no y, or a label is not one of `classes`.
    """
    if source.y is None:
        raise DataError(
            "y is missing: fit requires y to be passed, but the target y is None; pass one label "
            "for each row of X"
        )
    _check_ignored(source, classes)
    named = source if classes is None else source.with_classes(classes)
    alone = not source.drops_missing
    found, _ = reduce(executor, named, label_counts, leaves, targets_only=alone)
    if classes is None:
        classes = found.labels
        found = replace(found, labels=np.arange(len(classes)))
    return classes, found.expanded(len(classes))


def require_classes(
    source: Source, classes: Array, counts: LabelCounts, least_classes: int
) -> None:
    """Raise DataError if no row counts, or those that do have fewer classes than that."""
    assert source.y is not None, "its labels were scanned"
    if not counts.weight.sum() > 0:
        raise DataError(
            "all weights are zero; at least one row must count"
            if counts.counts.any()
            else f"all {source.n_samples:,} rows are left out; at least one row must count"
        )
    if np.count_nonzero(counts.weight) < least_classes:
        raise DataError(
            f"{source.y.name} holds 1 class ({preview(classes[counts.weight > 0])}); "
            "a classifier needs at least 2 classes"
        )


def _check_ignored(source: Source, classes: Array | None) -> None:
    label = source.ignore_label
    if label is not None and classes is not None and label in classes.tolist():
        raise DataError(
            f"ignore_label is {quoted(label)}, which is also one of the classes "
            f"{preview(classes)}; name it in one place"
        )


def report_left_out(source: Source, found: LabelCounts, rows: str = "rows") -> None:
    """Warn of the rows that are left out, and say why; and of a label that none of them has."""
    label = source.ignore_label
    if not (label is None or is_missing(label) or found.ignored):
        warnings.warn(
            f"no row of the {source.n_samples:,} {rows} has the label {quoted(label)} "
            "(ignore_label); is it the right one?",
            stacklevel=8,
        )
    reasons = [
        f"{found.ignored:,} with the label {quoted(source.ignore_label)} (ignore_label)",
        f"{found.missing:,} with a value that is missing or not finite (missing='drop')",
    ]
    counts = (found.ignored, found.missing)
    said = [reason for reason, count in zip(reasons, counts, strict=True) if count]
    if said:
        warnings.warn(
            f"{sum(counts):,} of {source.n_samples:,} {rows} are left out: {' and '.join(said)}",
            stacklevel=8,
        )


def class_factors(choice: ClassWeight, classes: Array, counts: LabelCounts) -> Array | None:
    """Return the factor of each class (K,) for class_weight: None, a dict, or "balanced".

    Raises
    ------
    DataError
        If a dict names a label that is not a class.
    """
    if choice is None:
        return None
    if isinstance(choice, Mapping):
        labels = [label.item() for label in classes]
        if unknown := [label for label in choice if label not in labels]:
            raise DataError(
                f"class_weight names {unknown}, which are not among the classes {preview(classes)}"
            )
        return np.array([float(choice.get(label, 1.0)) for label in labels])
    # "balanced", as in scikit-learn: total weight / (n_classes * weight of the class).
    weight = np.where(counts.weight > 0, counts.weight, np.inf)
    return np.asarray(counts.weight.sum() / (len(classes) * weight))


def normalised(factors: Array | None, counts: LabelCounts) -> Array:
    """Return factors that make the mean weight one, which float32 can hold.

    Only the proportions of weights matter, and a user's may be of any size.
    """
    given = np.ones(len(counts.weight)) if factors is None else factors
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        scale = counts.counts.sum() / (given @ counts.weight)
    if not 0 < scale < np.inf:
        raise DataError(
            "the weights, times those of the classes, add up to 0 or to more than a float64 can "
            "hold; at least one row must count"
        )
    return np.asarray(given * scale)


def first_labels(source: Source, most_bytes: int) -> tuple[set[Any], bool]:
    """Return the distinct labels in the first bytes of y, and whether all of y was read."""
    assert source.y is not None, "there are labels"
    rows = max(1, most_bytes // source.y.dtype.itemsize)
    found: set[Any] = set()
    for start, stop in pairwise(source.y.boundaries):
        if start > 0 and stop > rows:
            return found, False
        chunk = source.read_targets(start, stop)
        counts = chunk.codes if chunk.left_out is None else chunk.codes[chunk.left_out == 0]
        found.update(np.unique(counts).tolist())
    return found, True
