"""`open_data`: makes a `Source` of whatever a user passes as X and y."""

from __future__ import annotations

import numbers
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dsoftmax.data.anndata_column import from_node, open_stored
from dsoftmax.data.arrays_in_memory import as_numpy
from dsoftmax.data.axes import axes_of, require_same_axes, stored_feature_names
from dsoftmax.data.cf_encoding import cf_encoding_of_attributes, dtype_for
from dsoftmax.data.grid import Grid
from dsoftmax.data.label_arrays import comparable_label, is_missing
from dsoftmax.data.numpy_array import MemoryArray, from_memmap
from dsoftmax.data.retry import RetryPolicy
from dsoftmax.data.row_array import GridRows, RowArray
from dsoftmax.data.source import Source
from dsoftmax.data.zarr_array import ZarrArray
from dsoftmax.errors import DataError, quoted

_DEFAULTS = (None, "raise", None, "raise", 0, True)


def open_data(
    X: Any,
    y: Any = None,
    sample_weight: Any = None,
    *,
    dtype: npt.DTypeLike | None = None,
    missing: str = "raise",
    ignore_label: Any = None,
    on_bad_chunk: str = "raise",
    max_bad_chunks: int = 0,
    decode: bool = True,
) -> Source:
    """Return a source of rows. No values of X, y or weights are read.

    It reads the metadata of stores, lists their chunks, and reads the categories of AnnData.

    Parameters
    ----------
    X : Zarr array, path or URL of one, Dask array, xarray DataArray, or array-like
        Of shape (n_samples, n_features), or (..., n_features) with several axes of samples, such
        as (time, y, x, band). Real numbers: bool, any integer or float.
    y : the same kinds, of the shape of X without its last axis, optional
        Labels: integers, booleans or strings. Of AnnData in Zarr, a column such as
        "a.zarr/obs/cell_type" is read with its categories, or with the mask of a nullable one.
    sample_weight : the same kinds, of the shape of y, optional
        Finite, not negative.
    dtype : "float32" or "float64", optional
        What to compute in. By default float32 for float32, float16, bool and integers of
        up to 16 bits, which it holds exactly, and float64 for wider ones, and for a
        `scale_factor` or `add_offset` of 2**60 or more, or of 2**-60 or less. Stored
        values keep their dtype until a block of rows is computed.
    missing : {"raise", "drop"}, default="raise"
        Whether a missing value is an error, or its row is left out of what is fitted or
        evaluated; a fit says how many were. Missing are a NaN or an infinity in X, a NaN label or
        weight, masked values of a NumPy masked array, and stored values that the attributes of
        their array mark so (see `decode`). Which rows count has to be known first: a fit reads X
        once more than it otherwise would.
    ignore_label : label, optional
        Rows with this label are left out, such as 255 where there are no data; a fit says how
        many. It is of the type of the labels; NaN stands for missing labels, whatever their type.
    on_bad_chunk : {"raise", "skip"}, default="raise"
        What a fit does with a chunk that cannot be decoded, fails its checksum or is lost:
        end with a ChunkError, or go on without its rows. A store that does not answer is
        another matter: it is tried again for about a minute, and then the fit stops.
    max_bad_chunks : int, default=0
        How many chunks of X may be skipped; one more ends the fit.
    decode : bool, default=True
        Read stored numbers as their attributes say, as xarray does by the CF conventions:
        `_FillValue` and `missing_value` mark missing values, `scale_factor` and `add_offset`
        unpack the others. This is for Zarr arrays, also behind `dask.array.from_zarr` and slices
        or stacks of it, and for a DataArray that was opened with mask_and_scale=False. Blocks that
        are persisted have lost their attributes. With False, read the stored numbers as they are.

    Returns
    -------
    Source
        To pass to `fit` in place of X, with y=None.

    Raises
    ------
    DataError
        If there is no array at a path, or shapes, lengths or dtypes do not fit; or the names of
        axes, or coordinates along them, where both X and the other array have some.
    ChunkError
        If dsoftmax wrote a store in full and it has lost chunks, unless they may be skipped.

    Warns
    -----
    UserWarning
        If a Dask array is computed from stored numbers that attributes say how to decode, which
        Dask has not done.

    Examples
    --------
    >>> source = open_data(np.zeros((3, 2), np.uint8), np.array(["a", "b", "a"]))
    >>> source.n_samples, source.n_features, source.dtype
    (3, 2, dtype('float32'))
    """
    options = (dtype, missing, ignore_label, on_bad_chunk, max_bad_chunks, decode)
    if isinstance(X, Source):
        return _opened(X, y, sample_weight, options)
    allowed = _bad_chunks_allowed(on_bad_chunk, max_bad_chunks)
    complete = allowed == 0
    features = row_array("X", X, require_complete=complete, decode=decode)
    labels = weight = None
    if y is not None:
        labels = row_array("y", y, require_complete=complete, decode=decode)
        labels = _raveled(labels, features)
    if sample_weight is not None:
        weight = row_array("sample_weight", sample_weight, require_complete=complete, decode=decode)
    axes = axes_of(X, features)
    for given, array in ((y, labels), (sample_weight, weight)):
        if array is not None:
            require_same_axes(axes, axes_of(given, array))
    if dtype is not None and np.dtype(dtype) not in (np.float32, np.float64):
        raise DataError(f"dtype is {quoted(dtype)}; expected float32 or float64 to compute in")
    _check_arrays(features, labels, weight)
    if missing not in ("raise", "drop"):
        raise DataError(f"missing is {quoted(missing)}; expected 'raise' or 'drop'")
    if ignore_label is not None:
        ignore_label = _ignored(ignore_label, labels)
    kind: Any = dtype_for(features.dtype, features.encoding) if dtype is None else dtype
    source = Source(
        features,
        labels,
        weight,
        np.dtype(kind),
        missing=missing,
        ignore_label=ignore_label,
        retry_policy=RetryPolicy.configured(),
        max_bad_chunks=allowed,
        feature_names=_feature_names(X, features),
        axes=axes,
        decode=decode,
    )
    return source if len(features.shape) == 2 else source.laid_out(Grid(features.cuts))


def _opened(source: Source, y: Any, sample_weight: Any, options: tuple[Any, ...]) -> Source:
    """Return an opened source; nothing may be given with it that it has already."""
    if y is not None or sample_weight is not None:
        raise DataError(
            "X is an opened source that carries its own y and weights; pass y=None and no "
            "sample_weight with it"
        )
    if options != _DEFAULTS:
        raise DataError(
            "X is an opened source, which is read as it was opened; pass dtype, missing, "
            "ignore_label, on_bad_chunk, max_bad_chunks and decode where it is opened"
        )
    return source


def _feature_names(X: Any, array: RowArray) -> tuple[str, ...] | None:
    """Return the names of the features, if all have one that is a string.

    Parameters
    ----------
    X : what the user passed: the columns of a DataFrame have names, and so has the last axis of
        a DataArray if it has a coordinate
    array : X as an array of rows; one of Zarr may have the attribute "feature_names", or its last
        axis coordinates in the same group, as xarray writes them
    """
    stored = array.array if isinstance(array, GridRows) else array
    values: Any = getattr(X, "columns", None)
    if type(X).__module__.startswith("xarray."):
        values = X.coords[X.dims[-1]].values.tolist() if X.dims[-1] in X.coords else None
    elif isinstance(stored, ZarrArray) and not type(X).__module__.startswith("dask."):
        values = stored.array().attrs.get("feature_names")
        values = stored_feature_names(stored) if values is None else values
    names = () if values is None or isinstance(values, str) else tuple(values)
    all_named = len(names) == array.shape[-1] and all(isinstance(name, str) for name in names)
    return names if all_named else None


def _raveled(y: RowArray, X: RowArray) -> RowArray:
    """Return a column of labels in memory as a row of them, with scikit-learn's warning."""
    if not (isinstance(y, MemoryArray) and len(X.shape) == 2 and y.shape[1:] == (1,)):
        return y
    # Imported late: workers open sources too, and do without scikit-learn.
    from sklearn.exceptions import DataConversionWarning

    warnings.warn(
        "A column-vector y was passed when a 1d array was expected; pass y.ravel()",
        DataConversionWarning,
        stacklevel=4,
    )
    return MemoryArray(y.name, y.values.ravel())


def _bad_chunks_allowed(on_bad_chunk: str, max_bad_chunks: int) -> int:
    if on_bad_chunk not in ("raise", "skip"):
        raise DataError(f"on_bad_chunk is {quoted(on_bad_chunk)}; expected 'raise' or 'skip'")
    if (on_bad_chunk == "skip") != (max_bad_chunks >= 1):
        raise DataError(
            f"on_bad_chunk is {quoted(on_bad_chunk)} and max_bad_chunks is {max_bad_chunks}; to "
            "leave chunks out that cannot be read, give 'skip' and how many at most"
        )
    return int(max_bad_chunks)


def row_array(
    role: str, values: Any, *, require_complete: bool = True, decode: bool = True
) -> RowArray:
    """Return whatever a user passed as X, y or sample_weight as an array of rows.

    With `require_complete`, a store that dsoftmax wrote and that has lost chunks is refused now.
    With `decode`, stored numbers are read as the attributes of their array say.
    """
    if isinstance(values, str | Path):
        return open_stored(values, require_complete=require_complete, decode=decode)
    encoding = None
    if _is_from("xarray", values):
        if decode and isinstance(getattr(values, "dtype", None), np.dtype):
            encoding = cf_encoding_of_attributes(role, values.attrs, values.dtype)
        values = _from_xarray(role, values)
    if _is_from("zarr", values):
        return from_node(role, values, require_complete=require_complete, decode=decode)
    if _is_from("dask", values):
        from dsoftmax.data.dask_array import from_dask

        lazy: Any = from_dask(role, values, decode=decode)
        found: RowArray = lazy if encoding is None else replace(lazy, encoding=encoding)
        return found
    if isinstance(values, np.memmap):
        mapped = from_memmap(values)
        if mapped is not None:
            return mapped
    return MemoryArray(role, as_numpy(role, values), encoding=encoding)


def _is_from(package: str, values: Any) -> bool:
    return type(values).__module__.partition(".")[0] == package


def _from_xarray(role: str, values: Any) -> Any:
    """Return the array in a DataArray: NumPy's if it is in memory, else Dask's."""
    if type(values).__name__ != "DataArray":
        raise DataError(f"{role} is an xarray {type(values).__name__}; expected a DataArray of it")
    if not isinstance(values.dtype, np.dtype):
        return values.data  # pandas' categories and nullable numbers, which are read at once
    if values.chunks is None and not values.variable._in_memory:
        # Of a file that was opened without chunks; `.data` would load all of it.
        preferred = values.encoding.get("preferred_chunks")
        values = values.chunk("auto" if preferred is None else preferred)
    return values.data


def _check_arrays(X: RowArray, y: RowArray | None, sample_weight: RowArray | None) -> None:
    """Refuse from the metadata alone, before anything is read, what cannot be used."""
    _check_features(X)
    for array in (y, sample_weight):
        if array is not None:
            _check_companion(array, X)
    if y is not None and y.dtype.kind in "cmMV":
        raise DataError(
            f"{y.name} has dtype {y.dtype}; labels must be integers, booleans or strings: convert "
            "them with astype"
        )
    if sample_weight is not None and sample_weight.dtype.kind not in "biuf":
        raise DataError(f"{sample_weight.name} has dtype {sample_weight.dtype}; expected numbers")


def _check_features(X: RowArray) -> None:
    if len(X.shape) < 2:
        raise DataError(
            f"{X.name} has shape {X.shape}; expected at least two dimensions, (n_samples, "
            "n_features) or (..., n_features). Reshape your data first, one row a sample"
        )
    remedy = "convert it with astype"
    if X.dtype.kind == "c":
        remedy = "Complex data not supported, pass real and imaginary parts as two features"
    if X.dtype.kind not in "biuf" or (X.dtype.kind == "f" and X.dtype.itemsize > 8):
        raise DataError(
            f"{X.name} has dtype {X.dtype}; expected real numbers (float of at most 64 bits, "
            f"integer or bool): {remedy}"
        )
    if 0 in X.shape:
        raise DataError(
            f"{X.name} has 0 {'feature(s)' if X.shape[-1] == 0 else 'sample(s)'} "
            f"(shape={X.shape}) while a minimum of 1 is required."
        )


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


def _ignored(label: Any, y: RowArray | None) -> Any:
    """Return a label to leave out, if y may hold it: NaN stands for all missing ones."""
    if y is None:
        raise DataError(f"ignore_label is {quoted(label)}, but there is no y that could hold it")
    if not (isinstance(label, str | bytes | numbers.Real | np.bool) or is_missing(label)):
        raise DataError(f"ignore_label is {quoted(label)}; expected one label, such as 255")
    packed = y.encoding is not None and y.encoding.packing is not None
    comparable_label(label, y.name, np.dtype(np.float64) if packed else y.dtype)
    if is_missing(label):
        return float("nan")
    return label.item() if isinstance(label, np.generic) else label
