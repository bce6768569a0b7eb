"""What arrays say of their axes: the names, and the coordinates along them.

Rows are paired by position. Where both arrays name their axes, or have coordinates along one, these
must be the same; where one has none, there is nothing to compare.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import zarr
from zarr.storage import FsspecStore

from dsoftmax.data.cf_encoding import XARRAY_DIMS, cf_encoding
from dsoftmax.data.row_array import RowArray
from dsoftmax.data.zarr_array import ZarrArray
from dsoftmax.errors import DataError, quoted
from dsoftmax.storage.codecs import require_safe
from dsoftmax.storage.urls import open_raw
from dsoftmax.typing import Array

_DEFAULT_NAME = re.compile(r"dim_\d+")  # of xarray, for an axis that was given none
_NO_NAME = re.compile(r"phony_dim_\d+")  # of netCDF readers, numbered anew in each file
# A coordinate that is longer is compared at its ends: reading one of 2**20 numbers takes a moment,
# and where rows are reversed, shifted or others, the ends tell.
_MOST_COORDINATES = 1 << 20
_TIME_ATTRIBUTES = ("units", "calendar")
_STEP_FRACTION = 0.01  # of a step, by which coordinates may differ: they were rounded


@dataclass(frozen=True)
class Axes:
    """What an array says of its axes.

    Attributes
    ----------
    array : what messages call it
    names : of the axes; None for one without a name
    lengths : of the axes
    coords : coordinates of a DataArray, by the name of the axis
    group : where the Zarr group is that the array is in: path or URL, or store and path; or None
    """

    array: str
    names: tuple[str | None, ...]
    lengths: tuple[int, ...]
    coords: Mapping[str, Any]
    group: Any = None

    def coordinates(self, axis: int) -> Any:
        """Return the index of an axis, or its stored coordinates (its ends only), or None."""
        name, length = self.names[axis], self.lengths[axis]
        if name is None:
            return None
        if name in self.coords:
            # Labels (y, x) that are called y are no coordinates, though xarray lists them there.
            return self.coords[name].to_index() if self.coords[name].ndim == 1 else None
        found = _sibling(self.group, name, length)
        if found is None:
            return None
        if length <= _MOST_COORDINATES:
            return _decoded(found, np.asarray(found[:]))
        ends = [np.asarray(found[part]) for part in _ends(length)]
        return _decoded(found, np.concatenate(ends))


def axes_of(values: Any, array: RowArray) -> Axes | None:
    """Return what an array says of its axes, or None if it is of a kind that says nothing.

    Parameters
    ----------
    values : what the user passed
    array : the same as an array of rows, with all its axes
    """
    if type(values).__module__.startswith("xarray."):
        names = tuple(None if _NO_NAME.fullmatch(str(dim)) else str(dim) for dim in values.dims)
        coords = {str(d): values.coords[d].variable for d in values.dims if d in values.coords}
        return Axes(array.name, names, array.shape, coords)
    if not isinstance(array, ZarrArray):
        return None
    opened = array.array()
    stored = _stored_names(opened)
    if stored is None or len(stored) != len(array.shape):
        return None
    names = tuple(
        name if isinstance(name, str) and name and not _NO_NAME.fullmatch(name) else None
        for name in stored
    )
    return Axes(array.name, names, array.shape, {}, _group_of(array.url, opened))


def _stored_names(array: zarr.Array[Any]) -> list[Any] | None:
    stored = getattr(array.metadata, "dimension_names", None)  # format 3
    if stored is None:
        stored = array.attrs.get(XARRAY_DIMS)
    return list(stored) if isinstance(stored, list | tuple) else None


def require_same_axes(X: Axes | None, other: Axes | None) -> None:
    """Refuse an array of labels or weights whose axes are not those of X without the last.

    Raises
    ------
    DataError
        If names differ, or the coordinates along an axis.
    """
    if X is None or other is None or len(other.names) != len(X.names) - 1:
        return
    pairs = list(zip(X.names, other.names, strict=False))
    if any(names_differ(*pair) for pair in pairs):
        raise DataError(_of_other_axes(X, other))
    if X.group is not None and X.group == other.group:
        return  # they share their coordinates
    for axis, (name, length) in enumerate(zip(other.names, other.lengths, strict=True)):
        if name is None or X.names[axis] != name or X.lengths[axis] != length:
            continue
        mine = other.coordinates(axis)
        theirs = None if mine is None else X.coordinates(axis)
        if theirs is not None:
            _require_same_coordinates(X, other, axis, theirs, mine)


def feature_axis(axes: Axes | None) -> str | None:
    """Return the name of the axis of the features, if it has one."""
    return None if axes is None else axes.names[-1]


def require_same_feature_axis(name: str, found: str | None, expected: str | None) -> None:
    """Raise DataError if features lie along an axis of another name than in training."""
    if names_differ(found, expected):
        raise DataError(
            f"{name} has its features along {quoted(found)}, and the data of the fit have them "
            f"along {quoted(expected)}; transpose it, so that {quoted(expected)} is the last axis"
        )


def stored_feature_names(array: ZarrArray) -> list[str] | None:
    """Return the coordinates of the last axis of a Zarr array, if they are strings."""
    axes = axes_of(None, array)
    if axes is None or axes.names[-1] is None:
        return None
    found = _sibling(axes.group, axes.names[-1], axes.lengths[-1])
    if found is None or np.dtype(found.dtype).kind not in "UTO":
        return None
    names: list[str] = np.asarray(found[:]).tolist()
    return names


def names_differ(a: str | None, b: str | None) -> bool:
    """Return whether axes are named, and differently."""
    if a is None or b is None:
        return False
    default = _DEFAULT_NAME.fullmatch(a) is not None, _DEFAULT_NAME.fullmatch(b) is not None
    return default[0] == default[1] and a != b


def _of_other_axes(X: Axes, other: Axes) -> str:
    mine, theirs = other.names, X.names[:-1]
    text = (
        f"{other.array} has the axes {mine} where those of {X.array} are {theirs}"
        f"{'' if set(mine) == set(theirs) else f', and features along {quoted(X.names[-1])}'}; "
    )
    if set(mine) == set(theirs):
        return f"{text}transpose it to that order{_how(other, theirs)}"
    features = [name for name in X.names if name not in mine]
    if len(features) == 1:
        order = (*mine, features[0])
        return f"{text}transpose {X.array} to {order}{_how(X, order)}"
    return f"{text}pass the array that belongs to these rows, or rename the axes"


def _how(axes: Axes, order: tuple[str | None, ...]) -> str:
    call = f".transpose({', '.join(map(repr, order))})"
    if not isinstance(axes.group, str):
        return f", with {call}"
    group, _, name = axes.array.rpartition("/")
    return f", with xarray.open_zarr({group!r})[{name!r}]{call}"


def _require_same_coordinates(X: Axes, other: Axes, axis: int, theirs: Any, mine: Any) -> None:
    levels = [getattr(index, "names", (None,)) for index in (theirs, mine)]
    if len(levels[0]) == len(levels[1]) > 1 and any(map(names_differ, *levels)):
        raise DataError(
            f"{other.array} is stacked from the axes {tuple(levels[1])} where {X.array} is from "
            f"{tuple(levels[0])}; stack both in the same order"
        )
    if hasattr(mine, "equals") and hasattr(theirs, "equals") and mine.equals(theirs):
        return
    a, b = _plain(theirs), _plain(mine)
    if not _comparable(a, b):
        return
    where = np.arange(X.lengths[axis])
    if min(len(a), len(b)) < len(where):  # there are ends only
        ends = np.concatenate([where[part] for part in _ends(len(where))])
        a, b = (values[ends] if len(values) == len(where) else values for values in (a, b))
        where = ends
    differs = _differing(a, b)
    if not differs.any():
        return
    first = int(np.argmax(differs))
    raise DataError(
        f"{other.array} has other coordinates along {quoted(X.names[axis])} than {X.array}: "
        f"{b[first]!s} where that has {a[first]!s}, at index {int(where[first])}, and "
        f"{int(differs.sum()):,} of {len(differs):,} differ{_reversed(a, b)}. Rows are paired by "
        f"position: align the two first, with X, y = xarray.align(X, y){_opened(X, other)}; or if "
        "they are in the same order, give them the same coordinates"
    )


def _plain(values: Any) -> Array:
    array = np.asarray(values)
    return array.astype("U") if array.dtype.kind == "S" else array


def _comparable(a: Array, b: Array) -> bool:
    """Return whether coordinates are of one kind: a time may stand as a number in a store."""
    kinds = [
        "number" if each.dtype.kind in "biuf" else "text" if _is_text(each) else each.dtype.kind
        for each in (a, b)
    ]
    return kinds[0] == kinds[1] or {*kinds} == {"number", "text"}


def _is_text(values: Array) -> bool:
    return values.dtype.kind in "UT" or (
        values.dtype.kind == "O" and all(isinstance(value, str) for value in values[:1])
    )


def _differing(a: Array, b: Array) -> Array:
    """Return where coordinates differ by more than rounding."""
    if a.dtype.kind in "iuf" and b.dtype.kind in "iuf" and "f" in a.dtype.kind + b.dtype.kind:
        eps = max(np.finfo(each.dtype).eps for each in (a, b) if each.dtype.kind == "f")
        a, b = a.astype(np.float64), b.astype(np.float64)
        steps = np.abs(np.diff(a))
        step = steps.min() if len(steps) and np.isfinite(steps).all() else 0.0
        rounding = 2 * eps * np.maximum(np.abs(a), np.abs(b))
        near = np.abs(a - b) <= np.maximum(_STEP_FRACTION * step, rounding)
        return np.asarray(~(near | (a == b) | _both_nan(a, b)))
    if _is_text(a) or _is_text(b):
        a, b = a.astype(object), b.astype(object)
    return np.asarray((a != b) & ~_both_nan(a, b))


def _both_nan(a: Array, b: Array) -> Array:
    """Return where both are NaN or NaT, which no value equals."""
    return np.asarray((a != a) & (b != b))


def _reversed(a: Array, b: Array) -> str:
    return "" if _differing(a, b[::-1]).any() else " (they are in reverse order)"


def _opened(*both: Axes) -> str:
    return (
        " of what xarray.open_zarr returns" if any(axes.group is not None for axes in both) else ""
    )


def _ends(length: int) -> tuple[slice, slice]:
    half = _MOST_COORDINATES // 2
    return slice(0, half), slice(length - half, length)


def _group_of(url: str | None, array: zarr.Array[Any]) -> Any:
    store = array.store
    if url is None and array.path:
        return store, array.path.rpartition("/")[0]
    if url is None and isinstance(store, FsspecStore) and "/" in store.path:
        # Opened at its own address, with what the user gave to open it.
        parent = store.path.rpartition("/")[0]
        return FsspecStore(store.fs, read_only=True, path=parent), ""
    group, separator, _ = (url or "").rpartition("/")
    return group if separator and group and not group.endswith(("/", ":")) else None


def _sibling(group: Any, name: str, length: int) -> zarr.Array[Any] | None:
    """Return the array of a group that holds the coordinates of an axis, if there is one."""
    if group is None or "/" in name:
        return None
    with suppress(Exception), warnings.catch_warnings():  # whatever a store says without one
        warnings.simplefilter("ignore")  # Zarr's, of strings of fixed length
        if isinstance(group, str):
            found = open_raw(f"{group}/{name}")
        else:
            found = zarr.open(group[0], path=f"{group[1]}/{name}".lstrip("/"), mode="r")
        if isinstance(found, zarr.Array) and found.shape == (length,):
            require_safe(name, found)
            return found if _stored_names(found) in (None, [name]) else None
    return None


def _decoded(stored: zarr.Array[Any], values: Array) -> Any:
    """Return coordinates as xarray decodes them: times as such; None if that is not possible."""
    with suppress(DataError):  # of attributes that are not as they should be
        if (encoding := cf_encoding(stored.name, stored, may_be_times=True)) is not None:
            values = encoding.decode(values)
            if np.ma.isMaskedArray(values):
                kind = np.float64 if values.dtype.kind in "biuf" else object
                values = np.ma.filled(values.astype(kind), np.nan)
        return _as_times(values, stored)
    return None


def _as_times(values: Array, stored: zarr.Array[Any]) -> Any:
    attributes = {name: stored.attrs[name] for name in _TIME_ATTRIBUTES if name in stored.attrs}
    try:
        import xarray as xr
    except ImportError:
        return None if attributes else values
    with suppress(ValueError, OverflowError):  # a unit that is none of time, or not understood
        decoded = xr.conventions.decode_cf_variable("x", xr.Variable(("x",), values, attributes))
        return decoded.to_index()
    return None
