"""What a process holds at once while it reads and reduces rows, counted buffer by buffer.

Tasks go through phases, and what one has freed the next one takes: so the largest phase counts,
not their sum. Every thread of a process may be in its largest phase at the same time.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

from dsoftmax.data.row_array import RowArray
from dsoftmax.data.source import Source
from dsoftmax.data.zarr_array import ZarrArray
from dsoftmax.data.zarr_facts import bytes_in_flight
from dsoftmax.objective.kernel import block_length

# What is mapped over what is in use: freed buffers of other sizes leave holes. Threads have a heap
# in common, so that the holes which one leaves are cut up by others.
_HEAP, _HEAP_IN_COMMON = 1.08, 1.45
_BLOCKS = 4  # arrays of the size of a narrowed block: it, weighted, and the first one in float64
_GRADIENTS = 5  # arrays of the size of the sums while these are computed, with the points
_NODES = 3  # sums that a task has finished and not added up, or that wait to be fetched
_TARGET_BYTES = 56  # of a row: its label, code, weight and loss, and what they are computed from
_STRING_BYTES = 96  # of a string of any length, as an object and as it is stored
_COMPUTED = 5  # copies of a block that a Dask graph computes: those of what it is made of, too
_DASK_ARRAY_BYTES = 155 << 20  # of dask.array, with pandas, SciPy and xarray, where they are there


class Demand(NamedTuple):
    """What tasks hold beside the rows that they read.

    Attributes
    ----------
    sums_bytes : of the sums that a task returns, in float64
    n_columns : of the product of a block with all points
    n_products : arrays of the size of that product that are there at once
    row_bytes : of what is computed for each row of a span, beyond the label, weight and loss of one
    part_bytes : of what is computed for a part of a span, however large it is
    picked_bytes : of rows that are picked on a worker, and travel to the client
    shuffled : whether the rows of a span are shuffled, while those of another one are read
    """

    sums_bytes: int = 0
    n_columns: int = 1
    n_products: int = 3
    row_bytes: int = 0
    part_bytes: int = 0
    picked_bytes: int = 0
    shuffled: bool = False


def metrics_demand(source: Source, n_classes: int) -> Demand:
    """Return what the metrics of a model hold."""
    return Demand(8 * (source.n_features + 1) * n_classes, n_classes, n_products=7, row_bytes=48)


def largest_chunk(source: Source) -> int:
    """Return the most rows that are decoded at once."""
    return max((stop - start for start, stop in pairwise(source.chunks)), default=0)


def working_set(
    source: Source, n_rows: int, threads: int, demand: Demand, chunk_rows: int = 0
) -> int:
    """Return what a process takes beyond itself, at most, to reduce spans of a source.

    Parameters
    ----------
    source : Source
    n_rows : of the largest span
    threads : tasks at once
    demand : what the tasks hold beside the rows
    chunk_rows : of a chunk of X, if it had others than it has
    """
    targets = [array for array in source.arrays if array is not source.X]
    phases = (
        *(_read_chunk(array) for array in targets),
        _read(source.X, n_rows * source.row_bytes, chunk_rows * source.row_bytes)
        + _copied(source, n_rows, demand),
        _reduced(source, n_rows, demand),
    )
    remembered = sum(_chunk_bytes(array) for array in targets)
    a_thread = max(phases) + _NODES * demand.sums_bytes
    shared = demand.sums_bytes + remembered + 2 * demand.picked_bytes
    return int((_HEAP if threads == 1 else _HEAP_IN_COMMON) * (threads * a_thread + shared))


def _reduced(source: Source, n_rows: int, demand: Demand) -> int:
    """Return what is held while rows are reduced."""
    itemsize = source.dtype.itemsize
    length = min(block_length(source.n_features, demand.n_columns, itemsize), max(n_rows, 1))
    columns = _BLOCKS * source.n_features + demand.n_products * demand.n_columns
    block = length * itemsize * columns
    rows = n_rows * (_TARGET_BYTES + demand.row_bytes) + demand.part_bytes
    return _held(source, n_rows) + block + rows + _GRADIENTS * demand.sums_bytes


def _held(source: Source, n_rows: int) -> int:
    """Return the bytes of a span of X, if it is not in memory anyway."""
    return 0 if source.X.in_memory else n_rows * source.row_bytes


def _copied(source: Source, n_rows: int, demand: Demand) -> int:
    """Return what is held besides while rows are searched for missing values, or shuffled.

    A copy does not go where the read has left room: that is in pieces of other sizes.
    """
    marked = source.X.encoding is not None and len(source.X.encoding.fill_values) > 0
    if source.drops_missing or marked:
        return n_rows * (source.row_bytes + 2 * source.n_features)
    return n_rows * source.row_bytes if demand.shuffled else 0


def _read(array: RowArray, n_bytes: int, chunk_bytes: int) -> int:
    """Return what is held while so many bytes of an array are read, these among them."""
    if array.in_memory:
        return 0
    most = max((bytes_in_flight(each, n_bytes, chunk_bytes) for each in array.stored), default=0)
    if isinstance(array, ZarrArray):
        return n_bytes + most
    copies = _COMPUTED if array.is_computed else 1 if array.stored else 0
    return n_bytes * (1 + copies) + most


def libraries_bytes(source: Source) -> int:
    """Return what a worker imports besides for a source."""
    return _DASK_ARRAY_BYTES if any(hasattr(array, "graph") for array in source.arrays) else 0


def _item_bytes(array: RowArray) -> int:
    return _STRING_BYTES if array.dtype.kind in "OT" else array.dtype.itemsize


def _chunk_bytes(array: RowArray) -> int:
    """Return the decoded bytes of a chunk of labels or weights, which a process remembers."""
    if array.in_memory:
        return 0
    rows = max((stop - start for start, stop in pairwise(array.boundaries)), default=0)
    return rows * _item_bytes(array)


def _read_chunk(array: RowArray) -> int:
    """Return what is held while a chunk of labels or weights is read, beyond that chunk."""
    return 2 * _chunk_bytes(array)
