"""Counts of labels: the sums of the scan of y and the weights."""

from __future__ import annotations

from dataclasses import dataclass
from operator import add

import numpy as np

from dsoftmax.errors import DataError
from dsoftmax.objective.labels import joined_labels
from dsoftmax.objective.reduction import IGNORED, MISSING, Chunk, Reduction
from dsoftmax.storage.digests import short_digest
from dsoftmax.typing import Array


@dataclass(frozen=True)
class LabelCounts:
    """How often each label occurs.

    Attributes
    ----------
    labels : (n_labels,), sorted
    counts : (n_labels,), rows
    weight : (n_labels,), total weight, in float64
    held_out : (n_labels,), weight of the rows that are held out, which are not counted otherwise
    ignored, missing : rows that are left out: by their label, by a value that is not there
    """

    labels: Array
    counts: Array
    weight: Array
    held_out: Array
    ignored: int = 0
    missing: int = 0

    def __add__(self, other: LabelCounts) -> LabelCounts:
        both = joined_labels(self.labels, other.labels)
        labels, where = np.unique(both, return_inverse=True)
        counts = np.concatenate([self.counts, other.counts])
        weight = np.concatenate([self.weight, other.weight])
        held_out = np.concatenate([self.held_out, other.held_out])
        size = len(labels)
        return LabelCounts(
            labels,
            np.bincount(where, counts, size).astype(np.int64),
            np.bincount(where, weight, size),
            np.bincount(where, held_out, size),
            self.ignored + other.ignored,
            self.missing + other.missing,
        )

    def expanded(self, n_classes: int) -> LabelCounts:
        """Return the counts of all codes 0 to n_classes - 1, where the labels are codes."""
        counts, weight = np.zeros(n_classes, np.int64), np.zeros(n_classes)
        counts[self.labels], weight[self.labels] = self.counts, self.weight
        held_out = np.zeros(n_classes)
        held_out[self.labels] = self.held_out
        return LabelCounts(
            np.arange(n_classes), counts, weight, held_out, self.ignored, self.missing
        )


def count_labels(chunk: Chunk) -> LabelCounts:
    """Return the counts of the labels of a chunk's rows, those left out apart.

    Raises
    ------
    DataError
        If a label is a float that is not a whole number.
    """
    y, weight = chunk.codes[chunk.used], chunk.sample_weight
    integral = np.isfinite(y) & (y == np.floor(y)) if y.dtype.kind == "f" else np.ones(1, bool)
    if not integral.all():
        row = int(np.argmin(integral))
        index = chunk.where(int(np.arange(len(chunk.codes))[chunk.used][row]))
        raise DataError(
            f"y has the value {y[row]} at {index}: Unknown label type: continuous; labels must be "
            "integers, booleans or strings (not probabilities)"
        )
    labels, where = np.unique(y, return_inverse=True)
    used_weight = None if weight is None else weight[chunk.used]
    held_out = np.zeros(len(y)) if chunk.held_out is None else chunk.held_out[chunk.used]
    left_out = np.zeros(1, np.uint8) if chunk.left_out is None else chunk.left_out
    return LabelCounts(
        labels,
        np.bincount(where, held_out == 0, len(labels)).astype(np.int64),
        # Without weights `bincount` counts in integers; weights are always float64.
        np.bincount(where, used_weight, len(labels)) * 1.0,
        np.bincount(where, held_out, len(labels)),
        int((left_out == IGNORED).sum()),
        int((left_out == MISSING).sum()),
    )


label_counts: Reduction[LabelCounts] = Reduction("count_labels", count_labels, add)


def labels_digest(classes: Array, counts: LabelCounts) -> str:
    """Return a digest of the classes, their counts and their weights."""
    return short_digest(classes, counts.counts, counts.weight)
