"""Checks that Dask blocks are the same at each read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from operator import or_

import numpy as np

from dsoftmax.data.batches import whole_span
from dsoftmax.data.source import Source
from dsoftmax.errors import DataError
from dsoftmax.objective.reduction import Chunk, Reduction
from dsoftmax.runtime.base import Executor
from dsoftmax.runtime.reduce import reduce
from dsoftmax.runtime.spans import Span
from dsoftmax.storage.digests import short_digest
from dsoftmax.typing import Array

_ROUNDING = 1e-5  # of a sum, as workers of different kinds may compute the same blocks


@dataclass(frozen=True)
class _Seen:
    """What a read of some rows has found.

    Attributes
    ----------
    sums, scale : (n_features,), of the values of X, weighted by their row, and of their sizes
    y, sample_weight : digests
    """

    sums: Array
    scale: Array
    y: str
    sample_weight: str


def _seen(chunk: Chunk) -> dict[int, _Seen]:
    by_row = np.arange(1, len(chunk.X) + 1) / len(chunk.X)  # tells rows in another order
    with np.errstate(invalid="ignore", over="ignore"):
        X = chunk.X.astype(np.float64)
        sums, scale = by_row @ X, by_row @ np.abs(X)
    y, weight = (
        "" if array is None else short_digest(array) for array in (chunk.y, chunk.sample_weight)
    )
    return {chunk.start: _Seen(sums, scale, y, weight)}


_what_is_read: Reduction[dict[int, _Seen]] = Reduction("read_twice", _seen, or_)


def require_repeatable(source: Source, executor: Executor, excluded: Sequence[Span]) -> None:
    """Read the first chunk twice, if the arrays are computed by Dask, and compare.

    Raises
    ------
    DataError
        If the values differ: a fit reads them again and again, and would be of no data at all.
    """
    if not any(array.is_computed for array in source.arrays):
        return
    gone = {start for start, _ in excluded}
    chunks = (span for span in pairwise(source.chunks) if span[0] not in gone)
    first = next(chunks, None)
    if first is None:
        return
    leaves = [(whole_span(first),)]
    once, again = (reduce(executor, source, _what_is_read, leaves)[0] for _ in range(2))
    before, after = once[first[0]], again[first[0]]
    with np.errstate(invalid="ignore"):
        same = np.abs(before.sums - after.sums) <= _ROUNDING * before.scale
    same |= ~np.isfinite(before.sums)  # of which the fit itself will say more
    names = [source.X.name] if not same.all() else []
    if source.y is not None and before.y != after.y:
        names.append(source.y.name)
    if source.sample_weight is not None and before.sample_weight != after.sample_weight:
        names.append(source.sample_weight.name)
    if names:
        raise DataError(
            f"two reads of rows {first[0]} to {first[1] - 1} differ in {' and '.join(names)}: the "
            "Dask graph does not compute the same values each time (random numbers without a seed, "
            "or files that change), and a fit reads them several times. Store the array with "
            "to_zarr and pass its path, or persist it on a cluster with client.persist"
        )
