"""Predictions: NumPy for NumPy, lazy Dask arrays for what may not fit in memory."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr

from dsoftmax.errors import DataError
from dsoftmax.loss import compute_dtype, log_probabilities, probabilities, raw_blocks
from dsoftmax.reduction import Array, Chunk
from dsoftmax.runtime.executors import executor_for
from dsoftmax.runtime.spans import cut_spans
from dsoftmax.sources import open_data
from dsoftmax.sources.base import Source
from dsoftmax.sources.zarr import absolute_url
from dsoftmax.stores import create_array, locate, new_node, require_apart

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
        If X is not of shape (n_samples, n_features) of the model, or has values that are not
        finite (raised when they are computed).
    """
    if type(X).__module__.startswith("dask."):
        return _lazy_from_dask(model, X, method)
    source = open_data(X)
    require_features(source.X.shape, model, source.X.name)
    if source.X.in_memory:
        return model.apply(source.read(0, source.n_samples), method, source.dtype)
    return _lazy_from_source(model, source, method)


def predict_to_store(
    model: LinearModel, source: Source, place: str | os.PathLike[str], method: str,
    *, overwrite: bool = False,
) -> None:  # fmt: skip
    """Write predictions to a Zarr array; see `SoftmaxRegression.predict_to`."""
    require_features(source.X.shape, model, source.X.name)
    if method not in METHODS:
        raise DataError(f"method is {method!r}; expected one of {', '.join(METHODS)}")
    require_apart(place, source.X.name if source.X.portable else None)
    # All chunks of the output are of the same length, and no two tasks write to one of them.
    rows = max(stop - start for start, stop in pairwise(source.chunks))
    boundaries = (*range(0, source.n_samples, rows), source.n_samples)
    parts = {span: source.part(*span) for span in cut_spans(boundaries, source.row_bytes)}
    with new_node(locate(place), overwrite) as target:
        url = absolute_url(os.fspath(target))
        _create_output(url, model, source, method, rows)
        tasks = [(part, part.futures, model, method, url, *span) for span, part in parts.items()]
        with executor_for(source) as executor:
            for _ in executor.run(method, _write_rows, tasks, few=bool(source.futures)):
                pass


def _create_output(url: str, model: LinearModel, source: Source, method: str, rows: int) -> None:
    shape = model.shape(source.n_samples, method)
    dtype = model.dtype(method, source.dtype)
    create_array(url, None, shape, dtype, (rows, *shape[1:]))


def _write_rows(
    source: Source, blocks: dict[Any, Any], model: LinearModel, method: str, url: str,
    start: int, stop: int,
) -> None:  # fmt: skip
    rows = source.with_blocks(blocks).read(start, stop)
    zarr.open_array(url, mode="r+")[start:stop] = model.apply(rows, method, source.dtype)


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

    from dsoftmax.sources.dask import DaskArray

    if isinstance(source.X, DaskArray):
        return _lazy_from_dask(model, source.X.collection, method, source.dtype)
    rows = tuple(stop - start for start, stop in pairwise(source.chunks))
    shape = model.shape(source.n_samples, method)
    dtype = model.dtype(method, source.dtype)
    chunks = (rows, *((size,) for size in shape[1:]))
    return da.map_blocks(
        _predict_rows, source, model, method, dtype=dtype, chunks=chunks,
        meta=np.empty((0,) * len(shape), dtype), name=f"{method}-{_token(source, model)}",
    )  # fmt: skip


def _token(source: Source, model: LinearModel) -> str:
    from dask.base import tokenize

    return str(tokenize(source, model.classes, model.coef, model.intercept))


def _predict_rows(source: Source, model: LinearModel, method: str, block_info: Any = None) -> Array:
    start, stop = block_info[None]["array-location"][0]
    return model.apply(source.read(start, stop), method, source.dtype)


def _predict_block(
    X: Array, model: LinearModel, method: str, computed: np.dtype[np.floating],
    block_info: Any = None,
) -> Array:  # fmt: skip
    start = block_info[0]["array-location"][0][0]
    return model.apply(Chunk(X, None, None, start), method, computed)


def _lazy_from_dask(
    model: LinearModel, X: Any, method: str, computed: np.dtype[np.floating] | None = None
) -> Any:
    from dsoftmax.sources.dask import require_array

    require_array("X", X)
    require_features(X.shape, model, "X")
    if X.dtype.kind not in "biuf":
        raise DataError(f"X has dtype {X.dtype}; expected real numbers (float, integer or bool)")
    if X.numblocks[1] > 1:
        X = X.rechunk({1: -1})
    shape = model.shape(1, method)
    computed = computed or compute_dtype(X.dtype)
    dtype = model.dtype(method, computed)
    return X.map_blocks(
        _predict_block, model, method, computed, dtype=dtype,
        meta=np.empty((0,) * len(shape), dtype), drop_axis=None if len(shape) == 2 else 1,
        chunks=(X.chunks[0], *((size,) for size in shape[1:])),
    )  # fmt: skip
