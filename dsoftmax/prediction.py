"""Predictions: NumPy for NumPy, lazy Dask arrays for what may not fit in memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dsoftmax.errors import DataError
from dsoftmax.loss import compute_dtype, log_probabilities, probabilities, raw_blocks
from dsoftmax.reduction import Array
from dsoftmax.sources import open_data
from dsoftmax.sources.base import Source

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
    """

    classes: Array
    coef: Array
    intercept: Array

    def point(self, dtype: npt.DTypeLike) -> Array:
        """Return the kernel's point (n_features + 1, n_columns)."""
        return np.vstack([self.coef, self.intercept]).astype(dtype)

    def apply(self, X: Array, method: str) -> Array:
        """Return what `method` predicts for rows (n, n_features), block by block."""
        link = _LINKS[method]
        dtype = compute_dtype(X.dtype)
        out = np.empty(self.shape(len(X), method), self.dtype(method, dtype))
        for rows, _, raw in raw_blocks(X, self.point(dtype)[None]):
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


def predicted(model: LinearModel, X: Any, method: str) -> Any:
    """Return what `method` predicts for X: lazy in, lazy out.

    Parameters
    ----------
    model : LinearModel
    X : as for `open_data`, or a Dask array
    method : one of METHODS

    Returns
    -------
    ndarray for arrays in memory, else dask.array.Array, of shape (n_samples,) or
    (n_samples, n_classes)

    Raises
    ------
    DataError
        If X is not of shape (n_samples, n_features) of the model, or, where it is in
        memory, has values that are not finite.
    """
    if type(X).__module__.startswith("dask."):
        return _lazy_from_dask(model, X, method)
    source = open_data(X)
    require_features(source.X.shape, model, source.X.name)
    if source.X.in_memory:
        rows = source.read(0, source.n_samples)
        if rows.X.dtype.kind == "f":
            rows.require_finite(source.dtype)
        return model.apply(rows.X, method)
    return _lazy_from_source(model, source, method)


def require_features(shape: tuple[int, ...], model: LinearModel, name: str) -> None:
    """Raise DataError unless an array of this shape has the model's number of features."""
    expected = len(model.coef)
    if len(shape) != 2 or shape[1] != expected:
        got = shape[1] if len(shape) == 2 else f"shape {shape}"
        raise DataError(
            f"{name} has {got} features, but SoftmaxRegression is expecting {expected} features "
            "as input: pass the columns that it was fitted on"
        )


def _lazy_from_source(model: LinearModel, source: Source, method: str) -> Any:
    import dask.array as da

    ends = source.chunks
    rows = tuple(stop - start for start, stop in zip(ends[:-1], ends[1:], strict=True))
    shape = model.shape(source.n_samples, method)
    dtype = model.dtype(method, compute_dtype(source.X.dtype))
    chunks = (rows, *((size,) for size in shape[1:]))
    return da.map_blocks(
        _predict_rows, source, model, method, dtype=dtype, chunks=chunks,
        meta=np.empty((0,) * len(shape), dtype), name=f"{method}-{_token(source, model)}",
    )  # fmt: skip


def _token(source: Source, model: LinearModel) -> str:
    from dask.base import tokenize

    return str(tokenize(source.X.name, source.X.shape, model.classes, model.coef, model.intercept))


def _predict_rows(source: Source, model: LinearModel, method: str, block_info: Any = None) -> Array:
    start, stop = block_info[None]["array-location"][0]
    return model.apply(source.read(start, stop).X, method)


def _lazy_from_dask(model: LinearModel, X: Any, method: str) -> Any:
    require_features(X.shape, model, "X")
    if X.dtype.kind not in "biuf":
        raise DataError(f"X has dtype {X.dtype}; expected real numbers (float, integer or bool)")
    if X.numblocks[1] > 1:
        X = X.rechunk({1: -1})
    shape = model.shape(1, method)
    dtype = model.dtype(method, compute_dtype(X.dtype))
    return X.map_blocks(
        model.apply, method, dtype=dtype, meta=np.empty((0,) * len(shape), dtype),
        drop_axis=None if len(shape) == 2 else 1,
        chunks=(X.chunks[0], *((size,) for size in shape[1:])),
    )  # fmt: skip
