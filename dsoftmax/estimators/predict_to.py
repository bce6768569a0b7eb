"""Predictions written to a store as they are made, and gone on with when they were stopped."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.core.sync import sync

from dsoftmax.data.grid import Grid, Index, cuts_every
from dsoftmax.data.source import Source
from dsoftmax.errors import DataError
from dsoftmax.objective.linear_model import METHODS, LinearModel, require_features
from dsoftmax.runtime.base import Executor
from dsoftmax.runtime.reduce import full_pass, task_runs
from dsoftmax.runtime.select import executor_for
from dsoftmax.runtime.spans import Span, cut_spans
from dsoftmax.storage.urls import absolute_url, storage_options
from dsoftmax.storage.zarr_nodes import (
    create_array,
    kept_node,
    locate,
    new_node,
    require_apart,
    require_free,
)
from dsoftmax.training.fingerprint import described, first_values

Piece = tuple[Source, Span, list[tuple[Index, int, int]]]  # rows, and the boxes they fill
_MARK = "dsoftmax_prediction"  # attribute: of what, so that no other is gone on with


def predict_to_store(
    model: LinearModel,
    source: Source,
    place: str | os.PathLike[str],
    method: str,
    *,
    overwrite: bool = False,
    resume: bool = False,
) -> None:
    """Write predictions to a Zarr array; see `SoftmaxRegression.predict_to`."""
    require_features(source.X.shape, model, source.X.name)
    if method not in METHODS:
        raise DataError(f"method is {method!r}; expected one of {', '.join(METHODS)}")
    require_apart(place, source.X.name if source.X.portable else None)
    if not resume:
        require_free(place, overwrite)
    # All chunks of the output are of the same length, and no two tasks write to one of them.
    source, out = _evenly_cut(source.features_only())
    with executor_for(source) as executor:
        mark = _mark(model, source, method, executor) if resume else None
        if mark is not None and _is_made(locate(place), mark):
            return
        node = new_node if mark is None else kept_node
        with node(locate(place), overwrite) as target:
            url = absolute_url(os.fspath(target))
            if mark is None or not _is_begun(url, mark, overwrite):
                _create_output(url, model, source, method, out, mark, overwrite)
            _write(executor, model, source, out, method, url, resume)


def _mark(model: LinearModel, source: Source, method: str, executor: Executor) -> str:
    """Return a digest of what is predicted from what, having read the first chunk."""
    if source.X.in_memory:
        raise DataError(
            f"resume=True, and {source.X.name} is an array in memory, which a later process will "
            "not know again; expected one in a store"
        )
    arrays = (model.classes, model.coef, model.intercept, model.point(source.dtype))
    facts = [method, source.X.name, *described(source).values()]
    facts += [f"{array.dtype.str} {array.shape}" for array in arrays]
    facts.append(first_values(source, executor))
    digest = hashlib.sha256("\n".join(facts).encode())
    for array in arrays:
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _found_mark(place: Path | str) -> Any:
    """Return the mark of the array at a place: None if there is no array, "" if it has none."""
    try:
        node = zarr.open_array(place, mode="r", storage_options=storage_options(str(place)))
    except (ValueError, OSError):
        return None
    return node.attrs.get(_MARK, "")


def _is_made(place: Path | str, mark: str) -> bool:
    """Return whether a local array, which is there only when it is complete, is this one."""
    return isinstance(place, Path) and _found_mark(place) == mark


def _is_begun(url: str, mark: str, overwrite: bool) -> bool:
    """Return whether what is there is the beginning of this one; if not, it may be replaced."""
    found = _found_mark(url)
    if found is None:
        require_free(url, overwrite)
    if found not in (None, mark) and not overwrite:
        raise DataError(
            f"{url} holds the beginning of another prediction (of another model, method or data): "
            "remove it, pass overwrite=True, or choose another destination"
        )
    return bool(found == mark)


def _write(
    executor: Executor,
    model: LinearModel,
    source: Source,
    out: Grid,
    method: str,
    url: str,
    resume: bool,
) -> None:
    n_columns = int(np.prod(model.shape(1, method)))
    row_bytes = n_columns * model.dtype(method, source.dtype).itemsize
    spans = cut_spans(out.boundaries, max(source.row_bytes, row_bytes))
    tasks = []
    for first, last in task_runs(source, full_pass(spans), executor.slots, batch=False):
        pieces = [_piece(source, out, span) for span in spans[first:last]]
        blocks = {key: block for part, *_ in pieces for key, block in part.futures.items()}
        tasks.append((pieces, blocks, model, method, url, resume))
    for _ in executor.run(method, _write_rows, tasks, low_concurrency=bool(source.futures)):
        pass


def _piece(source: Source, out: Grid, span: Span) -> Piece:
    return source.part(*span), span, list(out.regions(*span))


def _evenly_cut(source: Source) -> tuple[Source, Grid]:
    """Return the source, and a grid of its samples into blocks of one size, in its row order."""
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
    mark: str | None,
    overwrite: bool,
) -> None:
    tail = model.shape(1, method)[1:]
    dtype = model.dtype(method, source.dtype)
    blocks = tuple(sizes[0] for sizes in out.sizes)
    attributes = {} if mark is None else {_MARK: mark}
    create_array(
        url, None, (*out.shape, *tail), dtype, (*blocks, *tail), attributes, overwrite=overwrite
    )


def _write_rows(
    pieces: Sequence[Piece],
    blocks: dict[Any, Any],
    model: LinearModel,
    method: str,
    url: str,
    resume: bool,
) -> None:
    target = zarr.open_array(url, mode="r+", storage_options=storage_options(url))
    for source, (start, stop), boxes in pieces:
        if resume and all(_is_written(target, where) for where, _, _ in boxes):
            continue
        rows = source.with_blocks(blocks).read(start, stop)
        values = model.apply(rows, method, source.dtype)
        for where, first, last in boxes:
            box = values[first - start : last - start]
            shape = tuple(axis.stop - axis.start for axis in where)
            target[where] = box.reshape(*shape, *box.shape[1:])


def _is_written(target: zarr.Array[Any], where: Index) -> bool:
    """Return whether all chunks in a box are in the store, which takes them as a whole."""
    numbers = [
        range(axis.start // size, -(-axis.stop // size))
        for axis, size in zip(where, target.chunks, strict=False)
    ]
    trailing = (0,) * (target.ndim - len(where))
    for number in np.ndindex(*map(len, numbers)):
        chunk = (*(axis[i] for axis, i in zip(numbers, number, strict=True)), *trailing)
        if not sync((target.store_path / target.metadata.encode_chunk_key(chunk)).exists()):
            return False
    return True
