"""Which classes there are, and what their rows weigh: known before X is read."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np

from dsoftmax.errors import DataError
from dsoftmax.labels import LabelCounts, label_counts
from dsoftmax.reduction import Array
from dsoftmax.runtime.executors import Executor
from dsoftmax.runtime.reduce import reduce
from dsoftmax.sampling import Leaf
from dsoftmax.sources.base import Source, preview

ClassWeight = Mapping[Any, float] | str | None


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
    _warn_of_absent_chunks(source)
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


def _warn_of_absent_chunks(source: Source) -> None:
    absent = 0 if source.y is None else source.y.absent()
    if absent:
        assert source.y is not None
        warnings.warn(
            f"{absent} chunk(s) of {source.y.name} are not in the store, and are read as its fill "
            "value: if they are not labels that were all equal to it, restore them",
            stacklevel=8,
        )


def _check_ignored(source: Source, classes: Array | None) -> None:
    label = source.ignore_label
    if label is not None and classes is not None and label in classes.tolist():
        raise DataError(
            f"ignore_label is {label!r}, which is also one of the classes {preview(classes)}; "
            "name it in one place"
        )


def report_left_out(source: Source, found: LabelCounts, rows: str = "rows") -> None:
    """Warn of the rows that are left out, and say why."""
    reasons = [
        f"{found.ignored:,} with the label {source.ignore_label!r} (ignore_label)",
        f"{found.missing:,} with a value that is not finite (missing='drop')",
    ]
    counts = (found.ignored, found.missing)
    said = [reason for reason, count in zip(reasons, counts, strict=True) if count]
    if said:
        warnings.warn(
            f"{sum(counts):,} of {source.n_samples:,} {rows} are left out: {' and '.join(said)}",
            stacklevel=8,
        )


def class_factors(choice: ClassWeight, classes: Array, counts: LabelCounts) -> Array | None:
    """Return what the rows of each class are weighed by, (K,), or None for no difference.

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
    weight = np.where(counts.weight > 0, counts.weight, np.inf)
    return np.asarray(counts.weight.sum() / (len(classes) * weight))


def normalised(factors: Array | None, counts: LabelCounts) -> Array:
    """Return factors by which the rows weigh one on average: float32 holds those.

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
    """Return the labels in so many bytes, and at least in a part; and whether those are all."""
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
