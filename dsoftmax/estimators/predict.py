"""Predictions: NumPy for NumPy, lazy Dask arrays for what may not fit in memory."""

from __future__ import annotations

import warnings
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from dsoftmax.data.cf_encoding import CFEncoding, dtype_for
from dsoftmax.data.grid import Index, block_values, index_in
from dsoftmax.data.missing import with_features, without_missing
from dsoftmax.data.source import Source
from dsoftmax.data.store_changes import require_unchanged, warn_of_absent_chunks
from dsoftmax.errors import DataError
from dsoftmax.metrics.metrics import metrics_of
from dsoftmax.metrics.scores import EvaluationResult, scores_of
from dsoftmax.objective.linear_model import LinearModel, require_features
from dsoftmax.objective.reduction import Chunk
from dsoftmax.runtime.reduce import full_pass, reduce
from dsoftmax.runtime.select import executor_for
from dsoftmax.runtime.spans import cut_spans, most_rows
from dsoftmax.runtime.task_errors import portably
from dsoftmax.runtime.working_set import metrics_demand
from dsoftmax.typing import Array


def is_dask(X: Any) -> bool:
    """Return whether X is one of Dask's collections."""
    return type(X).__module__.startswith("dask.")


def predict(model: LinearModel, X: Any, source: Source | None, method: str) -> Any:
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
        If X is not of shape (..., n_features) of the model; if `missing_label` does not fit the
        classes; and, when it is computed, if X has missing values that are to get a label and there
        is none.
    """
    if source is None:
        from dsoftmax.data.dask_graph import encoding_behind

        encoding = encoding_behind("X", X, stacklevel=4)
        return _lazy_from_dask(model, X, method, None, encoding)
    source = source.features_only()
    require_features(source.X.shape, model, source.X.name)
    warn_of_absent_chunks(source, stacklevel=4)
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
        name = "class" if "class" not in (*dims, *coords) else "predicted_class"
        dims, coords = (*dims, name), {**coords, name: model.classes}
    return type(X)(result, dims=dims, coords=coords)


def _lazy_from_source(model: LinearModel, source: Source, method: str) -> Any:
    import dask.array as da

    from dsoftmax.data.dask_array import DaskArray
    from dsoftmax.data.dask_parts import SourceParts

    if isinstance(source.X, DaskArray):
        return _lazy_from_dask(model, source.X.collection, method, source.dtype, source.X.encoding)
    parts, tail = SourceParts(source), model.shape(1, method)[1:]
    dtype = model.dtype(method, source.dtype)
    samples = tuple(range(len(parts.numblocks)))
    axes = tuple(range(len(samples) + len(tail)))
    return da.blockwise(
        portably,
        axes,
        _predict_rows,
        None,
        parts,
        samples,
        model,
        None,
        method,
        None,
        new_axes=dict(zip(axes[len(samples) :], tail, strict=True)),
        dtype=dtype,
        meta=np.empty((0,) * len(axes), dtype),
        align_arrays=False,
        name=f"{method}-{_token(source, model)}",
    )


def _token(source: Source, model: LinearModel) -> str:
    from dask.base import tokenize

    return str(tokenize(source, model.classes, model.coef, model.intercept, model.missing_label))


def _predict_rows(
    part: tuple[Source, tuple[int, int], tuple[int, ...]], model: LinearModel, method: str
) -> Array:
    source, (start, stop), shape = part
    rows = model.apply(source.read(start, stop), method, source.dtype)
    return rows.reshape(*shape, *rows.shape[1:])


def _predict_block(
    X: Array,
    model: LinearModel,
    method: str,
    computed: np.dtype[np.floating],
    encoding: CFEncoding | None,
    block_info: Any = None,
) -> Array:
    """Return what is predicted for a block, named in messages by where it lies in the whole."""
    where = tuple(slice(*axis) for axis in block_info[0]["array-location"][:-1])
    return portably(_predicted, X, model, method, computed, encoding, where)


def _predicted(
    X: Array,
    model: LinearModel,
    method: str,
    computed: np.dtype[np.floating],
    encoding: CFEncoding | None,
    where: Index,
) -> Array:
    X = block_values("X", X)
    values = X.reshape(-1, X.shape[-1])
    chunk, missing = with_features(Chunk(values, None, None, where[0].start), values, encoding)
    chunk = without_missing(chunk, missing)
    if len(where) > 1:
        chunk = chunk._replace(start=0, place=partial(_place, where))
    rows = model.apply(chunk, method, computed)
    return rows.reshape(*X.shape[:-1], *rows.shape[1:])


def _place(box: Index, row: int) -> str:
    return f"index {index_in(box, row)}"


def _lazy_from_dask(
    model: LinearModel,
    X: Any,
    method: str,
    computed: np.dtype[np.floating] | None,
    encoding: CFEncoding | None,
) -> Any:
    from dsoftmax.data.dask_array import require_array

    require_array("X", X)
    require_features(X.shape, model, "X")
    if X.dtype.kind not in "biuf":
        raise DataError(f"X has dtype {X.dtype}; expected real numbers (float, integer or bool)")
    if X.numblocks[-1] > 1:
        X = X.rechunk({X.ndim - 1: -1})
    tail = model.shape(1, method)[1:]
    computed = computed or dtype_for(X.dtype, encoding)
    dtype = model.dtype(method, computed)
    return X.map_blocks(
        _predict_block,
        model,
        method,
        computed,
        encoding,
        dtype=dtype,
        meta=np.empty((0,) * (X.ndim - 1 + len(tail)), dtype),
        drop_axis=None if tail else X.ndim - 1,
        chunks=(*X.chunks[:-1], *((size,) for size in tail)),
    )


def evaluate(model: LinearModel, source: Source) -> EvaluationResult:
    """Return the metrics of a model over a source with labels.

    Raises
    ------
    DataError
        If the source has no y, other features, labels of another type than the model, or changes
        while it is read.

    Warns
    -----
    UserWarning
        If there are labels that the model does not know, or rows are left out.
    """
    require_features(source.X.shape, model, source.X.name)
    if source.y is None:
        raise DataError("y is missing: pass the labels of X")
    require_unchanged(source, at_start=True)
    warn_of_absent_chunks(source, stacklevel=4)
    labelled = replace(source, classes=model.classes, unknown_labels="count")
    spans = cut_spans(source.chunks, source.row_bytes)
    demand = metrics_demand(source, len(model.classes))
    with executor_for(source, demand, most_rows(spans)) as executor:
        reduction = metrics_of(model.point(source.dtype), model.shift)
        sums, _ = reduce(executor, labelled, reduction, full_pass(spans))
    require_unchanged(source)
    if not sums.weight > 0:
        raise DataError(
            "all weights are zero; at least one row must count"
            if sums.rows > 0
            else f"all {source.n_samples:,} rows are left out; at least one row must count"
        )
    if source.missing == "drop" and sums.rows < source.n_samples:
        policy = "missing='drop'" + (" or ignore_label" if source.ignore_label is not None else "")
        warnings.warn(
            f"{source.n_samples - sums.rows:,} of {source.n_samples:,} rows are left out, by "
            f"{policy}",
            stacklevel=4,
        )
    if n_unknown := int(sums.unknown.rows.sum()):
        warnings.warn(
            f"{n_unknown:,} of {sums.rows:,} rows of {source.y.name} have a label that the model "
            f"does not know: {sums.unknown}; they are counted as wrong",
            stacklevel=4,
        )
    return scores_of(sums, model.classes, weighted=source.sample_weight is not None)
