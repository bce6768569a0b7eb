"""`inspect_data`: shapes, chunks, classes and faults of data, found in one streamed pass."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from operator import add
from typing import Any

import numpy as np
from dask.utils import format_bytes

from dsoftmax.data.cf_encoding import CFEncoding
from dsoftmax.data.label_counts import LabelCounts, count_labels
from dsoftmax.data.opening import open_data
from dsoftmax.data.retry import BadChunk
from dsoftmax.data.row_array import RowArray
from dsoftmax.data.source import Source
from dsoftmax.data.zarr_facts import ZarrFacts, zarr_facts
from dsoftmax.objective.reduction import MISSING, Chunk, Reduction
from dsoftmax.runtime.reduce import UnreadableError, full_pass, reduce
from dsoftmax.runtime.select import executor_for
from dsoftmax.typing import Array

_MAX_LISTED = 10


@dataclass(frozen=True)
class ArrayFacts:
    """Facts from the metadata of an array.

    Attributes
    ----------
    name : path, URL or role
    shape : rows first
    dtype : as stored
    decoded_bytes : of the whole array
    row_chunks : number of chunks along the rows
    stored : ZarrFacts of a Zarr array, None for others
    decoded : what its attributes say of the stored numbers, by which they are read, or None
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    decoded_bytes: int
    row_chunks: int
    stored: ZarrFacts | None
    decoded: CFEncoding | None


@dataclass(frozen=True)
class Inspection:
    """The result of `inspect_data`: print it, or take `to_dict()` for JSON.

    Attributes
    ----------
    arrays : ArrayFacts by role: "X", "y", "sample_weight"
    n_samples, n_features : int
    non_finite_values, non_finite_rows : missing values of X (see `open_data`), rows with any
    missing_targets : rows without a label or a weight, which are not counted in `class_counts`
    constant_features : indices of the features whose values are all the same but for missing ones
    class_counts : rows of each label, or None without y
    classes_in_a_chunk : minimum, mean and maximum over the chunks of X, or None without y
    one_class_chunks : chunks of X, of two rows or more, whose rows are all of one class, or None
    unreadable : why chunks cannot be read, a text for each; they are left out of the sums
    warnings : what to look after
    """

    arrays: dict[str, ArrayFacts]
    n_samples: int
    n_features: int
    non_finite_values: int
    non_finite_rows: int
    missing_targets: int
    constant_features: tuple[int, ...]
    class_counts: dict[Any, int] | None
    classes_in_a_chunk: tuple[int, float, int] | None
    one_class_chunks: int | None
    unreadable: tuple[str, ...]
    warnings: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return everything as numbers, texts, lists and dicts; labels are texts."""
        facts = asdict(self)
        for role, array in self.arrays.items():
            facts["arrays"][role]["decoded"] = array.decoded and array.decoded.to_dict()
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
        yield "missing", f"{self.non_finite_values:,} values in {self.non_finite_rows:,} rows"
        if self.missing_targets:
            yield "missing", f"labels or weights of {self.missing_targets:,} rows"
        yield "constant", f"{len(constant):,} features{_listed(': ', constant)}"
        if self.class_counts is not None:
            counts = [f"{label!r} {count:,}" for label, count in self.class_counts.items()]
            yield "classes", f"{len(counts):,}{_listed(': ', counts)}"
            chunks = self.arrays["X"].row_chunks
            least, mean, most = self.classes_in_a_chunk or (0, 0, 0)
            mix = f"{least:,} to {most:,} classes in a chunk, {mean:,.1f} on average"
            yield "class mix", f"{mix}; {self.one_class_chunks:,} of {chunks:,} chunks hold one"


@dataclass(frozen=True)
class _Sums:
    """What is reduced over the chunks.

    Attributes
    ----------
    low, high : (n_features,), NaN where all values are missing
    classes : minimum, sum and maximum of the number of classes in a chunk
    """

    low: Array
    high: Array
    non_finite_values: int
    non_finite_rows: int
    missing_targets: int
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
            self.missing_targets + other.missing_targets,
            self.one_class_chunks + other.one_class_chunks,
            _joined(self.classes, other.classes),
            self.labels + other.labels if self.labels and other.labels else None,
        )


def inspect_data(
    X: Any, y: Any = None, sample_weight: Any = None, *, decode: bool = True
) -> Inspection:
    """Return shapes, chunks, classes and faults of data, found in one streamed pass.

    Parameters
    ----------
    X, y, sample_weight : as for `open_data`
        The rows, their labels and weights.
    decode : bool, default=True
        As for `open_data`.

    Returns
    -------
    Inspection
        How the arrays are chunked and encoded, which chunks are missing, the classes and
        their mixture, constant features, missing values; and what to look after.

    Raises
    ------
    DataError
        As a fit would.
    ChunkError
        If no chunk can be read.

    Examples
    --------
    >>> report = inspect_data(np.array([[0, 1.0], [0, np.nan], [0, 3.0]]), ["a", "b", "a"])
    >>> report.class_counts, report.constant_features, report.non_finite_rows
    ({'a': 2, 'b': 1}, (0,), 1)
    """
    skipping: dict[str, Any] = {"on_bad_chunk": "skip", "max_bad_chunks": sys.maxsize}
    opened = isinstance(X, Source)
    source = open_data(X, y, sample_weight, decode=decode, **({} if opened else skipping))
    # X may be a Source that allows fewer bad chunks; a report is about all of them.
    source = replace(source, max_bad_chunks=sys.maxsize, missing="keep")
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
        sums.missing_targets,
        tuple(np.flatnonzero(sums.low == sums.high).tolist()),
        counts,
        None if counts is None else _mix(sums.classes, len(source.chunks) - 1 - len(bad_chunks)),
        None if counts is None else sums.one_class_chunks,
        tuple(bad_chunk.reason for bad_chunk in bad_chunks),
        tuple(_warnings(source, sums, arrays, bad_chunks)),
    )


def _read(source: Source) -> tuple[_Sums, tuple[BadChunk, ...]]:
    """Return the sums over all readable chunks, and the chunks that are not."""
    chunks = list(pairwise(source.chunks))
    bad_chunks: tuple[BadChunk, ...] = ()
    with executor_for(source) as executor:
        while True:
            leaves = full_pass(
                chunks, [(bad_chunk.start, bad_chunk.stop) for bad_chunk in bad_chunks]
            )
            # A pass that meets bad chunks is made again without them.
            try:
                sums, _ = reduce(executor, source, Reduction("inspect", _sums_of, add), leaves)
            except UnreadableError as error:
                bad_chunks = tuple(sorted((*bad_chunks, *error.bad_chunks)))
                if len(bad_chunks) == len(chunks):
                    raise
            else:
                return sums, bad_chunks


def _sums_of(chunk: Chunk) -> _Sums:
    X = chunk.X  # as stored: a packed number is finite and constant if the stored one is
    finite = np.isfinite(X)
    if not finite.all():
        X = np.where(finite, X, np.array(np.nan, X.dtype))
    labels = None if chunk.y is None else count_labels(chunk)
    present = 0 if labels is None else len(labels.labels)
    return _Sums(
        np.fmin.reduce(X, axis=0),
        np.fmax.reduce(X, axis=0),
        int((~finite).sum()),
        int((~finite.all(axis=1)).sum()),
        0 if chunk.left_out is None else int((chunk.left_out == MISSING).sum()),
        int(present == 1 and len(X) > 1),
        np.full(3, present),
        labels,
    )


def _joined(a: Array, b: Array) -> Array:
    return np.array([min(a[0], b[0]), a[1] + b[1], max(a[2], b[2])])


def _mix(classes: Array, n_chunks: int) -> tuple[int, float, int]:
    least, total, most = (int(count) for count in classes)
    return least, total / n_chunks, most


def _facts(array: RowArray) -> ArrayFacts:
    rows, stored = len(array.boundaries) - 1, zarr_facts(array)
    size, kind = int(np.prod(array.shape)) * array.dtype.itemsize, str(array.dtype)
    return ArrayFacts(array.name, array.shape, kind, size, rows, stored, array.encoding)


def _warnings(
    source: Source, sums: _Sums, arrays: dict[str, ArrayFacts], bad_chunks: Sequence[BadChunk]
) -> Iterator[str]:
    if bad_chunks:
        yield f"{len(bad_chunks):,} chunks of X cannot be read; the first: {bad_chunks[0].reason}"
    for role, facts in arrays.items():
        stored = facts.stored
        if stored is not None and stored.absent_objects:
            yield (
                f"{stored.absent_objects:,} of the {stored.n_objects:,} {_unit(stored)} of {role} "
                "are not in the store: they are read as its fill value"
            )
        if stored is not None and not stored.checksum:
            yield f"{role} has no checksum: a flipped bit may be read as another number"
    if sums.non_finite_values:
        yield "a fit refuses missing values, unless open_data(missing='drop')"
    if sums.missing_targets:
        yield "a fit refuses missing labels and weights, unless open_data(missing='drop')"
    if sums.labels is not None and len(sums.labels.labels) < 2:
        yield "y holds one class; a classifier needs at least two"
    elif sums.one_class_chunks and len(source.chunks) > 2:
        yield (
            f"{sums.one_class_chunks:,} chunks hold one class: labels seem to be sorted, which "
            "mini-batches suffer from; shuffle the rows (dsoftmax ingest --shuffle)"
        )


def _described(role: str, facts: ArrayFacts) -> Iterator[str]:
    stored = facts.stored
    yield f"{role:<15}{facts.name}"
    shape = facts.shape if stored is None else stored.shape
    size = f"{format_bytes(facts.decoded_bytes)} decoded"
    if stored is not None and stored.stored_bytes is not None:
        size += f", {format_bytes(stored.stored_bytes)} stored"
    yield f"{'':<15}{shape} {facts.dtype}, {size}"
    if facts.decoded is not None:
        yield f"{'':<15}decoded: {facts.decoded}"
    if stored is None:
        return
    objects = f"{stored.n_objects:,} {_unit(stored)} of {stored.shards or stored.chunks}"
    inner = "" if stored.shards is None else f", with chunks of {stored.chunks}"
    n_absent = stored.absent_objects
    absent = f", {n_absent:,} of them not in the store" if n_absent else ""
    yield f"{'':<15}{objects}{inner}{absent}"
    check = "with a checksum" if stored.checksum else "no checksum"
    yield f"{'':<15}Zarr format {stored.zarr_format}, {' '.join(stored.codecs) or 'raw'}, {check}"


def _unit(stored: ZarrFacts) -> str:
    return "chunks" if stored.shards is None else "shards"


def _listed(lead: str, items: Any) -> str:
    if not items:
        return ""
    shown = ", ".join(str(item) for item in items[:_MAX_LISTED])
    return f"{lead}{shown}{', ...' if len(items) > _MAX_LISTED else ''}"
