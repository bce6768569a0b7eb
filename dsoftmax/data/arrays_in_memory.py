"""Converts arrays, tables and columns in memory to NumPy, and refuses what is no array."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Number
from typing import Any

import numpy as np

from dsoftmax.data.label_arrays import from_objects
from dsoftmax.errors import DataError, quoted
from dsoftmax.objective.kernel import compute_dtype
from dsoftmax.typing import Array

_PROTOCOLS = ("__array__", "__array_interface__", "__array_struct__", "__dlpack__", "__buffer__")


def as_numpy(role: str, values: Any) -> Array:
    """Return an array-like as an array: a masked one where labels or weights are missing.

    Missing values of X are NaN.

    Raises
    ------
    DataError
        If it is no array, a sparse one, or holds what is neither a number nor a label.
    """
    if _is_pandas(values):
        array = _from_frame(role, values) if hasattr(values, "columns") else _from_column(values)
    else:
        _require_array(role, values)
        array = _masked_or_not(values)
        if role != "X" and array.dtype.kind == "f" and hasattr(values, "null_count"):
            # Of polars or Arrow, which make floats of integers beside nulls.
            to_list = getattr(values, "to_pylist", None) or values.to_list
            array = np.array(to_list(), dtype=object)
    if array.dtype.kind == "O":
        if array.ndim == 0:
            raise DataError(f"{role} is {_what(values)}; expected an array")
        return _from_objects(role, values, array)
    if role == "X" and np.ma.is_masked(array) and array.dtype.kind in "biuf":
        # A mask travels with labels and weights; in X, a missing value is a NaN.
        numbers = array.astype(compute_dtype(array.dtype))
        return np.asarray(np.ma.filled(numbers, np.nan))
    return array if role != "X" else np.asarray(array)


def _masked_or_not(values: Any) -> Any:
    """Return values as a NumPy array, masked if they are, or if they are a list of such."""
    if isinstance(values, list | tuple) and any(np.ma.isMaskedArray(value) for value in values):
        return np.ma.array(values)
    return np.asanyarray(values) if np.ma.isMaskedArray(values) else np.asarray(values)


def _is_pandas(values: Any) -> bool:
    return any(base.__module__.startswith("pandas.") for base in type(values).__mro__) and (
        hasattr(values, "isna") and hasattr(values, "shape")
    )


def _from_frame(role: str, frame: Any) -> Array:
    """Return a DataFrame as an array: with NaN for missing values in X."""
    if all(_is_plain(dtype) for dtype in frame.dtypes):
        return np.asarray(frame)
    columns = [_from_column(frame.iloc[:, i]) for i in range(frame.shape[1])]
    if role != "X" or any(column.dtype.kind not in "biuf" for column in columns):
        return np.asarray(frame, dtype=object)
    numbers = [as_numpy("X", column) for column in columns]
    return np.column_stack(numbers)


def _from_column(column: Any) -> Array:
    """Return a column of pandas as an array: a masked one if values are missing."""
    dtype = getattr(column, "dtype", None)
    if dtype is None or _is_plain(dtype):
        return np.asarray(column)
    stored = getattr(dtype, "numpy_dtype", None)  # of nullable numbers, pandas' own or of Arrow
    if stored is not None and stored.kind in "biuf":
        missing = np.asarray(column.isna())
        values = column.to_numpy(dtype=stored, na_value=0)
        return np.ma.masked_array(values, missing) if missing.any() else values
    if dtype.kind in "biuf":  # a sparse column
        return np.asarray(column)
    objects = np.asarray(column, dtype=object)
    return objects if dtype.kind in "mM" else _numbers_or_objects(objects)


def _is_plain(dtype: Any) -> bool:
    return isinstance(dtype, np.dtype) and dtype.kind in "biuf"


def _numbers_or_objects(objects: Array) -> Array:
    """Return objects, such as categories, as the numbers or labels of one type that they are."""
    try:
        return from_objects("y", objects)
    except DataError:
        return objects


def _from_objects(role: str, values: Any, array: Array) -> Array:
    """Return an object array as `from_objects` does; an error names the column of a table."""
    try:
        return from_objects(role, array)
    except DataError as error:
        if role != "X" or array.ndim != 2:
            raise
        names = getattr(values, "columns", getattr(values, "column_names", range(array.shape[1])))
        for name, column in zip(names, array.T, strict=False):
            try:
                from_objects("X", column)
            except DataError as reason:
                raise type(reason)(
                    f"the column {quoted(name)} of {reason}; leave it out, or encode it as "
                    "numbers first"
                ) from error
        raise


def _require_array(role: str, values: Any) -> None:
    """Refuse what NumPy would search through element by element, or take for one object."""
    kind = type(values)
    names = {base.__name__ for base in kind.__mro__}
    if isinstance(values, np.ndarray | np.generic | list | tuple | Number):
        return
    if names & {"AnnData", "MuData", "Raw"}:
        raise DataError(
            f"{role} is {_what(values)}; pass its matrix, .X, and as y a column of its .obs, or "
            "their paths: a.zarr/X and a.zarr/obs/cell_type"
        )
    if hasattr(kind, "toarray") or hasattr(kind, "todense"):
        raise DataError(
            f"{role} is a sparse {kind.__name__}; sparse data is not supported: "
            "use .toarray() to convert it to a dense array if it fits"
        )
    if "sparse" in kind.__module__ and hasattr(kind, "to_memory"):
        raise DataError(
            f"{role} is a sparse {kind.__name__} of AnnData on disk; sparse data is not supported: "
            "use .to_memory().toarray() if it fits, or write it densely, chunk by chunk"
        )
    if isinstance(values, Mapping):
        keys = ", ".join(repr(key) for key in list(values)[:10])
        raise DataError(f"{role} is {_what(values)}; pass one of its arrays or columns: {keys}")
    if any(hasattr(kind, name) for name in _PROTOCOLS) or isinstance(values, Sequence):
        return
    remedy = "expected an array: a path, NumPy, Dask, xarray, or what np.asarray takes"
    if hasattr(kind, "collect"):
        remedy = f"call {role}.collect() first, if it fits in memory, or write it as Zarr"
    elif hasattr(kind, "shape") and hasattr(kind, "dtype"):
        remedy = f"pass {role}[...] if it fits in memory, or dask.array.from_array({role})"
    raise DataError(f"{role} is {_what(values)}; {remedy}")


def _what(values: Any) -> str:
    if values is None:
        return "None"
    package, name = type(values).__module__.partition(".")[0], type(values).__name__
    return f"an object of the type {name if package == 'builtins' else f'{package}.{name}'}"
