"""Columns of AnnData in Zarr that take two arrays: categories with codes, values with a mask.

Source: the on-disk format of AnnData, "Categorical arrays" and "Nullable integers, booleans and
strings", and the categories of its version 0.7, in a folder of their own.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
import zarr

from dsoftmax.data.grid import Index
from dsoftmax.data.label_arrays import from_objects
from dsoftmax.data.row_array import BoxArrayMixin, RowArray
from dsoftmax.data.zarr_array import ZarrArray, described, from_zarr
from dsoftmax.errors import DataError
from dsoftmax.objective.labels import LABEL_KINDS
from dsoftmax.storage.credentials import public_errors, public_url
from dsoftmax.storage.digests import short_digest
from dsoftmax.storage.urls import Node, absolute_url, arrays_in, open_node, url_of
from dsoftmax.typing import Array

_NULLABLE = ("nullable-integer", "nullable-boolean", "nullable-string-array")
Place = tuple[str, str | None, Any]  # name, URL and node
_OLD_CATEGORIES = "__categories/"  # where AnnData 0.7 put the categories of all columns


@dataclass(frozen=True, eq=False)
class AnnDataColumn(BoxArrayMixin):
    """A column whose values may be missing; it pickles as the URLs of its arrays.

    Attributes
    ----------
    name : of the group, for messages
    values : values, or codes of categories, of which a negative one is a missing value
    mask : true where a value is missing, or None for codes
    categories : what codes stand for
    read_from : what the categories were read from; None in a part of the column
    """

    name: str
    values: ZarrArray
    mask: ZarrArray | None = None
    categories: Array = field(default_factory=lambda: np.empty(0))
    read_from: ZarrArray | None = None
    may_wait = True
    may_be_masked = True

    @property
    def stored(self) -> tuple[ZarrArray, ...]:  # type: ignore[override]
        """The arrays of the column."""
        return tuple(a for a in (self.values, self.mask, self.read_from) if a is not None)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the column."""
        return self.values.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Dtype of the categories, or of the values."""
        return self.categories.dtype if self.mask is None else self.values.dtype

    @property
    def boundaries(self) -> tuple[int, ...]:
        """Row boundaries of the chunks of the values."""
        return self.values.boundaries

    @property
    def cuts(self) -> tuple[tuple[int, ...], ...]:
        """The same."""
        return (self.boundaries,)

    @property
    def portable(self) -> bool:
        """Whether another process can open it."""
        return self.values.portable

    @property
    def identity(self) -> str:
        """Digest of the metadata, and of the categories."""
        if self.mask is not None:
            return f"{self.values.identity} {self.mask.identity}"
        return f"{self.values.identity} {short_digest(self.categories)}"

    def region(self, where: Index) -> Array:
        """Return a part of the column: a masked array where values are missing."""
        values = self.values.region(where)
        if self.mask is not None:
            missing = self.mask.region(where).astype(bool)
            return _masked(values, missing)
        if values.size and values.max() >= len(self.categories):
            raise DataError(
                f"{self.name} has the code {values.max()}, and {len(self.categories)} categories; "
                "restore the column, or write it again"
            )
        missing = values < 0
        if missing.all():
            return _masked(np.zeros(values.shape, self.dtype), missing)
        return _masked(self.categories[np.where(missing, 0, values)], missing)

    def bad_chunk_in(self, where: Index) -> str | None:
        """Return the first chunk in a part that cannot be read."""
        found = self.values.bad_chunk_in(where)
        return self.mask.bad_chunk_in(where) if found is None and self.mask else found

    def chunk_of(self, index: tuple[int, ...]) -> str:
        """Return which chunk holds the value at an index, for messages."""
        return self.values.chunk_of(index)

    def part(self, start: int, stop: int) -> Self:
        """Return the column of the parts of the arrays."""
        values, mask = self.values.part(start, stop), self.mask and self.mask.part(start, stop)
        return replace(self, values=values, mask=mask, read_from=None)

    def require_visible(self) -> None:
        """Raise an error unless this process can open the arrays."""
        for array in filter(None, (self.values, self.mask)):
            array.require_visible()


def _masked(values: Array, missing: Array) -> Array:
    if not missing.any():
        return values
    if values.dtype.kind in LABEL_KINDS:
        return np.ma.masked_array(values, missing)
    objects = values.astype(object)
    objects[missing] = None
    return from_objects("y", objects)


@public_errors()
def open_stored(
    target: str | Path, *, require_complete: bool = True, decode: bool = True
) -> RowArray:
    """Return the array or the AnnData column at a path or URL. No values are read.

    It reads the metadata, lists the chunks, and reads the categories of a column.

    Parameters
    ----------
    target : path or URL
    require_complete, decode : see `zarr_array.described`

    Raises
    ------
    DataError
        If there is nothing, or a group of another kind, or no valid metadata at `target`.
    ChunkError
        If dsoftmax wrote it in full and it has lost chunks, which Zarr reads as zeros.
    """
    url = absolute_url(target)
    node = open_node(url)
    column = _column(url, node, partial(_at_url, url))
    if column is not None:
        return column
    if isinstance(node, zarr.Group):
        raise DataError(arrays_in(public_url(url), node))
    return described(url, url, node, require_complete=require_complete, decode=decode)


def from_node(
    role: str, node: Any, *, require_complete: bool = True, decode: bool = True
) -> RowArray:
    """Return what `open_stored` does, of an open `zarr.Array` or `zarr.Group`."""
    if isinstance(node, zarr.Array | zarr.Group) and (column := column_at(node)) is not None:
        return column
    return from_zarr(role, node, require_complete=require_complete, decode=decode)


@public_errors()
def column_at(node: Node) -> AnnDataColumn | None:
    """Return the column that an open array or group is or belongs to, or None."""
    url = url_of(node)
    if url is not None:  # where an array was opened by itself, its store knows no other
        return _column(url, node, partial(_at_url, url))
    name = f"{type(node.store).__name__}/{node.path}".rstrip("/")
    return _column(name, node, partial(_at_node, name, node))


def _at_url(url: str, path: str) -> Place:
    protocol, separator, place = url.rpartition("://")
    place = protocol + separator + posixpath.normpath(posixpath.join(place, path))
    return place, place, open_node(place)


def _at_node(name: str, node: Node, path: str) -> Place:
    place = posixpath.normpath(posixpath.join("/", node.path, path)).lstrip("/")
    found: Node = zarr.open(node.store, path=place, mode="r")
    return posixpath.normpath(posixpath.join(name, path)), url_of(found), found


def _column(name: str, node: Node, at: Callable[[str], Place]) -> AnnDataColumn | None:
    """Return the column at a node, or None if it is none that takes two arrays.

    Parameters
    ----------
    name, node : what was given
    at : opens a path from there
    """
    kind = node.attrs.get("encoding-type")
    if isinstance(node, zarr.Group):
        if kind == "categorical":
            _require(name, node, kind, "codes", "categories")
            return _of_codes(name, at("codes"), at("categories"))
        if kind in _NULLABLE:
            _require(name, node, str(kind), "values", "mask")
            return _of_mask(name, at("values"), at("mask"))
        return None
    where = node.attrs.get("categories")
    if isinstance(where, str) and where.startswith(_OLD_CATEGORIES):
        return _of_codes(name, at("."), at(f"../{where}"))
    if posixpath.basename(name) in ("codes", "values"):
        return _of_part(name, at)
    return None


def _of_part(name: str, at: Callable[[str], Place]) -> AnnDataColumn | None:
    """Return the column of which an array is the codes or the values, which may be missing."""
    try:
        parent = at("..")[2]
    except (DataError, OSError, ValueError):  # no group, or one without metadata
        return None
    kind = parent.attrs.get("encoding-type")
    if kind == "categorical" and name.endswith("codes"):
        column = _of_codes(name, at("."), at("../categories"))
        return replace(column, categories=np.arange(len(column.categories)))
    if kind in _NULLABLE and name.endswith("values"):
        return _of_mask(name, at("."), at("../mask"))
    return None


def _of_codes(name: str, codes: Place, categories: Place) -> AnnDataColumn:
    read_from = described(*categories, decode=False)
    values = read_from.read(0, read_from.shape[0])
    if values.dtype.kind not in LABEL_KINDS:
        values = from_objects("y", values.astype(object))
    column = described(*codes, decode=False)
    return AnnDataColumn(public_url(name), column, None, values, read_from)


def _of_mask(name: str, values: Place, mask: Place) -> AnnDataColumn:
    name = public_url(name)
    if values[2].shape != mask[2].shape:
        raise DataError(
            f"{name} has values of shape {values[2].shape} and a mask of shape {mask[2].shape}; "
            "expected the same; write the column again"
        )
    return AnnDataColumn(name, described(*values, decode=False), described(*mask, decode=False))


def _require(name: str, group: zarr.Group, kind: str, *keys: str) -> None:
    lost = [key for key in keys if key not in group]
    if lost:
        raise DataError(
            f"{public_url(name)} is an AnnData column ({kind}) that has no "
            f"{' and no '.join(lost)}; expected the arrays {' and '.join(keys)}: restore it, or "
            "write it again"
        )
