"""What writes predictions on a worker, which imports no more for it than NumPy and Zarr."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import zarr
from zarr.core.sync import sync

from dsoftmax.data.grid import Index
from dsoftmax.data.retry import patiently
from dsoftmax.data.source import Source
from dsoftmax.objective.linear_model import LinearModel
from dsoftmax.runtime.spans import Span
from dsoftmax.storage.credentials import Place
from dsoftmax.storage.urls import storage_options

OutputPart = tuple[
    Source, Span, list[tuple[Index, int, int]]
]  # rows, and the boxes of the output they fill


def write_rows(
    parts: Sequence[OutputPart],
    blocks: dict[Any, Any],
    model: LinearModel,
    method: str,
    place: Place,
    resume: bool,
) -> None:
    """Write what is predicted for some parts; with `resume`, for those that are not written yet."""
    retry_policy = parts[0][0].retry_policy
    target = patiently(
        f"{place!r} cannot be opened",
        partial(zarr.open_array, place.url, mode="r+", storage_options=storage_options(place.url)),
        retry_policy,
    )
    for source, (start, stop), boxes in parts:
        if resume and all(_is_written(target, where) for where, _, _ in boxes):
            continue
        # No name holds the rows while the next ones are read.
        values = model.apply(source.with_blocks(blocks).read(start, stop), method, source.dtype)
        for where, first, last in boxes:
            box = values[first - start : last - start]
            shape = tuple(axis.stop - axis.start for axis in where)
            patiently(
                f"{place!r}: rows {first} to {last - 1} cannot be written",
                partial(target.__setitem__, where, box.reshape(*shape, *box.shape[1:])),
                retry_policy,
            )


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
