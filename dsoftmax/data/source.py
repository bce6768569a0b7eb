"""`Source`: X, y and weights, and the policy by which they are read.

The arrays (`RowArray`) know how to fetch rows; the `Source` knows what the rows mean:
which labels are which class, and what a row weighs. Both pickle to a few hundred bytes (a
Dask array: to the graph of the rows it is needed for) and hold no open handle, so that they
can travel with a task.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from dsoftmax.data.axes import Axes
from dsoftmax.data.folds import Folds, HoldOut
from dsoftmax.data.grid import Grid
from dsoftmax.data.label_arrays import from_objects
from dsoftmax.data.missing import (
    decoded,
    equal,
    left_out,
    require_target,
    require_values,
    with_features,
    with_nan,
    without_missing,
)
from dsoftmax.data.retry import RETRY_POLICY, RetryPolicy, fetch
from dsoftmax.data.row_array import RowArray
from dsoftmax.errors import DataError, quoted
from dsoftmax.objective.labels import LABEL_KINDS, UNKNOWN, codes_of, preview
from dsoftmax.objective.reduction import IGNORED, MISSING, Chunk, by_number
from dsoftmax.typing import Array


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
    grid : the axes of the samples if there is more than one, else None
    missing : "raise"; "drop": rows with missing values are left out; "keep": those of X are NaN; or
        "mark": rows with masked or marked values are marked in `left_out`, and X is not changed
    ignore_label : rows with this label are left out
    retry_policy : how long to try reads again
    max_bad_chunks : how many chunks of X may be left out since they cannot be read
    feature_names : of the columns of X, where they have names
    hold_out : which rows a fit is judged by and does not learn from, or None
    cv : RowArray of shape (n_samples,), what the user calls the folds of the rows, or None
    folds : which rows each model of a cross-validation does not learn from, or None
    axes : what X says of its axes, in the process that opened it
    decode : whether stored numbers are read as their attributes say
    unknown_labels : "raise" or "count": whether a label that is not one of `classes` is an error,
        or has the code UNKNOWN
    """

    X: RowArray
    y: RowArray | None
    sample_weight: RowArray | None
    dtype: np.dtype[np.floating]
    classes: Array | None = None
    class_weight: Array | None = None
    grid: Grid | None = None
    missing: str = "raise"
    ignore_label: Any = None
    retry_policy: RetryPolicy = RETRY_POLICY
    max_bad_chunks: int = 0
    feature_names: tuple[str, ...] | None = None
    hold_out: HoldOut | None = None
    cv: RowArray | None = None
    folds: Folds | None = None
    axes: Axes | None = field(default=None, compare=False, repr=False)
    unknown_labels: str = "raise"
    decode: bool = True

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"axes": None}

    @property
    def n_samples(self) -> int:
        """Number of rows."""
        return self.X.shape[0]

    @property
    def n_features(self) -> int:
        """Number of features."""
        return self.X.shape[1]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of y, of the weights and of predicted labels."""
        return (self.n_samples,) if self.grid is None else self.grid.shape

    @property
    def drops_missing(self) -> bool:
        """Whether which rows count is only known when X is read."""
        marked = self.X.encoding is not None and len(self.X.encoding.fill_values) > 0
        may_miss = self.X.dtype.kind == "f" or self.X.may_be_masked or marked
        return self.missing == "drop" and may_miss

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
        return tuple(a for a in (self.X, self.y, self.sample_weight, self.cv) if a is not None)

    @property
    def futures(self) -> dict[Any, Any]:
        """The blocks that a cluster holds, by key."""
        return {key: future for array in self.arrays for key, future in array.futures.items()}

    def with_classes(self, classes: Array, class_weight: Array | None = None) -> Source:
        """Return the source that reads labels as codes, and weighs rows by their class."""
        return replace(self, classes=classes, class_weight=class_weight)

    def laid_out(self, grid: Grid) -> Source:
        """Return the source of the rows of a grid, of arrays whose leading axes are the grid's."""
        return replace(self._each(lambda array: array.laid_out(grid)), grid=grid)

    def features_only(self) -> Source:
        """Return the source of X alone, for predictions: rows with missing values are marked."""
        return replace(
            self, y=None, sample_weight=None, missing="mark", ignore_label=None, axes=None
        )

    def require_visible(self) -> None:
        """Raise an error unless this process can open the arrays."""
        for array in self.arrays:
            array.require_visible()

    def part(self, start: int, stop: int, *, targets_only: bool = False) -> Source:
        """Return what a task needs that reads no other rows than these, or only their targets."""
        folds = None if self.folds is None else self.folds.part(start, stop)
        X = self.X.part(start, start) if targets_only else self.X
        source = replace(self, X=X, folds=folds)
        return source._each(lambda array: array.part(start, stop))

    def with_blocks(self, blocks: Mapping[Any, Any]) -> Source:
        """Return the source that has the values of its `futures` at hand."""
        return self._each(lambda array: array.with_blocks(blocks)) if blocks else self

    def _each(self, change: Callable[[RowArray], RowArray]) -> Source:
        y, weight, cv = (
            None if array is None else change(array)
            for array in (self.y, self.sample_weight, self.cv)
        )
        return replace(self, X=change(self.X), y=y, sample_weight=weight, cv=cv)

    def read(self, start: int, stop: int) -> Chunk:
        """Return rows start to stop.

        Raises
        ------
        ChunkError, OutageError
            If the store cannot deliver them, for good or for now.
        DataError
            If a label is not one of `classes`, a weight is negative or not finite, or a value is
            missing and `missing` is "raise".
        """
        return self._coded(self._with_features(self._stored_targets(start, stop)))

    def read_targets(self, start: int, stop: int) -> Chunk:
        """Return rows start to stop with y and weights, and no feature of X."""
        return self._coded(self._stored_targets(start, stop))

    def _stored_targets(self, start: int, stop: int) -> Chunk:
        place = by_number if self.grid is None else self.grid.place
        none = np.empty((stop - start, 0))
        chunk = Chunk(none, None, None, start, place=place, chunk_at=self.X.chunk_at)
        weight_missing = np.zeros(stop - start, bool)
        if self.sample_weight is not None:
            weight, weight_missing = decoded(
                self.sample_weight, self._fetch(self.sample_weight, start, stop)
            )
            chunk = chunk._replace(sample_weight=weight.astype(np.float64))
        if self.y is not None:
            y, missing = decoded(self.y, self._fetch(self.y, start, stop))
            chunk = chunk._replace(y=y)
            if self.ignore_label is not None:
                chunk = left_out(chunk, equal(self.y, y, missing, self.ignore_label), IGNORED)
            chunk = self._without_missing(chunk, self.y, missing)
        if self.sample_weight is not None:
            chunk = self._without_missing(chunk, self.sample_weight, weight_missing)
        return chunk

    def _without_missing(self, chunk: Chunk, array: RowArray, missing: Array) -> Chunk:
        """Return a chunk without the rows of which the label or the weight is missing."""
        if self.missing == "raise":
            require_target(array, chunk, missing, is_label=array is self.y)
            return chunk
        return left_out(chunk, missing, MISSING)

    def _with_features(self, chunk: Chunk) -> Chunk:
        """Return a chunk of targets with the rows of X."""
        values = self._fetch(self.X, chunk.start, chunk.start + len(chunk.X))
        chunk, missing = with_features(chunk, values, self.X.encoding)
        if self.missing == "keep":
            return with_nan(chunk, missing, self.dtype)
        if self.missing == "mark":
            return without_missing(chunk, missing)
        if self.missing == "drop":
            chunk = without_missing(chunk, missing)
            if chunk.X.dtype.kind == "f":
                rows = np.logical_not(np.isfinite(chunk.X).all(axis=1))
                chunk = left_out(chunk, rows, MISSING)
        elif missing is not None:
            require_values(self.X, chunk, missing)
        if chunk.left_out is None:
            return chunk
        X = chunk.X.copy()
        X[chunk.left_out > 0] = 0  # since a NaN times a weight of zero is a NaN
        return chunk._replace(X=X)

    def _coded(self, chunk: Chunk) -> Chunk:
        """Return a chunk whose labels are codes, and its weights those of row and class."""
        if self.sample_weight is not None:
            _check_weights(self.sample_weight, chunk)
        if self.hold_out is not None:
            chunk = _held_out(chunk, self.hold_out)
        if chunk.y is None or self.classes is None:
            return chunk
        chunk = self._encoded(chunk)
        codes, weight = chunk.codes, chunk.sample_weight
        if self.folds is not None:
            chunk = self._with_folds(chunk, self.folds)
        if self.class_weight is not None:
            factor = self.class_weight[codes]
            weight = factor if weight is None else weight * factor
        return chunk._replace(sample_weight=weight)

    def _with_folds(self, chunk: Chunk, folds: Folds) -> Chunk:
        """Return a chunk that knows the folds of its rows, and what they weigh as judges."""
        start, stop = chunk.start, chunk.start + len(chunk.codes)
        given = None
        if self.cv is not None:
            given, _ = decoded(self.cv, self._fetch(self.cv, start, stop))
        weight = np.ones(stop - start) if chunk.sample_weight is None else chunk.sample_weight
        return chunk._replace(fold=folds.of(chunk, given), held_out=weight)

    def _fetch(self, array: RowArray, start: int, stop: int) -> Array:
        if array.in_memory:
            values = array.read(start, stop)
        else:
            values = fetch(
                array.name,
                lambda: array.read(start, stop),
                start,
                stop,
                self.retry_policy,
                lambda: array.bad_chunk(start, stop),
            )
        if values.dtype.kind in LABEL_KINDS:
            return values
        # Variable-length strings become fixed-length ones, which can be searched and saved.
        return from_objects("y", values.astype(object))

    def _encoded(self, chunk: Chunk) -> Chunk:
        """Return a chunk of labels with their codes in place of them."""
        assert self.y is not None
        assert self.classes is not None
        labels, used = chunk.codes, chunk.used
        codes = np.zeros(len(labels), np.intp)  # any valid code, for rows that do not count
        if len(labels[used]):
            codes[used] = codes_of(
                self.y.name,
                labels[used],
                self.classes,
                were_objects=self.y.dtype.kind == "O",
            )
        if self.unknown_labels == "count":
            return chunk._replace(y=codes, labels=labels)
        if len(codes) and codes.min() == UNKNOWN:
            row = int(np.argmin(codes))
            raise DataError(
                f"{self.y.name} has the label {quoted(labels[row].item())} at {chunk.where(row)}"
                f"{self.y.chunk_at(chunk.start + row)}, which is not one of the "
                f"{len(self.classes)} classes ({preview(self.classes)})"
            )
        return chunk._replace(y=codes)


def _held_out(chunk: Chunk, hold_out: HoldOut) -> Chunk:
    """Return a chunk that moves the weight of held-out rows to `held_out`."""
    rows = hold_out.of(chunk.codes, chunk.start)
    weight = np.ones(len(rows)) if chunk.sample_weight is None else chunk.sample_weight
    return chunk._replace(
        sample_weight=np.where(rows, 0.0, weight), held_out=np.where(rows, weight, 0.0)
    )


def _check_weights(array: RowArray, chunk: Chunk) -> None:
    weight = chunk.sample_weight
    assert weight is not None
    bad = ~(np.isfinite(weight) & (weight >= 0))
    if np.any(bad):
        row = int(np.argmax(bad))
        raise DataError(
            f"{array.name} is {weight[row]} at {chunk.where(row)}"
            f"{array.chunk_at(chunk.start + row)}; weights must be finite and not negative"
        )
