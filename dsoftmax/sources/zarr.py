"""Rows of a Zarr array, reopened by whoever reads them."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import zarr
import zarr.errors
from zarr.storage import LocalStore

from dsoftmax.errors import DataError
from dsoftmax.reduction import Array


@dataclass(frozen=True)
class ZarrArray:
    """A Zarr array by its absolute URL; it pickles as that and its metadata.

    Attributes
    ----------
    name : URL or path, for messages
    url : where another process opens it, or None
    shape, dtype : of the array
    row_chunk : rows of a chunk, or of a shard where there are shards
    opened : the array itself where it has no URL (a store in memory), else None
    """

    name: str
    url: str | None
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    row_chunk: int
    opened: Any = field(default=None, compare=False)
    in_memory: bool = False

    @property
    def portable(self) -> bool:
        """Whether another process can open it."""
        return self.url is not None

    def read(self, start: int, stop: int) -> Array:
        """Return rows start to stop, decoded."""
        array = self.opened if self.url is None else _reopen(self.url)
        return np.asarray(array[start:stop])

    def part(self, start: int, stop: int) -> ZarrArray:
        """Return the array itself: it travels as its URL."""
        return self


def open_zarr(target: str | Path) -> ZarrArray:
    """Return the array at a path or URL, having read its metadata only.

    Raises
    ------
    DataError
        If there is nothing, or a group, or no valid metadata at `target`.
    """
    url = absolute_url(str(target))
    try:
        node = zarr.open(url, mode="r")
    except (FileNotFoundError, zarr.errors.NodeNotFoundError):
        raise DataError(
            f"{url} does not exist or is not a Zarr array; expected the path or URL of an array, "
            "such as data.zarr/X"
        ) from None
    except Exception as error:
        raise DataError(f"{url} cannot be opened: {type(error).__name__}: {error}") from error
    if isinstance(node, zarr.Group):
        raise DataError(
            f"{url} is a Zarr group, not an array; pass one of its arrays: {_arrays_of(url, node)}"
        )
    return _described(url, url, node)


def from_zarr(array: zarr.Array[Any]) -> ZarrArray:
    """Return the source array of an open `zarr.Array`."""
    store = array.store
    if isinstance(store, LocalStore):
        url = str((Path(store.root) / array.path).resolve())
        return _described(url, url, array)
    return _described(f"{type(store).__name__}/{array.path}".rstrip("/"), None, array)


def absolute_url(target: str) -> str:
    """Return a URL as it is, and a path as an absolute one."""
    if target.startswith("file://"):
        target = target.removeprefix("file://")
    return target if "://" in target else str(Path(target).expanduser().resolve())


def _described(name: str, url: str | None, array: zarr.Array[Any]) -> ZarrArray:
    rows = (array.shards or array.chunks)[0] if array.shape else 1
    dtype = np.dtype(array.dtype)
    return ZarrArray(name, url, array.shape, dtype, rows, None if url else array)


def _arrays_of(url: str, group: zarr.Group) -> str:
    found = [f"{url}/{name} {array.shape}" for name, array in sorted(group.arrays())]
    return ", ".join(found) or "it holds none"


@lru_cache(maxsize=64)
def _reopen(url: str) -> Any:
    return zarr.open_array(url, mode="r")
