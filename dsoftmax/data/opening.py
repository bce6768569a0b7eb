"""Opens data: whatever a user passes as X and y becomes a `Source`."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dsoftmax.data.checks import build_source
from dsoftmax.data.numpy_array import MemoryArray, from_memmap
from dsoftmax.data.retry import RetryPolicy
from dsoftmax.data.row_array import GridRows, RowArray, from_objects
from dsoftmax.data.source import Source
from dsoftmax.data.zarr_array import ZarrArray, from_zarr, open_zarr
from dsoftmax.errors import DataError


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
) -> Source:
    """Return a source of rows, having read metadata only.

    Parameters
    ----------
    X : Zarr array, path or URL of one, Dask array, xarray DataArray, or array-like
        Of shape (n_samples, n_features), or (..., n_features) with several axes of samples, such
        as (time, y, x, band). Real numbers: bool, any integer or float.
    y : the same kinds, of the shape of X without its last axis, optional
        Labels: integers, booleans or strings.
    sample_weight : the same kinds, of the shape of y, optional
        Finite, not negative.
    dtype : "float32" or "float64", optional
        What to compute in. By default float32 for float32, float16, bool and integers of
        up to 16 bits, which it holds exactly, and float64 for wider ones. Stored
        values keep their dtype until a block of rows is computed.
    missing : {"raise", "drop"}, default="raise"
        Whether a NaN or an infinity in X is an error, or its row is left out of what is fitted
        or evaluated; a fit says how many were. Which rows count has to be known first: a fit
        reads X once more than it otherwise would.
    ignore_label : label, optional
        Rows with this label are left out, such as 255 where there are no data; a fit says how
        many.
    on_bad_chunk : {"raise", "skip"}, default="raise"
        What a fit does with a chunk that cannot be decoded, fails its checksum or is lost:
        end with a ChunkError, or go on without its rows. A store that does not answer is
        another matter: it is tried again for about a minute, and then the fit stops.
    max_bad_chunks : int, default=0
        How many chunks of X may be skipped; one more ends the fit.

    Returns
    -------
    Source
        To pass to `fit` in place of X, with y=None.

    Raises
    ------
    DataError
        If there is no array at a path, or shapes, lengths or dtypes do not fit.

    Examples
    --------
    >>> source = open_data(np.zeros((3, 2), np.uint8), np.array(["a", "b", "a"]))
    >>> source.n_samples, source.n_features, source.dtype
    (3, 2, dtype('float32'))
    """
    if isinstance(X, Source):
        if y is not None or sample_weight is not None:
            raise DataError(
                "X is an opened source that carries its own y and weights; pass y=None and no "
                "sample_weight with it"
            )
        return X
    _check_dims(X, y, sample_weight)
    allowed = _bad_chunks_allowed(on_bad_chunk, max_bad_chunks)
    whole = allowed == 0
    features = row_array("X", X, whole=whole)
    source = build_source(
        features,
        None if y is None else _in_one_row(row_array("y", y, whole=whole), features),
        None if sample_weight is None else row_array("sample_weight", sample_weight, whole=whole),
        None if dtype is None else _computable(dtype),
        missing,
        ignore_label,
    )
    return replace(
        source,
        retry_policy=RetryPolicy.configured(),
        max_bad_chunks=allowed,
        feature_names=_feature_names(X, features),
    )


def _feature_names(X: Any, array: RowArray) -> tuple[str, ...] | None:
    """Return the names of the features, if all have one that is a string.

    Parameters
    ----------
    X : what the user passed: the columns of a DataFrame have names, and so has the last axis of
        a DataArray if it has a coordinate
    array : X as an array of rows; one of Zarr may have the attribute "feature_names"
    """
    stored = array.array if isinstance(array, GridRows) else array
    values: Any = getattr(X, "columns", None)
    if type(X).__module__.startswith("xarray."):
        values = X.coords[X.dims[-1]].values.tolist() if X.dims[-1] in X.coords else None
    elif isinstance(stored, ZarrArray) and not type(X).__module__.startswith("dask."):
        values = stored.array().attrs.get("feature_names")
    names = () if values is None or isinstance(values, str) else tuple(values)
    all_named = len(names) == array.shape[-1] and all(isinstance(name, str) for name in names)
    return names if all_named else None


def _in_one_row(y: RowArray, X: RowArray) -> RowArray:
    """Return a column of labels in memory as a row of them, with scikit-learn's warning."""
    if not (isinstance(y, MemoryArray) and len(X.shape) == 2 and y.shape[1:] == (1,)):
        return y
    from sklearn.exceptions import DataConversionWarning

    warnings.warn(
        "A column-vector y was passed when a 1d array was expected; pass y.ravel()",
        DataConversionWarning,
        stacklevel=4,
    )
    return MemoryArray(y.name, y.values.ravel())


def _bad_chunks_allowed(on_bad_chunk: str, max_bad_chunks: int) -> int:
    if on_bad_chunk not in ("raise", "skip"):
        raise DataError(f"on_bad_chunk is {on_bad_chunk!r}; expected 'raise' or 'skip'")
    if (on_bad_chunk == "skip") != (max_bad_chunks >= 1):
        raise DataError(
            f"on_bad_chunk is {on_bad_chunk!r} and max_bad_chunks is {max_bad_chunks}; to leave "
            "chunks out that cannot be read, give 'skip' and how many at most"
        )
    return int(max_bad_chunks)


def _computable(dtype: npt.DTypeLike) -> np.dtype[np.floating]:
    computable: dict[Any, np.dtype[np.floating]] = {
        np.dtype(np.float32): np.dtype(np.float32),
        np.dtype(np.float64): np.dtype(np.float64),
    }
    if np.dtype(dtype) not in computable:
        raise DataError(f"dtype is {dtype!r}; expected float32 or float64 to compute in")
    return computable[np.dtype(dtype)]


def row_array(role: str, values: Any, *, whole: bool = True) -> RowArray:
    """Return whatever a user passed as X, y or sample_weight as an array of rows.

    With `whole`, a store of ours that has lost chunks is refused at once.
    """
    if isinstance(values, str | Path):
        return open_zarr(values, whole=whole)
    if _is_from("xarray", values):
        values = _from_xarray(role, values)
    if _is_from("zarr", values):
        return from_zarr(role, values, whole=whole)
    if _is_from("dask", values):
        from dsoftmax.data.dask_array import from_dask

        return from_dask(role, values)
    if isinstance(values, np.memmap):
        mapped = from_memmap(values)
        if mapped is not None:
            return mapped
    return MemoryArray(role, _as_numpy(role, values))


def _is_from(package: str, values: Any) -> bool:
    return type(values).__module__.partition(".")[0] == package


def _from_xarray(role: str, values: Any) -> Any:
    """Return the array in a DataArray: NumPy's if it is in memory, else Dask's."""
    if type(values).__name__ != "DataArray":
        raise DataError(f"{role} is an xarray {type(values).__name__}; expected a DataArray of it")
    if values.chunks is None and not values.variable._in_memory:
        # Of a file that was opened without chunks; `.data` would load all of it.
        preferred = values.encoding.get("preferred_chunks")
        values = values.chunk("auto" if preferred is None else preferred)
    return values.data


def _check_dims(X: Any, *companions: Any) -> None:
    """Refuse DataArrays whose axes have the same names in another order."""
    for values in companions:
        if not (_is_from("xarray", X) and _is_from("xarray", values)):
            continue
        got, expected = getattr(values, "dims", ()), getattr(X, "dims", ())[:-1]
        if got != expected and set(got) == set(expected):
            raise DataError(
                f"an array has the axes {tuple(got)} where those of X are {tuple(expected)}; "
                "transpose it to that order"
            )


def _as_numpy(role: str, values: Any) -> npt.NDArray[Any]:
    if hasattr(values, "toarray"):
        raise DataError(
            f"{role} is a sparse {type(values).__name__}; sparse data is not supported: "
            "use .toarray() to convert it to a dense array if it fits"
        )
    array = np.asarray(values)
    if array.dtype.kind != "O":
        return array
    return from_objects(role, array)
