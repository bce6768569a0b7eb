"""A chunk of decoded rows, and a `Reduction`: what is summed over chunks, as data."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from operator import add, itemgetter
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np

from dsoftmax.errors import DataError
from dsoftmax.objective.packing import Packing
from dsoftmax.storage.records import storable
from dsoftmax.typing import Array

Sums = TypeVar("Sums")
IGNORED, MISSING = 1, 2  # why a row is left out: by its label, by a value that is not there


def by_number(row: int) -> str:
    """Return where a row is, for messages."""
    return f"row {row}"


def _nameless(row: int, column: int = 0) -> str:
    return ""


def take_rows(array: Array, rows: Array) -> Array:
    """Return some rows of an array, by their numbers.

    In C order, `take` needs as little as a twentieth of the time of an index; an array in another
    order it would first copy as a whole.
    """
    return array.take(rows, axis=0) if array.flags.c_contiguous else np.asarray(array[rows])


class Chunk(NamedTuple):
    """Rows of a source, decoded.

    Attributes
    ----------
    X : ndarray of shape (rows, n_features), in its stored dtype
    y : ndarray of shape (rows,), integer codes of the classes (or labels as stored), or None
    sample_weight : ndarray of shape (rows,) or (rows, n_models), or None for weights of one
    start : index within the source of the first row read
    picked : ndarray of shape (rows,), which of the rows read these are, or None for all
    left_out : ndarray of shape (rows,), 0 for rows that count and IGNORED or MISSING for others,
        whose X and weight are zero; None if all count
    held_out : ndarray of shape (rows,), weights of the rows that a fit is judged by, whose
        `sample_weight` is zero, and zero for those that it learns from; None if there are none.
        With folds, the weight by which a row judges the models that do not learn from it
    fold : ndarray of shape (rows,), number of the fold that a row is in, or None without folds
    place : says where in the source a row is
    chunk_at : says which chunk of X holds a row and column
    packing : what the numbers in X stand for, or None for themselves
    labels : ndarray of shape (rows,), the labels as stored, where `y` may hold the code -1 for a
        label that is none of the classes; else None
    """

    X: Array
    y: Array | None
    sample_weight: Array | None
    start: int
    picked: Array | None = None
    left_out: Array | None = None
    held_out: Array | None = None
    fold: Array | None = None
    place: Callable[[int], str] = by_number
    chunk_at: Callable[[int, int], str] = _nameless
    packing: Packing | None = None
    labels: Array | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of its arrays."""
        return sum(array.nbytes for array in self._by_row.values())

    @property
    def _by_row(self) -> dict[str, Any]:
        """The arrays that are there and have an entry for each row."""
        arrays = {
            "X": self.X,
            "y": self.y,
            "sample_weight": self.sample_weight,
            "left_out": self.left_out,
            "held_out": self.held_out,
            "fold": self.fold,
            "labels": self.labels,
        }
        return {name: array for name, array in arrays.items() if array is not None}

    @property
    def codes(self) -> Array:
        """The class codes, of a chunk that is known to carry them."""
        assert self.y is not None, "this source has no y"
        return self.y

    @property
    def used(self) -> Array | slice:
        """Which rows count."""
        return slice(None) if self.left_out is None else self.left_out == 0

    def take(self, rows: Array) -> Chunk:
        """Return the rows of these numbers, an integer array, in that order."""
        picked = rows if self.picked is None else self.picked[rows]
        return self._each(partial(take_rows, rows=rows))._replace(picked=picked)

    def rows(self, low: int, high: int) -> Chunk:
        """Return the rows from low to high, as views."""
        if low == 0 and high == len(self.X):
            return self
        chunk, picked = self._each(itemgetter(slice(low, high))), self.picked
        if picked is None:
            return chunk._replace(start=self.start + low)
        return chunk._replace(picked=picked[low:high])

    def only_held_out(self) -> Chunk:
        """Return the rows that are held out, with their weights."""
        held_out = np.empty(0) if self.held_out is None else self.held_out
        chunk = self.take(np.flatnonzero(held_out))
        return chunk._replace(sample_weight=chunk.held_out, held_out=None)

    def where(self, row: int) -> str:
        """Return where in the source a row of the chunk is, for messages."""
        return self.place(self.number(row))

    def number(self, row: int) -> int:
        """Return the index within the source of a row of the chunk."""
        return self.start + (row if self.picked is None else int(self.picked[row]))

    def _each(self, select: Callable[[Array], Array]) -> Chunk:
        selected: dict[str, Any] = {name: select(array) for name, array in self._by_row.items()}
        return self._replace(**selected)

    def decoded(self, dtype: np.dtype[np.floating]) -> Array:
        """Return X, unpacked, as an array of another dtype."""
        if self.packing is None:
            return self.X.astype(dtype)
        return self.packing.unpack(self.X, None, np.empty(self.X.shape, dtype))

    def require_finite(self, dtype: np.dtype[np.floating]) -> None:
        """Raise DataError at the first value of X that `dtype` cannot hold as a finite number."""
        with np.errstate(over="ignore"):
            bad = np.argwhere(~np.isfinite(self.decoded(dtype)))
        if len(bad) == 0:
            return
        row, column = (int(i) for i in bad[0])
        value = self.X[row, column]
        reason = f"too large for {dtype}; open the data with dtype='float64'"
        if not np.isfinite(value):
            reason = (
                "not finite (NaN or infinity); clean the data, or leave rows out: "
                "open_data(missing='drop')"
            )
        chunk = self.chunk_at(self.number(row), column)
        raise DataError(
            f"X has the value {value} at {self.where(row)}, column {column}{chunk}, which is "
            f"{reason} ({len(bad)} such values among {len(self.X)} rows)"
        )


@dataclass(frozen=True)
class Reduction(Generic[Sums]):
    """A sum over chunks: `chunk` maps rows to sums, `combine` adds two of them.

    Sums travel, never means, so that any grouping of chunks gives the same total.
    `name` is what the Dask dashboard shows; `grows` tells that sums become larger as they are
    combined, since they hold rows.
    """

    name: str
    chunk: Callable[[Chunk], Sums]
    combine: Callable[[Sums, Sums], Sums]
    grows: bool = False


@storable
@dataclass(frozen=True)
class Combined:
    """The sums of several reductions in the same read, in their order."""

    parts: tuple[Any, ...]

    def __add__(self, other: Combined) -> Combined:
        pairs = zip(self.parts, other.parts, strict=True)
        return Combined(tuple(add(*pair) for pair in pairs))


def combine(first: Reduction[Any], *others: Reduction[Any]) -> Reduction[Combined]:
    """Return the reduction that does several in one read; their sums are added by `+`."""
    chunks = tuple(reduction.chunk for reduction in (first, *others))
    grows = any(reduction.grows for reduction in (first, *others))
    return Reduction(first.name, partial(_combined_chunk, chunks=chunks), add, grows)


def _combined_chunk(chunk: Chunk, chunks: tuple[Callable[[Chunk], Any], ...]) -> Combined:
    return Combined(tuple(function(chunk) for function in chunks))


NEVER = -1  # the fold of a row that every model learns from
ALL = -2  # what a model leaves out that learns from every row


def rows_of_fold(chunk: Chunk, fold: int) -> Chunk:
    """Return the rows of a chunk that are in a fold; without folds, all are in NEVER."""
    if chunk.fold is None:
        return chunk if fold == NEVER else chunk.rows(0, 0)
    return chunk.take(np.flatnonzero(chunk.fold == fold))


def rows_by_fold(chunk: Chunk, folds: Array) -> Iterator[Chunk]:
    """Yield the rows of a chunk that are in each of some folds, and last the rest."""
    assert chunk.fold is not None
    for fold in folds:
        yield rows_of_fold(chunk, fold)
    yield chunk.take(np.flatnonzero(~np.isin(chunk.fold, folds)))


def fold_weights(chunk: Chunk, left_out: Array) -> tuple[Array, Array]:
    """Return the weights of the rows with which each model of a stack learns, and is judged.

    Parameters
    ----------
    chunk : Chunk
        With folds.
    left_out : array of shape (n_models,)
        The fold that each model does not learn from, and is judged by.

    Returns
    -------
    two arrays of shape (n_models, rows)
    """
    assert chunk.fold is not None
    assert chunk.held_out is not None
    is_left_out = chunk.fold == left_out[:, None]
    weight = np.ones(len(chunk.X)) if chunk.sample_weight is None else chunk.sample_weight
    return np.where(is_left_out, 0.0, weight), np.where(is_left_out, chunk.held_out, 0.0)
