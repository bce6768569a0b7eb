"""Labels and their counts: what the scan of y and the weights adds up."""

from __future__ import annotations

from dataclasses import dataclass
from operator import add

import numpy as np

from dsoftmax.errors import DataError
from dsoftmax.reduction import Array, Chunk, Reduction


@dataclass(frozen=True)
class LabelCounts:
    """How often each label occurs.

    Attributes
    ----------
    labels : (n_labels,), sorted
    counts : (n_labels,), rows
    weight : (n_labels,), total weight, in float64
    """

    labels: Array
    counts: Array
    weight: Array

    def __add__(self, other: LabelCounts) -> LabelCounts:
        labels, where = np.unique(np.concatenate([self.labels, other.labels]), return_inverse=True)
        counts = np.concatenate([self.counts, other.counts])
        weight = np.concatenate([self.weight, other.weight])
        size = len(labels)
        return LabelCounts(
            labels,
            np.bincount(where, counts, size).astype(np.int64),
            np.bincount(where, weight, size),
        )

    def expanded(self, n_classes: int) -> LabelCounts:
        """Return the counts of all codes 0 to n_classes - 1, where the labels are codes."""
        counts, weight = np.zeros(n_classes, np.int64), np.zeros(n_classes)
        counts[self.labels], weight[self.labels] = self.counts, self.weight
        return LabelCounts(np.arange(n_classes), counts, weight)


def count_labels(chunk: Chunk) -> LabelCounts:
    """Return the counts of a chunk's labels.

    Raises
    ------
    DataError
        If a label is a float that is not a whole number.
    """
    y = chunk.codes
    whole = np.isfinite(y) & (y == np.floor(y)) if y.dtype.kind == "f" else np.ones(1, bool)
    if not whole.all():
        row = int(np.argmin(whole))
        raise DataError(
            f"y has the value {y[row]} at row {chunk.start + row}: Unknown label type: continuous; "
            "labels must be integers, booleans or strings"
        )
    labels, where, counts = np.unique(y, return_inverse=True, return_counts=True)
    return LabelCounts(labels, counts, np.bincount(where, chunk.sample_weight, len(labels)) * 1.0)


label_counts: Reduction[LabelCounts] = Reduction("count_labels", count_labels, add)
