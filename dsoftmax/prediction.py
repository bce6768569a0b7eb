"""Predictions: NumPy for NumPy, lazy Dask arrays for what may not fit in memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from dsoftmax.errors import DataError
from dsoftmax.loss import compute_dtype, raw_blocks
from dsoftmax.reduction import Array, Chunk
from dsoftmax.softmax import log_probabilities, probabilities
from dsoftmax.sources.base import Source
from dsoftmax.sources.grid import Grid, Index, index_in

_WIDE = ("predict_proba", "predict_log_proba")
METHODS = ("predict", "decision_function", *_WIDE)


@dataclass(frozen=True)
class LinearModel:
    """All that a prediction needs: it travels with the tasks.

    Attributes
    ----------
    classes : (K,)
    coef : (n_features, n_columns); one column is the log odds of the second of two classes
    intercept : (n_columns,)
    shift : (n_features,), what the kernel subtracts from the rows to keep its digits, or None
    """

    classes: Array
    coef: Array
    intercept: Array
    shift: Array | None = None

    def point(self, dtype: npt.DTypeLike) -> Array:
        """Return the kernel's point (n_features + 1, n_columns), for rows that it shifts."""
        shifted = 0.0 if self.shift is None else self.shift.astype(np.float64) @ self.coef
        return np.vstack([self.coef, self.intercept + shifted]).astype(dtype)

    def apply(self, chunk: Chunk, method: str, dtype: np.dtype[np.floating]) -> Array:
        """Return what `method` predicts for the rows of a chunk, block by block.

        Raises
        ------
        DataError
            At the first value of X that is not finite.
        """
        link = _LINKS[method]
        out = np.empty(self.shape(len(chunk.X), method), self.dtype(method, dtype))
        with np.errstate(over="ignore", invalid="ignore"):
            for rows, _, raw in raw_blocks(chunk.X, self.point(dtype)[None], self.shift):
                if not np.isfinite(raw).all():
                    chunk.require_finite(dtype)
                out[rows] = link(raw[0], self.classes)
        return out

    def shape(self, n_rows: int, method: str) -> tuple[int, ...]:
        """Return the shape of a prediction for so many rows."""
        narrow = method == "predict" or (method == "decision_function" and len(self.classes) == 2)
        return (n_rows,) if narrow else (n_rows, len(self.classes))

    def dtype(self, method: str, computed: npt.DTypeLike) -> np.dtype[Any]:
        """Return the dtype of a prediction that is computed in the given one."""
        return self.classes.dtype if method == "predict" else np.dtype(computed)


def _labels(raw: Array, classes: Array) -> Array:
    codes = (raw[0] > 0).astype(np.intp) if len(raw) == 1 else raw.argmax(axis=0)
    return np.asarray(classes[codes])


def _decision(raw: Array, _: Array) -> Array:
    return raw[0] if len(raw) == 1 else raw.T


_LINKS: dict[str, Callable[[Array, Array], Array]] = {
    "predict": _labels,
    "decision_function": _decision,
    "predict_proba": lambda raw, _: probabilities(raw).T,
    "predict_log_proba": lambda raw, _: log_probabilities(raw).T,
}


def is_dask(X: Any) -> bool:
    """Return whether X is one of Dask's collections."""
    return type(X).__module__.startswith("dask.")


def predicted(model: LinearModel, X: Any, source: Source | None, method: str) -> Any:
    """Return what `method` predicts for X: lazy in, lazy out.

    Parameters
    ----------
    model : LinearModel
    X : as for `open_data`, or a Dask array
    source : X, opened; None for a Dask array
    method : one of METHODS

    Returns
    -------
    ndarray for arrays in memory, DataArray for one, else dask.array.Array, of the shape of X
    without its last axis, or with the classes in its place

    Raises
    ------
    DataError
        If X is not of shape (..., n_features) of the model, or has values that are not
        finite (raised when they are computed).
    """
    if source is None:
        return _lazy_from_dask(model, X, method)
    source = source.features_only()
    require_features(source.X.shape, model, source.X.name)
    if source.X.in_memory:
        flat = model.apply(source.read(0, source.n_samples), method, source.dtype)
        result = flat.reshape(*source.shape, *flat.shape[1:])
    else:
        result = _lazy_from_source(model, source, method)
    return _named_alike(X, result, model) if type(X).__module__.startswith("xarray.") else result


def _named_alike(X: Any, result: Any, model: LinearModel) -> Any:
    """Return a prediction as a DataArray, with the coordinates that X has for its samples."""
    features = X.dims[-1]
    coords = {name: c for name, c in X.coords.items() if features not in c.dims}
    dims = X.dims[:-1]
    if result.ndim == X.ndim:
        dims, coords = (*dims, "class"), {**coords, "class": model.classes}
    return type(X)(result, dims=dims, coords=coords)


def require_features(shape: tuple[int, ...], model: LinearModel, name: str) -> None:
    """Raise DataError unless an array of this shape has the model's number of features."""
    expected = len(model.coef)
    if len(shape) < 2 or shape[-1] != expected:
        got = shape[-1] if len(shape) > 1 else f"shape {shape}"
        raise DataError(
            f"{name} has {got} features, but SoftmaxRegression is expecting {expected} features "
            "as input: pass the columns that it was fitted on"
        )


def _lazy_from_source(model: LinearModel, source: Source, method: str) -> Any:
    import dask.array as da

    from dsoftmax.sources.dask import DaskArray

    if isinstance(source.X, DaskArray):
        return _lazy_from_dask(model, source.X.collection, method, source.dtype)
    grid = source.grid or Grid((source.chunks,))
    tail = model.shape(1, method)[1:]
    dtype = model.dtype(method, source.dtype)
    return da.map_blocks(
        _predict_rows, source, model, method, dtype=dtype,
        chunks=(*grid.sizes, *((size,) for size in tail)),
        meta=np.empty((0,) * (len(grid.cuts) + len(tail)), dtype),
        name=f"{method}-{_token(source, model)}",
    )  # fmt: skip


def _token(source: Source, model: LinearModel) -> str:
    from dask.base import tokenize

    return str(tokenize(source, model.classes, model.coef, model.intercept))


def _predict_rows(source: Source, model: LinearModel, method: str, block_info: Any = None) -> Array:
    where = block_info[None]["array-location"][: len(source.shape)]
    if source.grid is None:
        start, stop = where[0]
    else:
        start, stop = source.grid.rows_at(tuple(axis[0] for axis in where))
    rows = model.apply(source.read(start, stop), method, source.dtype)
    return rows.reshape(*(high - low for low, high in where), *rows.shape[1:])


def _predict_block(
    X: Array, model: LinearModel, method: str, computed: np.dtype[np.floating],
    block_info: Any = None,
) -> Array:  # fmt: skip
    """Return what is predicted for a block, named in messages by where it lies in the whole."""
    where = tuple(slice(*axis) for axis in block_info[0]["array-location"][:-1])
    chunk = Chunk(X.reshape(-1, X.shape[-1]), None, None, where[0].start)
    if len(where) > 1:
        chunk = chunk._replace(start=0, place=partial(_place, where))
    rows = model.apply(chunk, method, computed)
    return rows.reshape(*X.shape[:-1], *rows.shape[1:])


def _place(box: Index, row: int) -> str:
    return f"index {index_in(box, row)}"


def _lazy_from_dask(
    model: LinearModel, X: Any, method: str, computed: np.dtype[np.floating] | None = None
) -> Any:
    from dsoftmax.sources.dask import require_array

    require_array("X", X)
    require_features(X.shape, model, "X")
    if X.dtype.kind not in "biuf":
        raise DataError(f"X has dtype {X.dtype}; expected real numbers (float, integer or bool)")
    if X.numblocks[-1] > 1:
        X = X.rechunk({X.ndim - 1: -1})
    tail = model.shape(1, method)[1:]
    computed = computed or compute_dtype(X.dtype)
    dtype = model.dtype(method, computed)
    return X.map_blocks(
        _predict_block, model, method, computed, dtype=dtype,
        meta=np.empty((0,) * (X.ndim - 1 + len(tail)), dtype),
        drop_axis=None if tail else X.ndim - 1,
        chunks=(*X.chunks[:-1], *((size,) for size in tail)),
    )  # fmt: skip
