"""A source of rows: three arrays and the policy by which they are read.

The arrays (`RowArray`) know how to fetch rows; the `Source` knows what the rows mean:
which labels are which class, and what a row weighs. Both pickle to a few hundred bytes (a
Dask array: to the graph of the rows it is needed for) and hold no open handle, so that they
can travel with a task.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from dsoftmax.errors import DataError
from dsoftmax.loss import compute_dtype
from dsoftmax.reduction import Array, Chunk
from dsoftmax.sources.faults import PATIENCE, Patience, fetch


class RowArray(Protocol):
    """An array whose first axis is rows.

    Attributes
    ----------
    name : what messages call it
    shape, dtype : as NumPy's
    boundaries : 0, ..., n_rows; the rows between two of them are decoded together
    portable : whether another process can read it
    in_memory : whether reading it costs nothing
    futures : blocks of it that a cluster holds, by key; a task has to depend on them
    identity : digest of what is known of it beyond shape, dtype and boundaries
    """

    @property
    def name(self) -> str:
        """Name."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Dtype as stored."""

    @property
    def boundaries(self) -> tuple[int, ...]:
        """Row boundaries of the chunks."""

    @property
    def portable(self) -> bool:
        """Whether it can travel."""

    @property
    def in_memory(self) -> bool:
        """Whether it is there already."""

    @property
    def futures(self) -> Mapping[Any, Any]:
        """Blocks on a cluster."""

    @property
    def identity(self) -> str:
        """Digest."""

    def read(self, start: int, stop: int) -> Array:
        """Return rows start to stop."""
        ...

    def part(self, start: int, stop: int) -> RowArray:
        """Return what a task needs that reads no other rows than these, at their indices."""
        ...

    def with_blocks(self, blocks: Mapping[Any, Any]) -> RowArray:
        """Return the array that has the values of its `futures` at hand."""
        ...


@dataclass(frozen=True)
class Source:
    """Rows to learn from or to predict.

    Attributes
    ----------
    X : RowArray of shape (n_samples, n_features)
    y : RowArray of shape (n_samples,) or None
    sample_weight : RowArray of shape (n_samples,) or None
    dtype : dtype of the computation, float32 or float64
    classes : sorted labels, once they are known: `read` then returns their codes
    class_weight : (n_classes,) factors of the row weights, or None
    patience : how long to try reads again
    most_bad : how many chunks of X may be left out since they cannot be read
    """

    X: RowArray
    y: RowArray | None
    sample_weight: RowArray | None
    dtype: np.dtype[np.floating]
    classes: Array | None = None
    class_weight: Array | None = None
    patience: Patience = PATIENCE
    most_bad: int = 0

    @property
    def n_samples(self) -> int:
        """Number of rows."""
        return self.X.shape[0]

    @property
    def n_features(self) -> int:
        """Number of features."""
        return self.X.shape[1]

    @property
    def row_bytes(self) -> int:
        """Decoded bytes of a row of X."""
        return self.n_features * self.X.dtype.itemsize

    @property
    def chunks(self) -> tuple[int, ...]:
        """Row boundaries of the chunks of X: 0, ..., n_samples."""
        return self.X.boundaries

    @property
    def arrays(self) -> tuple[RowArray, ...]:
        """The arrays that are there."""
        return tuple(a for a in (self.X, self.y, self.sample_weight) if a is not None)

    @property
    def futures(self) -> dict[Any, Any]:
        """The blocks that a cluster holds, by key."""
        return {key: future for array in self.arrays for key, future in array.futures.items()}

    def with_classes(self, classes: Array, class_weight: Array | None = None) -> Source:
        """Return the source that reads labels as codes, and weighs rows by their class."""
        return replace(self, classes=classes, class_weight=class_weight)

    def part(self, start: int, stop: int, *, targets_only: bool = False) -> Source:
        """Return what a task needs that reads no other rows than these, or only their targets."""
        source = replace(self, X=self.X.part(start, start)) if targets_only else self
        return source._each(lambda array: array.part(start, stop))

    def with_blocks(self, blocks: Mapping[Any, Any]) -> Source:
        """Return the source that has the values of its `futures` at hand."""
        return self._each(lambda array: array.with_blocks(blocks)) if blocks else self

    def _each(self, change: Callable[[RowArray], RowArray]) -> Source:
        y, weight = self.y, self.sample_weight
        return replace(
            self,
            X=change(self.X),
            y=None if y is None else change(y),
            sample_weight=None if weight is None else change(weight),
        )

    def read(self, start: int, stop: int) -> Chunk:
        """Return rows start to stop.

        Raises
        ------
        ChunkError, OutageError
            If the store cannot deliver them, for good or for now.
        DataError
            If a label is not one of `classes`, or a weight is negative or not finite.
        """
        y, weight = self.read_targets(start, stop)
        return Chunk(self._fetch(self.X, start, stop), y, weight, start)

    def read_targets(self, start: int, stop: int) -> tuple[Array | None, Array | None]:
        """Return y and weights of rows start to stop, without reading X."""
        y = None if self.y is None else self._fetch(self.y, start, stop)
        weight = None
        if self.sample_weight is not None:
            weight = self._fetch(self.sample_weight, start, stop).astype(np.float64)
            _check_weights(self.sample_weight.name, weight, start)
        if y is None or self.classes is None:
            return y, weight
        codes = self._encode(y, start)
        if self.class_weight is not None:
            factor = self.class_weight[codes]
            weight = factor if weight is None else weight * factor
        return codes, weight

    def _fetch(self, array: RowArray, start: int, stop: int) -> Array:
        values = fetch(array.name, lambda: array.read(start, stop), start, stop, self.patience)
        # Variable-length strings become fixed-length ones, which can be searched and saved.
        return values if values.dtype.kind in "biufU" else np.array(values.tolist())

    def _encode(self, y: Array, start: int) -> Array:
        assert self.y is not None
        assert self.classes is not None
        found = np.searchsorted(self.classes, y)
        codes = np.minimum(found, len(self.classes) - 1)
        unknown = self.classes[codes] != y
        if np.any(unknown):
            row = int(np.argmax(unknown))
            raise DataError(
                f"{self.y.name} has the label {y[row].item()!r} at row {start + row}, which is not "
                f"one of the {len(self.classes)} classes ({preview(self.classes)})"
            )
        return codes


def build_source(
    X: RowArray,
    y: RowArray | None,
    sample_weight: RowArray | None,
    dtype: np.dtype[np.floating] | None = None,
) -> Source:
    """Return the source of three arrays, after all checks that need no data.

    Raises
    ------
    DataError
        If shapes, lengths or dtypes do not fit.
    """
    _check_features(X)
    for array in (y, sample_weight):
        if array is not None:
            _check_companion(array, X)
    if y is not None and y.dtype.kind in "cmMV":
        raise DataError(
            f"{y.name} has dtype {y.dtype}; labels must be integers, booleans or strings"
        )
    if sample_weight is not None and sample_weight.dtype.kind not in "biuf":
        raise DataError(f"{sample_weight.name} has dtype {sample_weight.dtype}; expected numbers")
    return Source(X, y, sample_weight, np.dtype(dtype or compute_dtype(X.dtype)))


def _check_features(X: RowArray) -> None:
    if len(X.shape) != 2:
        raise DataError(
            f"{X.name} has shape {X.shape}; expected two dimensions (n_samples, n_features): "
            "reshape it first, one row a sample"
        )
    if X.dtype.kind not in "biuf":
        raise DataError(
            f"{X.name} has dtype {X.dtype}; expected real numbers (float, integer or bool)"
        )
    if 0 in X.shape:
        raise DataError(
            f"{X.name} has shape {X.shape}: 0 {'samples' if X.shape[0] == 0 else 'feature(s)'}, "
            "while a minimum of 1 is required"
        )


def _check_companion(array: RowArray, X: RowArray) -> None:
    if len(array.shape) != 1:
        raise DataError(
            f"{array.name} has shape {array.shape}; expected one dimension, ({X.shape[0]},): "
            "one label (not one-hot rows or probabilities) or weight a sample"
        )
    if array.shape[0] != X.shape[0]:
        raise DataError(
            f"{X.name} has {X.shape[0]} rows but {array.name} has {array.shape[0]}; "
            "they must be of the same length"
        )


def _check_weights(name: str, weight: Array, start: int) -> None:
    bad = ~(np.isfinite(weight) & (weight >= 0))
    if np.any(bad):
        row = int(np.argmax(bad))
        raise DataError(
            f"{name} is {weight[row]} at row {start + row}; weights must be finite and not negative"
        )


def preview(labels: Array, most: int = 10) -> str:
    """Return the first labels as text."""
    shown = ", ".join(repr(label.item()) for label in labels[:most])
    return shown + (", ..." if len(labels) > most else "")
