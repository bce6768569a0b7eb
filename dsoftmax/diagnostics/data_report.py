"""What there is to know of data before training on them, found out in one streamed pass."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from operator import add
from typing import Any

import numpy as np
from dask.utils import format_bytes

from dsoftmax.data.label_counts import LabelCounts, count_labels
from dsoftmax.data.opening import open_data
from dsoftmax.data.retry import BadChunk
from dsoftmax.data.row_array import RowArray
from dsoftmax.data.source import Source
from dsoftmax.data.zarr_facts import ZarrFacts, zarr_facts
from dsoftmax.objective.reduction import Chunk, Reduction
from dsoftmax.runtime.reduce import UnreadableError, full_pass, reduce
from dsoftmax.runtime.select import executor_for
from dsoftmax.typing import Array

_MOST_SHOWN = 10


@dataclass(frozen=True)
class ArrayFacts:
    """What the metadata of an array say.

    Attributes
    ----------
    name : path, URL or role
    shape : rows first
    dtype : as stored
    decoded_bytes : of the whole array
    row_chunks : how many runs of rows are decoded together
    stored : Stored, of a Zarr array
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    decoded_bytes: int
    row_chunks: int
    stored: ZarrFacts | None


@dataclass(frozen=True)
class Inspection:
    """What `inspect_data` returns: print it, or take `to_dict()` for JSON.

    Attributes
    ----------
    arrays : ArrayFacts by role: "X", "y", "sample_weight"
    n_samples, n_features : int
    non_finite_values, non_finite_rows : NaN and infinities in X, and the rows that have any
    constant_features : indices of the features of which all finite values are the same
    class_counts : rows of each label, or None without y
    classes_in_a_chunk : the fewest, the mean and the most that a chunk of X holds, or None
    one_class_chunks : chunks of X, of two rows or more, whose rows are all of one class, or None
    unreadable : the chunks that cannot be read, and are not in the sums: why, a text each
    warnings : what to look after
    """

    arrays: dict[str, ArrayFacts]
    n_samples: int
    n_features: int
    non_finite_values: int
    non_finite_rows: int
    constant_features: tuple[int, ...]
    class_counts: dict[Any, int] | None
    classes_in_a_chunk: tuple[int, float, int] | None
    one_class_chunks: int | None
    unreadable: tuple[str, ...]
    warnings: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as numbers, texts, lists and dicts; labels are texts."""
        facts = asdict(self)
        if self.class_counts is not None:
            facts["class_counts"] = {str(k): n for k, n in self.class_counts.items()}
        return facts

    def __str__(self) -> str:
        lines = [line for role, facts in self.arrays.items() for line in _described(role, facts)]
        lines += [f"{key:<15}{text}" for key, text in self._findings()]
        lines += [f"{'warning':<15}{text}" for text in self.warnings]
        return "\n".join(lines)

    def _findings(self) -> Iterator[tuple[str, str]]:
        constant = self.constant_features
        yield "rows", f"{self.n_samples:,} of {self.n_features:,} features"
        yield "not finite", f"{self.non_finite_values:,} values in {self.non_finite_rows:,} rows"
        yield "constant", f"{len(constant):,} features{_listed(': ', constant)}"
        if self.class_counts is not None:
            counts = [f"{label!r} {count:,}" for label, count in self.class_counts.items()]
            yield "classes", f"{len(counts):,}{_listed(': ', counts)}"
            chunks = self.arrays["X"].row_chunks
            fewest, mean, most = self.classes_in_a_chunk or (0, 0, 0)
            yield (
                "class mix",
                (
                    f"{fewest:,} to {most:,} classes in a chunk, {mean:,.1f} on average; "
                    f"{self.one_class_chunks:,} of {chunks:,} chunks hold one"
                ),
            )


@dataclass(frozen=True)
class _Sums:
    """What is added up over the rows.

    Attributes
    ----------
    low, high : (n_features,), NaN where no value is finite
    classes : fewest, total and most of the chunks
    """

    low: Array
    high: Array
    non_finite_values: int
    non_finite_rows: int
    one_class_chunks: int
    classes: Array
    labels: LabelCounts | None

    def __add__(self, other: _Sums) -> _Sums:
        assert (self.labels is None) == (other.labels is None)
        return _Sums(
            np.fmin(self.low, other.low),
            np.fmax(self.high, other.high),
            self.non_finite_values + other.non_finite_values,
            self.non_finite_rows + other.non_finite_rows,
            self.one_class_chunks + other.one_class_chunks,
            _joined(self.classes, other.classes),
            self.labels + other.labels if self.labels and other.labels else None,
        )


def inspect_data(X: Any, y: Any = None, sample_weight: Any = None) -> Inspection:
    """Return what there is to know of data before training on them, in one streamed pass.

    Parameters
    ----------
    X, y, sample_weight : as for `open_data`
        The rows, their labels and weights.

    Returns
    -------
    Inspection
        How the arrays are cut, encoded and kept, which chunks are missing, the classes and
        their mixture, constant features, values that are not finite; and what to look after.

    Raises
    ------
    DataError
        As a fit would.
    ChunkError
        If no chunk can be read.

    Examples
    --------
    >>> found = inspect_data(np.array([[0, 1.0], [0, np.nan], [0, 3.0]]), ["a", "b", "a"])
    >>> found.class_counts, found.constant_features, found.non_finite_rows
    ({'a': 2, 'b': 1}, (0,), 1)
    """
    source = open_data(X, y, sample_weight, on_bad_chunk="skip", max_bad_chunks=sys.maxsize)
    source = replace(source, max_bad_chunks=sys.maxsize)
    sums, bad_chunks = _read(source)
    roles = {"X": source.X, "y": source.y, "sample_weight": source.sample_weight}
    arrays = {role: _facts(array) for role, array in roles.items() if array is not None}
    labels = sums.labels
    counts = (
        None
        if labels is None
        else dict(zip(labels.labels.tolist(), labels.counts.tolist(), strict=True))
    )
    return Inspection(
        arrays,
        source.n_samples,
        source.n_features,
        sums.non_finite_values,
        sums.non_finite_rows,
        tuple(np.flatnonzero(sums.low == sums.high).tolist()),
        counts,
        None if counts is None else _mix(sums.classes, len(source.chunks) - 1 - len(bad_chunks)),
        None if counts is None else sums.one_class_chunks,
        tuple(bad_chunk.reason for bad_chunk in bad_chunks),
        tuple(_warnings(source, sums, arrays, bad_chunks)),
    )


def _read(source: Source) -> tuple[_Sums, tuple[BadChunk, ...]]:
    """Return the sums over all chunks that can be read, and those that cannot."""
    chunks = list(pairwise(source.chunks))
    bad_chunks: tuple[BadChunk, ...] = ()
    with executor_for(source) as executor:
        while True:
            leaves = full_pass(
                chunks, [(bad_chunk.start, bad_chunk.stop) for bad_chunk in bad_chunks]
            )
            try:
                sums, _ = reduce(executor, source, Reduction("inspect", _sums_of, add), leaves)
            except UnreadableError as error:
                bad_chunks = tuple(sorted((*bad_chunks, *error.bad_chunks)))
                if len(bad_chunks) == len(chunks):
                    raise
            else:
                return sums, bad_chunks


def _sums_of(chunk: Chunk) -> _Sums:
    X, finite = chunk.X, np.isfinite(chunk.X)
    if not finite.all():
        X = np.where(finite, X, np.array(np.nan, X.dtype))
    labels = None if chunk.y is None else count_labels(chunk)
    present = 0 if labels is None else len(labels.labels)
    return _Sums(
        np.fmin.reduce(X, axis=0),
        np.fmax.reduce(X, axis=0),
        int((~finite).sum()),
        int((~finite.all(axis=1)).sum()),
        int(present == 1 and len(X) > 1),
        np.full(3, present),
        labels,
    )


def _joined(a: Array, b: Array) -> Array:
    return np.array([min(a[0], b[0]), a[1] + b[1], max(a[2], b[2])])


def _mix(classes: Array, n_chunks: int) -> tuple[int, float, int]:
    fewest, total, most = (int(count) for count in classes)
    return fewest, total / n_chunks, most


def _facts(array: RowArray) -> ArrayFacts:
    rows = len(array.boundaries) - 1
    size = int(np.prod(array.shape)) * array.dtype.itemsize
    return ArrayFacts(array.name, array.shape, str(array.dtype), size, rows, zarr_facts(array))


def _warnings(
    source: Source, sums: _Sums, arrays: dict[str, ArrayFacts], bad_chunks: Sequence[BadChunk]
) -> Iterator[str]:
    if bad_chunks:
        yield f"{len(bad_chunks):,} chunks of X cannot be read; the first: {bad_chunks[0].reason}"
    for role, facts in arrays.items():
        kept = facts.stored
        if kept is not None and kept.absent_objects:
            yield (
                f"{kept.absent_objects:,} of the {kept.n_objects:,} {_unit(kept)} of {role} are "
                "not in the store: they are read as its fill value"
            )
        if kept is not None and not kept.checksum:
            yield f"{role} has no checksum: a flipped bit may be read as another number"
    if sums.non_finite_values:
        yield "a fit refuses values that are not finite, unless open_data(missing='drop')"
    if sums.labels is not None and len(sums.labels.labels) < 2:
        yield "y holds one class; a classifier needs at least two"
    elif sums.one_class_chunks and len(source.chunks) > 2:
        yield (
            f"{sums.one_class_chunks:,} chunks hold one class: labels seem to be sorted, which "
            "mini-batches suffer from; shuffle the rows (dsoftmax ingest --shuffle)"
        )


def _described(role: str, facts: ArrayFacts) -> Iterator[str]:
    kept = facts.stored
    yield f"{role:<15}{facts.name}"
    shape = facts.shape if kept is None else kept.shape
    size = f"{format_bytes(facts.decoded_bytes)} decoded"
    if kept is not None:
        size += f", {format_bytes(kept.stored_bytes)} stored"
    yield f"{'':<15}{shape} {facts.dtype}, {size}"
    if kept is None:
        return
    inner = "" if kept.shards is None else f", with chunks of {kept.chunks}"
    absent = f", {kept.absent_objects:,} of them not in the store" if kept.absent_objects else ""
    yield f"{'':<15}{kept.n_objects:,} {_unit(kept)} of {kept.shards or kept.chunks}{inner}{absent}"
    check = "with a checksum" if kept.checksum else "no checksum"
    yield f"{'':<15}Zarr format {kept.zarr_format}, {' '.join(kept.codecs) or 'raw'}, {check}"


def _unit(kept: ZarrFacts) -> str:
    return "chunks" if kept.shards is None else "shards"


def _listed(lead: str, items: Any) -> str:
    if not items:
        return ""
    shown = ", ".join(str(item) for item in items[:_MOST_SHOWN])
    return f"{lead}{shown}{', ...' if len(items) > _MOST_SHOWN else ''}"
