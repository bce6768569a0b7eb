"""Rows whose label the model does not know: how many there are, by label."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dsoftmax.errors import DataError, quoted
from dsoftmax.objective.labels import UNKNOWN, joined_labels, preview
from dsoftmax.objective.reduction import Chunk
from dsoftmax.storage.records import storable
from dsoftmax.typing import Array

_MOST = 10_000  # distinct ones: labels of another kind, and a sum that would not stop to grow


@storable
@dataclass(frozen=True)
class UnknownLabels:
    """Labels that are none of the model's classes.

    Attributes
    ----------
    labels : (n,), sorted
    rows : (n,), how many rows have each
    weight : (n,), their total weight
    """

    labels: Array
    rows: Array
    weight: Array

    def __add__(self, other: UnknownLabels) -> UnknownLabels:
        return _counted(
            joined_labels(self.labels, other.labels),
            np.concatenate([self.rows, other.rows]),
            np.concatenate([self.weight, other.weight]),
        )

    def __str__(self) -> str:
        counts = zip(self.labels[:10].tolist(), self.rows[:10], strict=True)
        text = ", ".join(f"{quoted(label)} ({rows:,})" for label, rows in counts)
        return text + ", ..." * (len(self.labels) > 10)


def unknown_labels(chunk: Chunk, weight: Array) -> UnknownLabels:
    """Return the unknown labels of a chunk whose rows have some weights.

    Raises
    ------
    DataError
        If there are so many that they cannot be labels.
    """
    if chunk.labels is None:
        return UnknownLabels(np.empty(0), np.empty(0, np.int64), np.empty(0))
    rows = np.flatnonzero(chunk.codes == UNKNOWN)
    return _counted(chunk.labels[rows], np.ones(len(rows), np.int64), weight[rows])


def _counted(labels: Array, rows: Array, weight: Array) -> UnknownLabels:
    found, where = np.unique(labels, return_inverse=True)
    size = len(found)
    if size > _MOST:
        raise DataError(
            f"y has more than {_MOST:,} labels that the model does not know ({preview(found)}); "
            "expected labels of the kind that it was fitted to"
        )
    counts = np.bincount(where, rows, size).astype(np.int64)
    return UnknownLabels(found, counts, np.bincount(where, weight, size))
