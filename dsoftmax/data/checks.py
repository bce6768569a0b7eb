"""What can be refused from the metadata alone, before anything is read."""

from __future__ import annotations

import numbers
from typing import Any

import numpy as np

from dsoftmax.data.grid import Grid
from dsoftmax.data.row_array import RowArray
from dsoftmax.data.source import Source
from dsoftmax.errors import DataError
from dsoftmax.objective.kernel import compute_dtype


def build_source(
    X: RowArray,
    y: RowArray | None,
    sample_weight: RowArray | None,
    dtype: np.dtype[np.floating] | None = None,
    missing: str = "raise",
    ignore_label: Any = None,
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
    if missing not in ("raise", "drop"):
        raise DataError(f"missing is {missing!r}; expected 'raise' or 'drop'")
    if ignore_label is not None:
        _check_ignored(ignore_label, y)
    grid = Grid(X.cuts) if len(X.shape) > 2 else None
    return Source(
        X if grid is None else X.laid_out(grid),
        y if grid is None or y is None else y.laid_out(grid),
        sample_weight if grid is None or sample_weight is None else sample_weight.laid_out(grid),
        np.dtype(dtype or compute_dtype(X.dtype)),
        grid=grid,
        missing=missing,
        ignore_label=ignore_label,
    )


def _check_features(X: RowArray) -> None:
    if len(X.shape) < 2:
        raise DataError(
            f"{X.name} has shape {X.shape}; expected at least two dimensions, (n_samples, "
            "n_features) or (..., n_features). Reshape your data first, one row a sample"
        )
    if X.dtype.kind not in "biuf" or (X.dtype.kind == "f" and X.dtype.itemsize > 8):
        raise DataError(
            f"{X.name} has dtype {X.dtype}; expected real numbers (float of at most 64 bits, "
            f"integer or bool): {_remedy(X.dtype)}"
        )
    if 0 in X.shape:
        raise DataError(
            f"{X.name} has 0 {'feature(s)' if X.shape[-1] == 0 else 'sample(s)'} "
            f"(shape={X.shape}) while a minimum of 1 is required."
        )


def _remedy(dtype: np.dtype[Any]) -> str:
    if dtype.kind == "c":
        return "Complex data not supported, pass real and imaginary parts as two features"
    return "convert it with astype"


def _check_companion(array: RowArray, X: RowArray) -> None:
    expected = X.shape[:-1]
    if array.shape == expected:
        return
    if len(array.shape) == len(expected) == 1:
        raise DataError(
            f"{X.name} has {X.shape[0]} rows but {array.name} has {array.shape[0]}; "
            "they must be of the same length"
        )
    dimensions = "one dimension" if len(expected) == 1 else "the axes of X but the last"
    raise DataError(
        f"{array.name} has shape {array.shape}; expected {dimensions}, {expected}: "
        "one label (not one-hot rows or probabilities) or weight a sample"
    )


def _check_ignored(label: Any, y: RowArray | None) -> None:
    if y is None:
        raise DataError(f"ignore_label is {label!r}, but there is no y that could hold it")
    if not isinstance(label, str | bytes | numbers.Real | np.bool):
        raise DataError(f"ignore_label is {label!r}; expected one label, such as 255")
    if (y.dtype.kind in "biuf") == isinstance(label, str | bytes):
        raise DataError(
            f"ignore_label is {label!r}, but {y.name} has dtype {y.dtype}; expected a label of "
            "that kind"
        )
