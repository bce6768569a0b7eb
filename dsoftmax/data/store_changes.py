"""Chunks that the stores of a source lack, and those that change while it is read."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator, Mapping

import numpy as np

from dsoftmax.data.chunk_listing import list_chunks
from dsoftmax.data.row_array import RowArray
from dsoftmax.data.source import Source
from dsoftmax.data.zarr_array import ZarrArray
from dsoftmax.errors import DataError
from dsoftmax.typing import Array

_NEW_SECONDS = 60.0  # for so long after it was opened, a source needs no look at its stores
_MOST_NAMES = 3


def warn_of_absent_chunks(*sources: Source | None, stacklevel: int) -> None:
    """Warn of chunks that are not in their stores, which Zarr reads as its fill value.

    Parameters
    ----------
    sources : what will be read
    stacklevel : as of `warnings.warn`, called from the caller of this function
    """
    for array in _stored(*sources):
        n_absent = len(array.absent)
        if not array.complete and array.listing is not None:
            n_absent = array.listing.n_absent  # too many to know one by one
        if n_absent and not _means_missing(array):
            warnings.warn(
                f"{n_absent} chunk(s) of {array.name} are not in the store, and are read as its "
                f"fill value, {array.array().fill_value!s}. Zarr leaves out chunks whose values "
                "all equal it: if those were others, restore them",
                stacklevel=stacklevel + 1,
            )


def _means_missing(array: ZarrArray) -> bool:
    """Return whether absent chunks are read as missing values, of which a fit speaks anyway."""
    fill = array.array().fill_value
    is_nan = isinstance(fill, float | np.floating) and bool(np.isnan(fill))
    return is_nan or (array.encoding is not None and fill in array.encoding.fill_values)


def require_unchanged(*sources: Source | None, at_start: bool = False) -> None:
    """Compare the chunks in the stores of sources with those when they were opened.

    Parameters
    ----------
    sources : what was read, or will be
    at_start : whether this is before the first read: then new sources are taken as they are

    Raises
    ------
    DataError
        If chunks were replaced, removed or added; it names them.
    """
    for source in sources:
        for array in _stored(source):
            assert source is not None, "it has arrays"
            before = array.listing
            if before is None or (at_start and time.monotonic() - before.taken < _NEW_SECONDS):
                continue
            after = list_chunks(array.array())
            if after is None:
                warnings.warn(
                    f"{array.name} could be listed when it was opened, and cannot be listed any "
                    "more, so changes of its chunks cannot be detected",
                    stacklevel=2,
                )
            elif changes := before.changes(after):
                # Whoever allows for chunks that cannot be read allows for those that are lost.
                allowed = source.max_bad_chunks > 0 and changes.keys() == {"removed"}
                _report(array, changes, allowed=allowed)


def _report(array: ZarrArray, changes: Mapping[str, Array], *, allowed: bool) -> None:
    found = [
        f"{len(numbers):,} chunk(s) were {what} ({_names(array, numbers)})"
        for what, numbers in changes.items()
    ]
    text = f"{array.name} has changed since it was opened: {', '.join(found)}"
    if not allowed:
        raise DataError(
            f"{text}; what was read may be old in part and new in part. Do not write to a store "
            "while it is read, and start again"
        )
    warnings.warn(f"{text}; rows that could not be read are left out", stacklevel=3)


def listed_digests(array: RowArray) -> dict[str, str]:
    """Return digests of the chunks of the stored arrays that are read, by their names, as known."""
    return {
        part.name: part.listing.digest
        for part in array.stored
        if part.listing is not None and part.url is not None
    }


def _stored(*sources: Source | None) -> Iterator[ZarrArray]:
    for source in sources:
        for array in () if source is None else source.arrays:
            yield from array.stored


def _names(array: ZarrArray, numbers: Array) -> str:
    opened, grid = array.array(), array.listing.grid if array.listing else ()
    first = [np.unravel_index(number, grid) for number in numbers[:_MOST_NAMES]]
    keys = [opened.metadata.encode_chunk_key(tuple(map(int, index))) for index in first]
    return ", ".join(keys + ["..."] * (len(numbers) > _MOST_NAMES))
