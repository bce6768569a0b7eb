"""Missing values in what was read: masked ones, those that attributes mark, and NaN."""

from __future__ import annotations

from typing import Any

import numpy as np

from dsoftmax.data.cf_encoding import CFEncoding
from dsoftmax.data.label_arrays import comparable_label, is_missing
from dsoftmax.data.row_array import RowArray
from dsoftmax.errors import DataError
from dsoftmax.objective.reduction import MISSING, Chunk
from dsoftmax.typing import Array

_DROP = "leave such rows out: open_data(missing='drop')"


def decoded(array: RowArray, values: Array) -> tuple[Array, Array]:
    """Return what labels or weights as read stand for, and which of them are missing."""
    if array.encoding is not None:
        values = array.encoding.decode(values)
    missing, values = np.ma.getmaskarray(values), np.ma.getdata(values)
    return values, missing | np.isnan(values) if values.dtype.kind == "f" else missing


def with_features(
    chunk: Chunk, values: Array, encoding: CFEncoding | None
) -> tuple[Chunk, Array | None]:
    """Return a chunk with rows of X as read, and which values are masked or marked, if any is."""
    packing = None if encoding is None else encoding.packing
    missing = None
    if isinstance(values, np.ma.MaskedArray):
        masked = np.ma.getmaskarray(values)
        values, missing = np.ma.getdata(values), masked if masked.any() else None
    elif encoding is not None:
        values = encoding.as_read(values)
        missing = encoding.missing_in(values)
    return chunk._replace(X=values, packing=packing), missing


def with_nan(chunk: Chunk, missing: Array | None, dtype: np.dtype[np.floating]) -> Chunk:
    """Return a chunk with NaN in place of the values of X that are missing."""
    if missing is None:
        return chunk
    X = chunk.decoded(dtype)
    X[missing] = np.nan
    return chunk._replace(X=X, packing=None)


def without_missing(chunk: Chunk, missing: Array | None) -> Chunk:
    """Return a chunk that tells the rows with masked or marked values of X as left out."""
    if missing is None:
        return chunk
    return left_out(chunk, np.asarray(missing.any(axis=1)), MISSING)


def equal(array: RowArray, labels: Array, missing: Array, label: Any) -> Array:
    """Return which labels of an array are a given one; a NaN stands for the missing ones."""
    if missing.all():
        return missing if is_missing(label) else np.zeros(len(labels), bool)
    # Once more, now that the dtype of objects and strings is known.
    wanted = comparable_label(label, array.name, labels.dtype)
    if is_missing(wanted):
        return missing
    found = np.asarray(labels == wanted)
    if array.encoding is not None and wanted in array.encoding.fill_values:
        return found  # the stored number that means a missing label, called by its own name
    return found & ~missing


def left_out(chunk: Chunk, rows: Array, reason: int) -> Chunk:
    """Return a chunk in which some rows are left out, for a reason, with weight zero."""
    if not rows.any():
        return chunk
    reasons = np.zeros(len(rows), np.uint8) if chunk.left_out is None else chunk.left_out
    reasons = np.where(rows & (reasons == 0), np.uint8(reason), reasons)
    weight = np.ones(len(rows)) if chunk.sample_weight is None else chunk.sample_weight
    return chunk._replace(left_out=reasons, sample_weight=np.where(reasons > 0, 0.0, weight))


def require_target(array: RowArray, chunk: Chunk, missing: Array, *, is_label: bool) -> None:
    """Raise DataError at the first label or weight that is missing in a row that counts."""
    if chunk.left_out is not None:
        missing = missing & (chunk.left_out == 0)
    if missing.any():
        row = int(np.argmax(missing))
        remedy = f"{_DROP} or open_data(ignore_label=float('nan'))" if is_label else _DROP
        what = "a missing label" if is_label else "a missing value"
        if array.encoding is not None and array.encoding.fill_values:
            what += f" (stored as {' or '.join(map(repr, array.encoding.fill_values))})"
        raise DataError(
            f"{array.name} has {what} at {chunk.where(row)}{array.chunk_at(chunk.start + row)} "
            f"({int(missing.sum()):,} missing among {len(missing):,} rows); fill it in, or {remedy}"
        )


def require_values(array: RowArray, chunk: Chunk, missing: Array) -> None:
    """Raise DataError at the first value of X that is missing in a row that counts."""
    if chunk.left_out is not None:
        missing = missing & (chunk.left_out == 0)[:, None]
    if missing.any():
        row, column = (int(i) for i in np.argwhere(missing)[0])
        what = "a masked value"
        if array.encoding is not None:
            what = f"the stored value {chunk.X[row, column]}, which its attributes say is missing,"
        raise DataError(
            f"{array.name} has {what} at {chunk.where(row)}, column {column}"
            f"{array.chunk_at(chunk.start + row, column)} ({int(missing.sum()):,} missing values "
            f"among {len(missing):,} rows); clean the data, or {_DROP}{_how_to_keep(array)}"
        )


def _how_to_keep(array: RowArray) -> str:
    if array.encoding is None:
        return ""
    return "; or if the attributes are wrong, read the stored numbers: open_data(decode=False)"
