"""Writes predictions to a Zarr array, task by task, and resumes after a stop."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from dsoftmax.data.chunk_listing import list_chunks
from dsoftmax.data.grid import Grid, cuts_every
from dsoftmax.data.source import Source
from dsoftmax.data.store_changes import require_unchanged, warn_of_absent_chunks
from dsoftmax.errors import DataError, quoted
from dsoftmax.estimators.write_rows import OutputPart, write_rows
from dsoftmax.objective.linear_model import METHODS, LinearModel, require_features
from dsoftmax.runtime.base import Executor
from dsoftmax.runtime.failures import named_failures
from dsoftmax.runtime.reduce import full_pass, task_runs
from dsoftmax.runtime.select import executor_for
from dsoftmax.runtime.spans import Span, cut_spans, most_rows
from dsoftmax.runtime.threads import ThreadExecutor
from dsoftmax.runtime.working_set import Demand
from dsoftmax.storage.credentials import Place, public_errors, public_url
from dsoftmax.storage.urls import absolute_url, locate, storage_options
from dsoftmax.storage.zarr_nodes import (
    create_array,
    new_node,
    require_apart,
    require_free,
)
from dsoftmax.training.fingerprint import described, first_values

_FINGERPRINT = (
    "dsoftmax_prediction"  # attribute of an array, by which a later call knows its own beginning
)


@public_errors()
def predict_to_store(
    model: LinearModel,
    source: Source,
    path: str | os.PathLike[str],
    method: str,
    *,
    overwrite: bool = False,
    resume: bool = False,
) -> None:
    """Write predictions to a Zarr array; see `SoftmaxRegression.predict_to`."""
    require_features(source.X.shape, model, source.X.name)
    if method not in METHODS:
        raise DataError(f"method is {quoted(method)}; expected one of {', '.join(METHODS)}")
    if source.X.portable:
        require_apart(path, *([array.url for array in source.X.stored] or [source.X.name]))
    if not resume:
        require_free(path, overwrite)
    require_unchanged(source, at_start=True)
    warn_of_absent_chunks(source, stacklevel=4)  # one more for the decorator
    # All chunks of the output are of the same length, and no two tasks write to one of them.
    source, out = _evenly_chunked(source.features_only())
    fingerprint = _fingerprint(model, source, method) if resume else None
    if fingerprint is not None and _is_complete(locate(path), fingerprint):
        return
    with ExitStack() as stack:
        spans, demand = _spans(model, source, out, method), _demand(model, source, method)
        executor = stack.enter_context(executor_for(source, demand, most_rows(spans)))
        # The tasks end before the folder is removed that they write to.
        with new_node(locate(path), overwrite, resumable=resume) as target, stack:
            url = absolute_url(os.fspath(target))
            if fingerprint is None or not _is_started(url, fingerprint, overwrite):
                _create_output(url, model, source, method, out, fingerprint, overwrite)
            _write(executor, model, source, spans, out, method, url, resume)
            require_unchanged(source)


def is_predicted(
    estimator: Any, X: Any, path: str | os.PathLike[str], method: str, missing_label: Any
) -> bool:
    """Whether `predict_to` would resume to find that it is done; no cluster is started for it.

    Parameters
    ----------
    estimator : a fitted one
    X, path, method, missing_label : as for its `predict_to`
    """
    place = locate(path)
    if not _stored_fingerprint(place):
        return False
    source = estimator._opened(X)
    model = estimator._linear(X, source, missing_label)
    require_features(source.X.shape, model, source.X.name)
    source, _ = _evenly_chunked(source.features_only())
    return _is_complete(place, _fingerprint(model, source, method))


def _fingerprint(model: LinearModel, source: Source, method: str) -> str:
    """Return a digest of the model, the method and the data, after reading the first chunk."""
    if source.X.in_memory:
        raise DataError(
            f"resume=True, and {source.X.name} is an array in memory, which a later process cannot "
            "recognise; expected one in a store"
        )
    arrays = (model.classes, model.coef, model.intercept, model.point(source.dtype))
    facts = [method, source.X.name, *described(source).values()]
    facts += [f"{array.dtype.str} {array.shape}" for array in arrays]
    if method == "predict" and model.missing_label is not None:
        facts.append(f"missing_label {np.asarray(model.missing_label).item()!r}")
    with executor_for(source) if source.futures else ThreadExecutor() as executor:
        facts.append(first_values(source, executor))
    digest = hashlib.sha256("\n".join(facts).encode())
    for array in arrays:
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _stored_fingerprint(path: Path | str) -> Any:
    """Return the fingerprint of the array at a path: None without an array, "" without one."""
    try:
        node = zarr.open_array(path, mode="r", storage_options=storage_options(str(path)))
    except (ValueError, OSError):
        return None
    return node.attrs.get(_FINGERPRINT, "")


def _is_complete(path: Path | str, fingerprint: str) -> bool:
    """Return whether this prediction is complete: a local array appears only when it is."""
    if _stored_fingerprint(path) != fingerprint:
        return False
    if isinstance(path, Path):
        return True
    held = list_chunks(zarr.open_array(path, mode="r", storage_options=storage_options(path)))
    return held is not None and held.n_absent == 0


def _is_started(url: str, fingerprint: str, overwrite: bool) -> bool:
    """Return whether the array at a URL is the beginning of this prediction."""
    found = _stored_fingerprint(url)
    if found is None:
        require_free(url, overwrite)
    if found not in (None, fingerprint) and not overwrite:
        raise DataError(
            f"{public_url(url)} holds the beginning of another prediction (of another model, "
            "method or data): remove it, pass overwrite=True, or choose another destination"
        )
    return bool(found == fingerprint)


def _write(
    executor: Executor,
    model: LinearModel,
    source: Source,
    spans: Sequence[Span],
    out: Grid,
    method: str,
    url: str,
    resume: bool,
) -> None:
    runs = task_runs(source, full_pass(spans), executor.slots, batch=False)
    tasks = []
    for first, last in runs:
        parts = [_output_part(source, out, span) for span in spans[first:last]]
        blocks = {key: block for part, *_ in parts for key, block in part.futures.items()}
        tasks.append((parts, blocks, model, method, Place(url), resume))
    with named_failures(source, [spans[first:last] for first, last in runs]):
        for _ in executor.run(method, write_rows, tasks, low_concurrency=bool(source.futures)):
            pass


def _row_bytes(model: LinearModel, source: Source, method: str) -> int:
    """Return the bytes that are predicted for a row."""
    n_columns = int(np.prod(model.shape(1, method)))
    return n_columns * model.dtype(method, source.dtype).itemsize


def _spans(model: LinearModel, source: Source, out: Grid, method: str) -> Sequence[Span]:
    row_bytes = max(source.row_bytes, _row_bytes(model, source, method))
    return cut_spans(out.boundaries, row_bytes)


def _demand(model: LinearModel, source: Source, method: str) -> Demand:
    """Return what the tasks hold: predictions, the chunks made of them, and these compressed."""
    sums_bytes, row_bytes = model.coef.nbytes, 3 * _row_bytes(model, source, method)
    return Demand(sums_bytes, model.coef.shape[1], n_products=5, row_bytes=row_bytes)


def _output_part(source: Source, out: Grid, span: Span) -> OutputPart:
    return source.part(*span), span, list(out.regions(*span))


def _evenly_chunked(source: Source) -> tuple[Source, Grid]:
    """Return the source in blocks of one size, and the grid of its samples."""
    axes = (source.chunks,) if source.grid is None else source.grid.cuts
    steps = tuple(max(b - a for a, b in pairwise(cut)) for cut in axes)
    even = Grid(cuts_every(source.shape, steps))
    if source.grid is None or even == source.grid:
        return source, even
    return replace(source, X=source.X.laid_out(even), grid=even), even


def _create_output(
    url: str,
    model: LinearModel,
    source: Source,
    method: str,
    out: Grid,
    fingerprint: str | None,
    overwrite: bool,
) -> None:
    tail = model.shape(1, method)[1:]
    dtype = model.dtype(method, source.dtype)
    blocks = tuple(sizes[0] for sizes in out.sizes)
    attributes: dict[str, Any] = {} if fingerprint is None else {_FINGERPRINT: fingerprint}
    attributes |= _fill_value(model, method, dtype)
    create_array(
        url, None, (*out.shape, *tail), dtype, (*blocks, *tail), attributes, overwrite=overwrite
    )


def _fill_value(model: LinearModel, method: str, dtype: np.dtype[Any]) -> dict[str, int]:
    """Return the attribute by which readers of labels know which are missing, if it can be told.

    Floats have NaN for it; xarray opens no group with strings that have it (2026.9).
    """
    label = model.missing_label
    if method != "predict" or label is None or dtype.kind not in "iu" or label in model.classes:
        return {}
    return {"_FillValue": int(label)}
